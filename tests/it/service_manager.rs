//! What the vault tells the service manager (systemd, `Type=notify`): that it serves, works, and stops. The unit file relies on it.

use std::{os::unix::net::UnixDatagram, path::Path, time::Duration};

use crate::support::{
    postgres::shared_server,
    vault::{TestVault, until},
};

/// A vault with a socket of ours as that of the service manager.
fn vault(watchdog: Option<&str>) -> (TestVault, UnixDatagram) {
    let mut vault = TestVault::prepare(|config| config);
    let manager = served(&mut vault, watchdog);
    (vault, manager)
}

fn served(vault: &mut TestVault, watchdog: Option<&str>) -> UnixDatagram {
    let path = vault.path("notify");
    let manager = UnixDatagram::bind(&path).unwrap();
    manager.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    vault.env("NOTIFY_SOCKET", path.to_str().unwrap());
    if let Some(microseconds) = watchdog {
        vault.env("WATCHDOG_USEC", microseconds);
    }
    vault.serve();
    manager
}

/// The assignments of the next message.
fn next(manager: &UnixDatagram) -> Vec<String> {
    let mut buffer = [0; 1024];
    let length = manager.recv(&mut buffer).expect("a message of the vault");
    std::str::from_utf8(&buffer[..length]).unwrap().lines().map(str::to_owned).collect()
}

#[tokio::test]
async fn the_vault_says_that_it_serves_works_and_stops() {
    let (mut vault, manager) = vault(Some("600000"));
    assert_eq!(next(&manager), ["READY=1", "STATUS=serving"]);
    // It serves: the first call after the message is answered.
    vault.client("auditor").get("/v1/status").await.unwrap();
    for _ in 0..4 {
        assert_eq!(next(&manager), ["WATCHDOG=1"]);
    }
    assert!(vault.terminate());
    let last = std::iter::repeat_with(|| next(&manager)).find(|message| message[0] != "WATCHDOG=1").unwrap();
    assert_eq!(last[0], "STOPPING=1");
}

#[tokio::test]
async fn a_vault_whose_store_does_not_answer_is_silent_until_it_does() {
    let database = shared_server().await.database().await;
    let mut vault = TestVault::on_database(&database);
    let manager = served(&mut vault, Some("600000"));
    assert_eq!(next(&manager)[0], "READY=1");
    let mut client = database.client().await;
    let lock = client.transaction().await.unwrap();
    lock.batch_execute("LOCK TABLE meta IN ACCESS EXCLUSIVE MODE").await.unwrap();
    let silent = || vault.log().iter().filter(|line| line["message"].as_str().unwrap().contains("the store does not answer")).count();
    until("the vault finds that the store does not answer", async || silent() > 0).await;
    // What it sent before.
    manager.set_nonblocking(true).unwrap();
    while manager.recv(&mut [0; 64]).is_ok() {}
    let before = silent();
    until("it finds that twice more", async || silent() > before + 1).await;
    assert!(manager.recv(&mut [0; 64]).is_err(), "a message of a vault that does not work");
    lock.rollback().await.unwrap();
    until("it works again", async || manager.recv(&mut [0; 64]).is_ok()).await;
}

#[test]
fn without_a_watchdog_it_says_only_that_it_serves_and_stops() {
    let (mut vault, manager) = vault(None);
    assert_eq!(next(&manager)[0], "READY=1");
    assert!(vault.terminate());
    assert_eq!(next(&manager)[0], "STOPPING=1");
}

#[test]
fn a_start_that_fails_is_never_ready() {
    let mut vault = TestVault::prepare(|config| config.replace("id = \"dev\"", "id = \"\""));
    let path = vault.path("notify");
    let manager = UnixDatagram::bind(&path).unwrap();
    manager.set_nonblocking(true).unwrap();
    vault.env("NOTIFY_SOCKET", path.to_str().unwrap());
    vault.refuses_to_serve();
    assert!(manager.recv(&mut [0; 16]).is_err(), "a message of a vault that does not serve");
}

#[test]
fn a_socket_that_cannot_be_used_does_not_stop_the_vault() {
    let mut vault = TestVault::prepare(|config| config);
    vault.env("NOTIFY_SOCKET", "/nowhere/notify");
    vault.serve();
    assert!(vault.terminate());
    assert!(vault.folder().exists());
}

#[test]
fn the_unit_waits_for_the_message_and_reloads_by_signal() {
    let unit = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/systemd/canton-keyvault.service")).unwrap();
    for line in ["Type=notify", "NotifyAccess=main", "WatchdogSec=60", "ExecReload=/bin/kill -HUP $MAINPID"] {
        assert!(unit.lines().any(|found| found == line), "{line}");
    }
    // AF_UNIX is the family of the socket.
    assert!(unit.contains("RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX"));
}
