//! `keys export`: writes an exportable key to a new file that only its owner can read.

use clap::Args;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::import::MaterialFormat;
use crate::{
    cli::{
        Failure,
        connection::Remote,
        input::{NewFile, Place, from_base64},
        reference::KeyArg,
        value_parsers::words,
    },
    client::{Answer, Call},
    crypto::canton::CantonVersion,
    domain::KeyId,
};

/// The options of `keys export`.
#[derive(Debug, Args)]
pub struct ExportArgs {
    #[command(flatten)]
    key: KeyArg,
    /// The format of the file
    #[arg(long, value_enum)]
    format: MaterialFormat,
    /// The version of Canton that the key-pair file is for; a file for 3.3 contains the public key. Default: the newest
    #[arg(long, value_parser = words::<CantonVersion>())]
    canton_version: Option<CantonVersion>,
    /// The file with the password that encrypts the key-pair file; - for standard input
    #[arg(long, value_name = "FILE|-")]
    password_file: Option<Place>,
    /// Write the private key to this new file; - for standard output
    #[arg(long, value_name = "FILE|-")]
    out: Place,
}

#[derive(Serialize)]
struct ExportKeyBody<'a> {
    format: MaterialFormat,
    #[serde(skip_serializing_if = "Option::is_none")]
    canton_version: Option<CantonVersion>,
    #[serde(skip_serializing_if = "Option::is_none")]
    password: Option<&'a str>,
}

#[derive(Deserialize)]
struct Exported<'a> {
    material: &'a str,
}

/// Exports the key.
pub(super) async fn run(args: &ExportArgs, remote: &Remote) -> Result<(), Failure> {
    let id = args.key.id(&remote.client).await?;
    let out = NewFile::create(&args.out)?;
    let password = args.password_file.as_ref().map(|place| place.read_password("--password-file")).transpose()?;
    let password = password.as_ref().map(|password| password.as_str());
    let answer = call(id, args.format, args.canton_version, password, remote).await?;
    remote.write_secret(&answer, out, &material(&answer)?)
}

/// A key as a key-pair file of Canton.
pub(in crate::cli) async fn key_pair_file(
    id: KeyId,
    canton_version: Option<CantonVersion>,
    password: Option<&str>,
    remote: &Remote,
) -> Result<Zeroizing<Vec<u8>>, Failure> {
    material(&call(id, MaterialFormat::CantonKeyPair, canton_version, password, remote).await?)
}

async fn call(
    id: KeyId,
    format: MaterialFormat,
    canton_version: Option<CantonVersion>,
    password: Option<&str>,
    remote: &Remote,
) -> Result<Answer, Failure> {
    let body = ExportKeyBody { format, canton_version, password };
    Ok(remote.client.success(Call::post(&format!("/v1/keys/{id}/export")).json(&body)?).await?)
}

fn material(answer: &Answer) -> Result<Zeroizing<Vec<u8>>, Failure> {
    let Exported { material } = answer.parse()?;
    from_base64(material, "material")
}
