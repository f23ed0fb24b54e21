//! `audit certificate`: everything that was done with one client certificate, counted.

use clap::Args;
use serde_json::{Value, json};

use crate::cli::{Failure, connection::Remote, value_parsers::certificate};
use crate::client::Call;

/// Which certificate.
#[derive(Debug, Args)]
pub struct CertificateArgs {
    /// SHA-256 of the certificate in hex: openssl x509 -noout -fingerprint -sha256
    #[arg(value_name = "DIGEST", value_parser = certificate)]
    digest: String,
}

/// Runs the command.
pub(super) async fn run(args: &CertificateArgs, remote: &Remote) -> Result<(), Failure> {
    let call = Call::get("/v1/audit/summary").query("by", "principal,operation,outcome").query("certificate", &args.digest);
    let answer = remote.client.json(call).await?;
    let items = answer.get("items").and_then(Value::as_array).cloned().unwrap_or_default();
    let text = |item: &Value, field: &str| item.get(field).and_then(Value::as_str).unwrap_or_default().to_owned();
    let calls = |outcome: Option<&str>| -> u64 {
        let wanted = items.iter().filter(|item| outcome.is_none_or(|outcome| text(item, "outcome") == outcome));
        wanted.filter_map(|item| item.get("calls").and_then(Value::as_u64)).sum()
    };
    let mut principals: Vec<String> = items.iter().map(|item| text(item, "principal")).collect();
    principals.dedup();
    let first = items.iter().map(|item| text(item, "first_at")).min();
    let last = items.iter().map(|item| text(item, "last_at")).max();
    remote.print(&json!({
        "certificate": args.digest,
        "principals": principals,
        "first_at": first,
        "last_at": last,
        "calls": calls(None),
        "denied": calls(Some("denied")),
        "failed": calls(Some("failed")),
        "complete": answer.get("complete"),
        "operations": items,
    }))
}
