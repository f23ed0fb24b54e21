//! Entries of the log as rows of CSV (RFC 4180). A spreadsheet computes none of their texts.

use base64::{Engine as _, engine::general_purpose::STANDARD};

use crate::audit::{Entry, leaf_hash};

/// The first row.
pub(super) const HEAD: &str = "sequence,at,vault,instance,version,principal,certificate,client,operation,outcome,reason,count,node,key_id,algorithm,\
    digest,subject,state,revision,policy_revision,request_id,trace_id,kms_request_ids,state_revision,leaf\r\n";

/// The row of an entry.
pub(super) fn row(entry: &Entry, bytes: &[u8]) -> String {
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    let number = |number: Option<u64>| number.map_or_else(String::new, |number| number.to_string());
    let fields = [
        entry.sequence.to_string(),
        entry.at.to_string(),
        entry.vault.clone(),
        entry.instance.clone(),
        entry.version.clone(),
        entry.principal.clone(),
        text(&entry.certificate),
        text(&entry.client),
        entry.operation.to_string(),
        entry.outcome.to_string(),
        text(&entry.reason),
        number(entry.count),
        entry.node.as_ref().map_or_else(String::new, ToString::to_string),
        entry.key_id.map_or_else(String::new, |key| key.to_string()),
        entry.algorithm.map_or_else(String::new, |algorithm| algorithm.to_string()),
        text(&entry.digest),
        text(&entry.subject),
        text(&entry.state),
        number(entry.revision),
        entry.policy_revision.clone(),
        text(&entry.request_id),
        text(&entry.trace_id),
        entry.kms_request_ids.join(" "),
        number(entry.state_revision),
        STANDARD.encode(leaf_hash(bytes)),
    ];
    fields.iter().map(|field| quoted(field)).collect::<Vec<_>>().join(",") + "\r\n"
}

/// A field. A text that a spreadsheet would take for a formula begins with an apostrophe, because a caller chooses some of the texts.
fn quoted(field: &str) -> String {
    let formula = field.starts_with(['=', '+', '-', '@', '\t', '\r']);
    let field = if formula { format!("'{field}") } else { field.to_owned() };
    if field.contains([',', '"', '\r', '\n']) { format!("\"{}\"", field.replace('"', "\"\"")) } else { field }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_quoted_and_never_computed() {
        for (field, expected) in [
            ("plain", "plain"),
            ("a,b", "\"a,b\""),
            ("say \"x\"\n", "\"say \"\"x\"\"\n\""),
            ("=HYPERLINK(1)", "'=HYPERLINK(1)"),
            ("@a,b", "\"'@a,b\""),
        ] {
            assert_eq!(quoted(field), expected);
        }
    }
}
