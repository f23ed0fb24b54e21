//! A TCP proxy in front of a server. While it is cut, it refuses connections and closes open ones.

use std::{net::SocketAddr, thread};

use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinSet,
};

/// A line on an address of its own. It runs on a thread of its own, since tests block theirs.
pub(crate) struct TcpProxy {
    address: SocketAddr,
    up: watch::Sender<bool>,
    state: watch::Receiver<bool>,
}

impl TcpProxy {
    /// A line to `server`, `host:port`.
    pub(crate) fn to(server: &str, up: bool) -> Self {
        let reserved = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = reserved.local_addr().unwrap();
        drop(reserved);
        let (wanted, wishes) = watch::channel(up);
        let (told, state) = watch::channel(!up);
        let server = server.to_owned();
        thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(run(address, &server, wishes, told));
        });
        let line = Self { address, up: wanted, state };
        line.wait(up);
        line
    }

    /// `http://127.0.0.1:…`
    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Cuts it.
    pub(crate) fn cut(&self) {
        self.set(false);
    }

    /// Mends it.
    pub(crate) fn mend(&self) {
        self.set(true);
    }

    fn set(&self, up: bool) {
        self.up.send(up).unwrap();
        self.wait(up);
    }

    fn wait(&self, up: bool) {
        while *self.state.borrow() != up {
            thread::sleep(std::time::Duration::from_millis(1));
        }
    }
}

async fn run(address: SocketAddr, server: &str, mut wishes: watch::Receiver<bool>, told: watch::Sender<bool>) {
    loop {
        if *wishes.borrow_and_update() {
            let listener = TcpListener::bind(address).await.unwrap();
            told.send(true).unwrap();
            let mut open = JoinSet::new();
            loop {
                tokio::select! {
                    wish = wishes.changed() => if wish.is_err() { return } else { break },
                    Ok((mut near, _)) = listener.accept() => {
                        let server = server.to_owned();
                        open.spawn(async move {
                            let mut far = TcpStream::connect(server).await?;
                            copy_bidirectional(&mut near, &mut far).await
                        });
                    }
                }
            }
        } else {
            let _ = told.send(false);
            if wishes.changed().await.is_err() {
                return;
            }
        }
    }
}
