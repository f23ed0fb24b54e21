//! `canton sign-topology`: shows prepared topology transactions, asks, signs them with one signature, and writes what Canton loads.

use std::path::PathBuf;

use anyhow::Context as _;
use clap::Args;
use serde::Deserialize;
use serde_json::{Value, json};

use super::show::lines;
use crate::{
    cli::{
        Failure,
        confirmation::confirm,
        connection::Remote,
        input::{NewFile, Place, base64_secret, from_base64},
        output::printable,
        reference::KeyArg,
    },
    client::Call,
    domain::{Algorithm, KeyId, SignatureFormat},
    topology::{CantonHash, TopologySignature, TopologyTransaction, signed_transaction},
};

/// The options of `canton sign-topology`.
#[derive(Debug, Args)]
pub struct SignTopologyArgs {
    #[command(flatten)]
    key: KeyArg,
    /// Files with prepared transactions (.prep). Several files get one signature over their combined hash
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Write the signed transaction to this new file, as `assemble-cert` of Canton does. For one file only; default: FILE with the extension .cert
    #[arg(long, value_name = "FILE")]
    cert_out: Option<PathBuf>,
    /// Sign without a question
    #[arg(long)]
    yes: bool,
}

#[derive(Deserialize)]
struct Signed {
    algorithm: Algorithm,
    signature: String,
    signature_format: SignatureFormat,
}

/// Shows, asks, signs and writes.
pub(super) async fn run(args: &SignTopologyArgs, remote: &Remote) -> Result<(), Failure> {
    if args.cert_out.is_some() && args.files.len() > 1 {
        return Err(Failure::Usage("--cert-out is for one file. Several get the extension .cert".into()));
    }
    let id = args.key.id(&remote.client).await?;
    let KeyId::Pair(signed_by) = id else {
        return Err(Failure::Usage("a symmetric key does not sign".into()));
    };
    let mut prepared = Vec::with_capacity(args.files.len());
    for file in &args.files {
        prepared.push(Place::File(file.clone()).read("FILE")?);
    }
    let mut hashes: Vec<CantonHash> = Vec::with_capacity(prepared.len());
    for (file, bytes) in args.files.iter().zip(&prepared) {
        let shown: Value = remote.client.post("/v1/topology/decode", &json!({ "transaction": *base64_secret(bytes) })).await?;
        let transaction = TopologyTransaction::decode(bytes).with_context(|| file.display().to_string())?;
        hashes.push(transaction.hash());
        eprintln!("{}", file.display());
        lines(&shown).for_each(|line| eprintln!("  {}", printable(line)));
    }
    confirm(&format!("Sign with {id}?"), args.yes)?;
    let outs: Vec<PathBuf> = match &args.cert_out {
        Some(out) => vec![out.clone()],
        None => args.files.iter().map(|file| file.with_extension("cert")).collect(),
    };
    // The files are created before the signature, so that none is lost.
    let outs: Vec<NewFile> = outs.into_iter().map(|out| NewFile::create(&Place::File(out))).collect::<Result<_, _>>()?;
    let transactions: Vec<String> = prepared.iter().map(|bytes| base64_secret(bytes).to_string()).collect();
    let body = match transactions.as_slice() {
        [one] => json!({ "transaction": one }),
        several => json!({ "transactions": several }),
    };
    let answer = remote.client.success(Call::post(&format!("/v1/keys/{id}/sign-topology")).json(&body)?).await?;
    let Signed { algorithm, signature, signature_format } = answer.parse()?;
    let bytes = from_base64(&signature, "signature")?;
    let signature = TopologySignature { bytes: &bytes, format: signature_format, algorithm, signed_by };
    hashes.sort();
    let covered: &[CantonHash] = if prepared.len() > 1 { &hashes } else { &[] };
    for (out, transaction) in outs.into_iter().zip(&prepared) {
        let signed = signed_transaction(transaction, covered, &signature);
        remote.written(out.finish(&signed)?, signed.len())?;
    }
    Ok(())
}
