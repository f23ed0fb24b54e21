//! OTLP/HTTP logs with JSON: the body of a request, and what an answer says of records that were not accepted.

use serde_json::{Value, json};

use super::{LogSource, SinkEntry};

/// Log records of entries. The body of each record is the stored entry, byte for byte.
///
/// # Errors
/// If the bytes of an entry are not text.
pub(super) fn encode(batch: &[SinkEntry], source: &LogSource) -> Result<Vec<u8>, serde_json::Error> {
    let text = |key: &str, value: &str| json!({ "key": key, "value": { "stringValue": value } });
    let records = batch.iter().map(|entry| {
        let SinkEntry { sequence, at, ok, trace_id, bytes } = entry;
        let entry = std::str::from_utf8(bytes).map_err(serde::ser::Error::custom)?;
        // OTLP/JSON has 64-bit numbers as text.
        let nanos = i128::from(at.micros()).max(0) * 1000;
        let (number, severity) = if *ok { (9, "INFO") } else { (13, "WARN") };
        let mut record = json!({
            "timeUnixNano": nanos.to_string(),
            "severityNumber": number,
            "severityText": severity,
            "body": { "stringValue": entry },
            "attributes": [{ "key": "audit.sequence", "value": { "intValue": sequence.to_string() } }],
        });
        if let (Some(trace_id), Some(record)) = (trace_id, record.as_object_mut()) {
            record.insert("traceId".into(), trace_id.as_str().into());
        }
        Ok(record)
    });
    let records = records.collect::<Result<Vec<Value>, serde_json::Error>>()?;
    let LogSource { vault, instance } = source;
    let resource = [text("service.name", "canton-keyvault"), text("service.namespace", vault), text("service.instance.id", instance)];
    serde_json::to_vec(&json!({
        "resourceLogs": [{
            "resource": { "attributes": resource },
            "scopeLogs": [{ "scope": { "name": "canton-keyvault/audit" }, "logRecords": records }],
        }],
    }))
}

/// What a successful answer says of records that the receiver did not accept.
pub(super) fn rejected(answer: &[u8]) -> Option<String> {
    let answer: Value = serde_json::from_slice(answer).ok()?;
    let partial = answer.get("partialSuccess")?;
    let rejected = partial.get("rejectedLogRecords")?;
    let number = rejected.as_u64().or_else(|| rejected.as_str()?.parse().ok()).filter(|number| *number > 0)?;
    let message = partial.get("errorMessage").and_then(Value::as_str).unwrap_or_default();
    Some(format!("{number} records were rejected: {message}").trim_end_matches([':', ' ']).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::Timestamp;

    #[test]
    fn a_record_has_the_entry_as_it_is_stored() {
        let bytes = br#"{"v":4,"sequence":7,"principal":"a\"b"}"#.to_vec();
        let trace_id = Some("0af7651916cd43dd8448eb211c80319c".to_owned());
        let entry = SinkEntry { sequence: 7, at: Timestamp::from_micros(1_700_000_000_000_001), ok: false, trace_id, bytes: bytes.clone() };
        let body = encode(&[entry], &LogSource { vault: "v".into(), instance: "main".into() }).unwrap();
        let body: Value = serde_json::from_slice(&body).unwrap();
        let record = &body["resourceLogs"][0]["scopeLogs"][0]["logRecords"][0];
        assert_eq!(record["body"]["stringValue"].as_str().unwrap().as_bytes(), bytes);
        assert_eq!(record["timeUnixNano"], "1700000000000001000");
        assert_eq!((&record["severityNumber"], &record["traceId"]), (&json!(13), &json!("0af7651916cd43dd8448eb211c80319c")));
        assert_eq!(record["attributes"][0], json!({ "key": "audit.sequence", "value": { "intValue": "7" } }));
    }

    #[test]
    fn a_partial_success_is_no_success() {
        let rejected_of = |text: &str| rejected(text.as_bytes());
        assert_eq!(rejected_of(""), None);
        assert_eq!(rejected_of("{}"), None);
        assert_eq!(rejected_of(r#"{"partialSuccess":{}}"#), None);
        assert_eq!(rejected_of(r#"{"partialSuccess":{"rejectedLogRecords":"0","errorMessage":"slow"}}"#), None);
        let text = r#"{"partialSuccess":{"rejectedLogRecords":"2","errorMessage":"too long"}}"#;
        assert_eq!(rejected_of(text).unwrap(), "2 records were rejected: too long");
        assert_eq!(rejected_of(r#"{"partialSuccess":{"rejectedLogRecords":1}}"#).unwrap(), "1 records were rejected");
    }
}
