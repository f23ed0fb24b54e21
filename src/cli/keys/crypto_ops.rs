//! `keys sign`, `keys decrypt`, `keys encrypt`. Plaintexts come from files and go to files.

use clap::Args;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::{
    cli::{
        Failure,
        connection::Remote,
        input::{CiphertextArgs, MessageArgs, NewFile, Place, base64_secret, from_base64},
        reference::KeyArg,
        value_parsers::words,
    },
    client::Call,
    domain::Algorithm,
};

/// The options of `keys sign`.
#[derive(Debug, Args)]
pub struct SignArgs {
    #[command(flatten)]
    key: KeyArg,
    /// The signing algorithm
    #[arg(long, value_parser = words::<Algorithm>())]
    algorithm: Algorithm,
    #[command(flatten)]
    message: MessageArgs,
    /// Write the bytes of the signature to this new file; - for standard output
    #[arg(long, value_name = "FILE|-")]
    out: Option<Place>,
}

/// The options of `keys decrypt`.
#[derive(Debug, Args)]
pub struct DecryptArgs {
    #[command(flatten)]
    key: KeyArg,
    /// The encryption algorithm
    #[arg(long, value_parser = words::<Algorithm>())]
    algorithm: Algorithm,
    #[command(flatten)]
    ciphertext: CiphertextArgs,
    /// Write the plaintext to this new file, which only you can read; - for standard output
    #[arg(long, value_name = "FILE|-")]
    out: Place,
}

/// The options of `keys encrypt`.
#[derive(Debug, Args)]
pub struct EncryptArgs {
    #[command(flatten)]
    key: KeyArg,
    /// The encryption algorithm
    #[arg(long, value_parser = words::<Algorithm>())]
    algorithm: Option<Algorithm>,
    /// The file with the plaintext; - for standard input
    #[arg(long, value_name = "FILE|-")]
    plaintext_file: Place,
    /// Write the bytes of the ciphertext to this new file; - for standard output
    #[arg(long, value_name = "FILE|-")]
    out: Option<Place>,
}

#[derive(Serialize)]
struct EncryptBody<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    algorithm: Option<Algorithm>,
    plaintext: &'a str,
}

#[derive(Deserialize)]
struct Decrypted<'a> {
    plaintext: &'a str,
}

/// Signs and prints the signature.
pub(super) async fn sign(args: &SignArgs, remote: &Remote) -> Result<(), Failure> {
    let id = args.key.id(&remote.client).await?;
    let out = args.out.as_ref().map(NewFile::create).transpose()?;
    let message = base64_secret(&args.message.read()?);
    let body = json!({ "algorithm": args.algorithm, "message": *message });
    let answer = remote.client.post(&format!("/v1/keys/{id}/sign"), &body).await?;
    print_or_write(remote, &answer, "signature", out)
}

/// Decrypts and writes the plaintext.
pub(super) async fn decrypt(args: &DecryptArgs, remote: &Remote) -> Result<(), Failure> {
    let id = args.key.id(&remote.client).await?;
    let out = NewFile::create(&args.out)?;
    let body = json!({ "algorithm": args.algorithm, "ciphertext": *base64_secret(&args.ciphertext.read()?) });
    let answer = remote.client.success(Call::post(&format!("/v1/keys/{id}/decrypt")).json(&body)?).await?;
    let Decrypted { plaintext } = answer.parse()?;
    remote.write_secret(&answer, out, &from_base64(plaintext, "plaintext")?)
}

/// Encrypts and prints the ciphertext.
pub(super) async fn encrypt(args: &EncryptArgs, remote: &Remote) -> Result<(), Failure> {
    let id = args.key.id(&remote.client).await?;
    let out = args.out.as_ref().map(NewFile::create).transpose()?;
    let plaintext = base64_secret(&args.plaintext_file.read("--plaintext-file")?);
    let body = EncryptBody { algorithm: args.algorithm, plaintext: &plaintext };
    let answer = remote.client.json(Call::post(&format!("/v1/keys/{id}/encrypt")).json(&body)?).await?;
    print_or_write(remote, &answer, "ciphertext", out)
}

fn print_or_write(remote: &Remote, answer: &Value, field: &str, out: Option<NewFile>) -> Result<(), Failure> {
    let Some(out) = out else { return remote.print(answer) };
    let text = answer.get(field).and_then(Value::as_str).ok_or_else(|| Failure::Unexpected(format!("the answer has no {field}")))?;
    let bytes = from_base64(text, field)?;
    remote.written(out.finish(&bytes)?, bytes.len())
}
