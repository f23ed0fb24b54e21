//! `keys import`: imports a key from a file. Material and password are never command-line arguments.

use clap::{Args, ValueEnum};
use serde::Serialize;

use super::create::AttributeArgs;
use crate::{
    cli::{
        Failure,
        connection::Remote,
        input::{Place, base64_secret, pkcs8_der},
        value_parsers::words,
    },
    client::Call,
    domain::{NodeName, Purpose},
};

/// The options of `keys import`.
#[derive(Debug, Args)]
pub struct ImportArgs {
    /// The Canton node of the key
    #[arg(long)]
    node: NodeName,
    /// The format of the file
    #[arg(long, value_enum)]
    format: MaterialFormat,
    /// The file with the private key; - for standard input
    #[arg(long, value_name = "FILE|-")]
    material_file: Place,
    /// The file with the password of the key-pair file; - for standard input
    #[arg(long, value_name = "FILE|-")]
    password_file: Option<Place>,
    /// What the key is for; required if the material does not contain it
    #[arg(long, value_parser = words::<Purpose>())]
    purpose: Option<Purpose>,
    #[command(flatten)]
    attributes: AttributeArgs,
    /// Import a key again that was destroyed, also for another node. Without this, a destroyed key is refused
    #[arg(long)]
    replace_destroyed: bool,
}

/// The format of a private key outside the vault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum MaterialFormat {
    /// PKCS#8, in DER or PEM
    Pkcs8,
    /// A key-pair file as Canton's `keys.secret.download` writes it
    CantonKeyPair,
    /// The 32 bytes of a symmetric key
    Raw,
}

#[derive(Serialize)]
struct ImportKeyBody<'a> {
    node: &'a NodeName,
    format: MaterialFormat,
    material: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    password: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    purpose: Option<Purpose>,
    #[serde(flatten)]
    attributes: &'a AttributeArgs,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    replace_destroyed: bool,
}

/// Imports the key and prints it.
pub(super) async fn run(args: &ImportArgs, remote: &Remote) -> Result<(), Failure> {
    let ImportArgs { node, format, material_file, password_file, purpose, attributes, replace_destroyed } = args;
    if *material_file == Place::Standard && *password_file == Some(Place::Standard) {
        return Err(Failure::Usage("--material-file and --password-file cannot both be standard input".into()));
    }
    let bytes = material_file.read("--material-file")?;
    let bytes = if *format == MaterialFormat::Pkcs8 { pkcs8_der(&bytes)? } else { bytes };
    let material = base64_secret(&bytes);
    let password = password_file.as_ref().map(|place| place.read_password("--password-file")).transpose()?;
    let body = ImportKeyBody {
        node,
        format: *format,
        material: &material,
        password: password.as_ref().map(|password| password.as_str()),
        purpose: *purpose,
        attributes,
        replace_destroyed: *replace_destroyed,
    };
    remote.print(&remote.client.json(Call::post("/v1/keys/import").json(&body)?.idempotent()?).await?)
}
