//! `keys sign-batch`: signs the messages of a file, many in each call.

use std::io::{BufWriter, Write};

use clap::Args;
use serde::Deserialize;
use serde_json::json;

use crate::{
    api::BATCH_LIMIT,
    cli::{
        Failure, Format,
        connection::Remote,
        input::{Place, from_base64},
        reference::KeyArg,
        value_parsers::words,
    },
    client::Call,
    domain::Algorithm,
};

/// The messages of a call together, in base64: its body has at most 64 KiB.
const MAX_TEXT: usize = 48 * 1024;

/// The options of `keys sign-batch`.
#[derive(Debug, Args)]
pub struct SignBatchArgs {
    #[command(flatten)]
    key: KeyArg,
    /// The signing algorithm
    #[arg(long, value_parser = words::<Algorithm>())]
    algorithm: Algorithm,
    /// A file with a message in base64 on each line, at most 1 MiB; - for standard input
    #[arg(long, value_name = "FILE|-")]
    messages: Place,
}

#[derive(Deserialize)]
struct Signed {
    signatures: Vec<String>,
}

/// Signs, and prints one signature in base64 for each line, in the order of the messages. After an error, what was printed is signed and recorded.
pub(super) async fn run(args: &SignBatchArgs, remote: &Remote) -> Result<(), Failure> {
    let file = args.messages.read("--messages")?;
    let text = std::str::from_utf8(&file).map_err(|_| Failure::Usage("--messages: not UTF-8".into()))?;
    let lines: Vec<&str> = text.lines().map(str::trim).collect();
    for (number, line) in (1..).zip(&lines) {
        from_base64(line, "message").map_err(|_| Failure::Usage(format!("--messages: line {number} is not base64")))?;
    }
    let id = args.key.id(&remote.client).await?;
    let mut out = BufWriter::new(std::io::stdout());
    for batch in batches(&lines) {
        let messages: Vec<_> = batch.iter().map(|message| json!({ "message": message })).collect();
        let body = json!({ "algorithm": args.algorithm, "messages": messages });
        let answer = remote.client.success(Call::post(&format!("/v1/keys/{id}/sign-batch")).json(&body)?).await?;
        let Signed { signatures } = answer.parse()?;
        if signatures.len() != batch.len() {
            return Err(Failure::Unexpected("the answer has another number of signatures".into()));
        }
        for (message, signature) in batch.iter().zip(&signatures) {
            from_base64(signature, "signature")?;
            match remote.format {
                Format::Json => writeln!(out, "{}", json!({ "message": message, "signature": signature }))?,
                Format::Text => writeln!(out, "{signature}")?,
            }
        }
        out.flush()?;
    }
    Ok(())
}

/// The messages in as few calls as possible.
fn batches<'a, 'b>(mut messages: &'a [&'b str]) -> Vec<&'a [&'b str]> {
    let mut batches = Vec::new();
    while !messages.is_empty() {
        let mut length = 0;
        let fits = messages.iter().take(BATCH_LIMIT).take_while(|message| {
            length += message.len();
            length <= MAX_TEXT
        });
        // The vault refuses a message that is too long, and names the limit.
        let (batch, rest) = messages.split_at(fits.count().max(1));
        batches.push(batch);
        messages = rest;
    }
    batches
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_messages_are_in_as_few_calls_as_possible_and_in_their_order() {
        let long = "A".repeat(20 * 1024);
        let (short, mixed) = (vec!["QQ=="; 130], vec![long.as_str(), "QQ==", &long, &long, "QUI="]);
        assert_eq!(batches(&short).iter().map(|batch| batch.len()).collect::<Vec<_>>(), [64, 64, 2]);
        let batches = batches(&mixed);
        assert_eq!(batches.iter().map(|batch| batch.len()).collect::<Vec<_>>(), [3, 2]);
        assert_eq!(batches.concat(), mixed);
        assert!(super::batches(&[]).is_empty());
        assert_eq!(super::batches(&[&"A".repeat(60 * 1024)]).len(), 1);
    }
}
