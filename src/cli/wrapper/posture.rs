//! `wrapper posture`: the assessment of a wrapper key, or of all that are not retired.

use std::io::Write;

use clap::Args;
use serde_json::{Value, json};

use crate::{
    cli::{
        Failure,
        connection::{Format, Remote},
        output::printable,
        reference::WrapperKeyReference,
    },
    client::Call,
};

/// Which wrapper key.
#[derive(Debug, Args)]
pub struct PostureArgs {
    /// Id of the wrapper key, or its beginning; if absent, all that are not retired
    id: Option<WrapperKeyReference>,
}

/// Prints each line of the posture with its remedy. Lines are not failures of the command: `check` fails on them.
pub(super) async fn run(PostureArgs { id }: &PostureArgs, remote: &Remote) -> Result<(), Failure> {
    let ids = match id {
        Some(id) => vec![id.resolve(&remote.client).await?.to_string()],
        None => in_use(remote).await?,
    };
    let mut all = Vec::new();
    for id in ids {
        all.push(remote.client.get(&format!("/v1/wrapper-keys/{id}/posture")).await?);
    }
    match (remote.format, id, all.as_slice()) {
        (Format::Json, Some(_), [one]) => remote.print(one),
        (Format::Json, ..) => remote.print(&json!({ "items": all })),
        (Format::Text, ..) => all.iter().try_for_each(|posture| print(&mut std::io::stdout().lock(), posture)),
    }
}

/// A posture as text: a line for each line of it, and its remedy below.
fn print(out: &mut impl Write, posture: &Value) -> Result<(), Failure> {
    let text = |value: &Value, name: &str| printable(value.get(name).and_then(Value::as_str).unwrap_or("-")).into_owned();
    writeln!(out, "{} ({}): {}", text(posture, "id"), text(posture, "provider"), text(posture, "status"))?;
    for line in posture.get("lines").and_then(Value::as_array).into_iter().flatten() {
        let region = line.get("region").and_then(Value::as_str).map_or_else(String::new, |region| format!(" in {}", printable(region)));
        writeln!(out, "  {:<8} {}{region}: {}", text(line, "status"), text(line, "subject"), text(line, "detail"))?;
        if line.get("remedy").is_some_and(Value::is_string) {
            writeln!(out, "           Fix: {}", text(line, "remedy"))?;
        }
    }
    Ok(())
}

/// The wrapper keys that are not retired.
async fn in_use(remote: &Remote) -> Result<Vec<String>, Failure> {
    let (mut ids, mut cursor): (Vec<String>, Option<String>) = (Vec::new(), None);
    loop {
        let page: Value = remote.client.success(Call::get("/v1/wrapper-keys").query_if("cursor", cursor.as_ref())).await?.parse()?;
        let items = page.get("items").and_then(Value::as_array).into_iter().flatten();
        let kept = items.filter(|item| item.get("state").and_then(Value::as_str) != Some("retired"));
        ids.extend(kept.filter_map(|item| item.get("id").and_then(Value::as_str)).map(str::to_owned));
        cursor = page.get("next_cursor").and_then(Value::as_str).map(str::to_owned);
        if cursor.is_none() {
            return Ok(ids);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_line_has_its_remedy_below_it() {
        let posture = json!({ "id": "wk-1", "provider": "aws-kms", "status": "fail", "lines": [
            { "subject": "spec", "status": "ok", "detail": "SYMMETRIC_DEFAULT" },
            { "subject": "deletion", "status": "fail", "region": "eu-west-1", "detail": "will be deleted\u{1b}[2J", "remedy": "Cancel it." },
        ] });
        let mut out = Vec::new();
        print(&mut out, &posture).unwrap_or_else(|_| panic!("it prints into memory"));
        let expected = "wk-1 (aws-kms): fail\n  ok       spec: SYMMETRIC_DEFAULT\n  fail     deletion in eu-west-1: will be deleted\u{fffd}[2J\n           \
                        Fix: Cancel it.\n";
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }
}
