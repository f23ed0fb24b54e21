//! `dev`: serves a complete development vault on one machine, with its own certificates, wrapper key and configuration.

use std::{
    fmt::Write as _,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use clap::Args;
use serde_json::{Value, json};

use crate::{crypto::SystemRandom, kms::create_key_file, mtls::ListenConfig, storage::Mode};

use super::{Failure, pki};
use crate::{
    client::{Call, Client, ConnectOptions},
    server::{
        log, reload,
        run::{Accept, Server, clock, gather_entropy, runtime},
    },
};

/// Serve a vault for development, with everything it needs created in one folder
#[derive(Debug, Args)]
pub struct DevArgs {
    /// The folder of certificates, wrapper key, configuration and database
    #[arg(long, default_value = ".keyvault-dev")]
    dir: PathBuf,
    /// The address of the API; loopback only
    #[arg(long, default_value = "127.0.0.1:8443")]
    listen: SocketAddr,
    /// The address of health and metrics; loopback only
    #[arg(long, default_value = "127.0.0.1:9443")]
    ops_listen: SocketAddr,
}

/// Creates what is missing, serves, signs once through the API, and prints example commands.
pub(super) fn run(args: &DevArgs) -> Result<(), Failure> {
    for (flag, address) in [("--listen", args.listen), ("--ops-listen", args.ops_listen)] {
        if !address.ip().is_loopback() {
            return Err(Failure::Usage(format!(
                "{flag} {address}: dev keeps its keys for everybody on this machine, so it listens on loopback only; use serve for anything else"
            )));
        }
    }
    gather_entropy();
    let now = clock()();
    let pki = pki::ensure_pki(&args.dir, now).map_err(anyhow::Error::from)?;
    let random = SystemRandom::default();
    let wrapper = args.dir.join("wrapper.key");
    if !wrapper.exists() {
        create_key_file(&wrapper, &random).map_err(anyhow::Error::from)?;
    }
    let config = args.dir.join("keyvault.toml");
    if !config.exists() {
        pki::write_private(&config, pki::dev_config(args.listen, args.ops_listen).as_bytes())?;
    }
    let mut live = reload::load(&config, clock()).map_err(anyhow::Error::from)?;
    // The options take precedence over the configuration of an earlier start.
    live.config.listen = ListenConfig { api: args.listen, ops: args.ops_listen };
    log::start(&live.config.log)?;
    runtime()?.block_on(async {
        let server = Box::pin(Server::start(live, Mode::Dev, Accept::default())).await?;
        show(&pki, args).await?;
        Ok(server.until_stopped().await?)
    })
}

/// A first signature by `participant1` over mTLS, and example commands.
async fn show(pki: &Path, args: &DevArgs) -> Result<(), Failure> {
    let url = format!("https://{}", args.listen);
    let options =
        ConnectOptions { url: url.clone(), ca: pki.join("ca.pem"), cert: pki.join("participant1.pem"), key: pki.join("participant1.key") };
    let client = Client::new(&options)?;
    let answer = first_signature(&client).await;
    let mut page = String::new();
    let _ = writeln!(page, "\nCanton Key Vault, for development: {url} (health and metrics: https://{})", args.ops_listen);
    let _ = writeln!(page, "Files, all private to you: {}", args.dir.display());
    match answer {
        Ok((id, signature)) => {
            let _ = writeln!(
                page,
                "\nA first signature, by participant1 over mTLS:\n  key       {id}\n  message   hello, Canton\n  signature {signature}"
            );
        }
        // A key or the vault may be disabled or frozen since an earlier start. That is reported, and the vault is served.
        Err(error) => {
            let _ = writeln!(page, "\nNo first signature: {error}");
        }
    }
    let pki = pki.display();
    let _ = writeln!(
        page,
        "\nPaste next:\n  export KEYVAULT_URL={url} KEYVAULT_CA={pki}/ca.pem KEYVAULT_CERT={pki}/participant1.pem KEYVAULT_KEY={pki}/participant1.key\n  canton-keyvault keys list\n  curl --cacert {pki}/ca.pem --cert {pki}/participant1.pem --key {pki}/participant1.key {url}/v1/whoami\n\nStop with Ctrl-C."
    );
    print!("{page}");
    Ok(())
}

/// Signs with the first signing key of `participant1`, which is created if there is none. Returns the id of the key and the signature.
async fn first_signature(client: &Client) -> Result<(String, String), Failure> {
    let existing = client.json(Call::get("/v1/keys").query("purpose", "signing").query("state", "active").query("limit", "1")).await?;
    let key = if let Some(key) = existing.pointer("/items/0") {
        key.clone()
    } else {
        let new = json!({ "node": "participant1", "purpose": "signing", "spec": "ec-curve25519", "name": "participant1-signing" });
        client.create("/v1/keys", &new).await?
    };
    let id = text(&key, "id")?;
    let request = json!({ "algorithm": "ed25519", "message": STANDARD.encode(b"hello, Canton") });
    let answer = client.post(&format!("/v1/keys/{id}/sign"), &request).await?;
    Ok((id.to_owned(), text(&answer, "signature")?.to_owned()))
}

fn text<'v>(value: &'v Value, field: &str) -> Result<&'v str, Failure> {
    value.get(field).and_then(Value::as_str).ok_or_else(|| Failure::Unexpected(format!("the vault's answer has no {field}")))
}
