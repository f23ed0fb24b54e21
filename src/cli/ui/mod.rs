//! `ui`: the vault as pages for a browser on this machine. The command calls the vault with the certificate of its user, so that no browser needs one.
//!
//! | file | guarantees |
//! |---|---|
//! | `server` | listens on loopback only; the table of pages |
//! | `guard` | a request needs the name of this server, the session and, to change something, the origin of these pages |
//! | `session` | the secrets of the session: the token of the first URL, the cookie, the token of the forms |
//! | `layout` | the document of a page: headings, navigation, no script |
//! | `form` · `fields` · `part` · `link` | filters, tables of fields, parts that can fail alone, encoded links |
//! | `pages` | one file per page; pages only read |
//! | `actions` | the changes, each with a confirmation; only with `--allow-actions` |

mod actions;
mod fields;
mod form;
mod guard;
mod layout;
mod link;
mod pages;
mod part;
mod server;
mod session;

use std::{net::SocketAddr, time::Duration};

use clap::Args;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use self::{server::App, session::Session};
use super::{
    Failure,
    connection::{Format, Remote},
};
use crate::{
    crypto::SystemRandom,
    mtls::{ConnectionLimits, serve_loopback},
};

/// Where to serve the pages, and whether they change anything.
#[derive(Debug, Args)]
pub struct UiArgs {
    /// The address to listen on; loopback only. Port 0 takes a free port
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8444")]
    listen: SocketAddr,
    /// Offer the changes that the certificate permits: create and disable keys, rotate, freeze, … Each asks for a confirmation
    #[arg(long)]
    allow_actions: bool,
}

/// Serves the pages until Ctrl-C, after it has printed the URL of the first one.
pub(super) async fn run(args: UiArgs, remote: Remote) -> Result<(), Failure> {
    let UiArgs { listen, allow_actions } = args;
    if !listen.ip().is_loopback() {
        return Err(Failure::Usage(format!(
            "--listen {listen}: the pages have the rights of your certificate, so they are served on loopback only: write 127.0.0.1:PORT"
        )));
    }
    let listener = tokio::net::TcpListener::bind(listen).await.map_err(|error| {
        Failure::Usage(format!(
            "--listen {listen}: {error}. Stop the program that uses the port, or write another address: --listen 127.0.0.1:0"
        ))
    })?;
    let address = listener.local_addr()?;
    let session = Session::new(address, &SystemRandom::default()).map_err(anyhow::Error::from)?;
    let first = session.first_url();
    match remote.format {
        Format::Json => remote.print(&json!({ "url": &*first, "vault": remote.client.endpoints().urls(), "actions": allow_actions }))?,
        Format::Text => println!(
            "The pages of {}: open this URL once, in one browser. It is a secret, because it gives the rights of your certificate.\n\n  {}\n\n{} Stop with Ctrl-C.",
            remote.client.endpoints().urls(),
            &*first,
            if allow_actions { "Changes are offered, because of --allow-actions." } else { "The pages only read." },
        ),
    }
    drop(first);
    serve(App { client: remote.client, session, allow_actions }, listener).await
}

/// How long a browser of this machine may take until it sends a request, and for the headers of one.
const SPEAK: Duration = Duration::from_secs(5);

async fn serve(app: App, listener: tokio::net::TcpListener) -> Result<(), Failure> {
    let limits = ConnectionLimits { handshake_timeout: SPEAK, header_timeout: SPEAK, ..ConnectionLimits::default() };
    tokio::select! {
        () = serve_loopback(listener, server::router(app), limits, CancellationToken::new()) => Ok(()),
        interrupted = tokio::signal::ctrl_c() => Ok(interrupted?),
    }
}
