//! OTLP/HTTP traces with JSON: the body of a request, and what an answer says of spans that were not accepted.
//!
//! The JSON mapping of OTLP is stable and small. The OpenTelemetry crates would add eleven crates, a thread and a second queue for it.

use serde_json::{Value as Json, json};

use super::span::{Span, SpanKind, Value};
use crate::domain::{Hex, Timestamp};

/// Which process the spans are of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TraceSource {
    /// The id of the vault.
    pub vault: String,
    /// The instance.
    pub instance: String,
    /// The version of the program.
    pub version: &'static str,
}

/// The body of a request.
///
/// # Errors
/// Never in practice: texts and numbers can be encoded.
pub(super) fn encode(batch: &[Box<Span>], source: &TraceSource) -> Result<Vec<u8>, serde_json::Error> {
    let TraceSource { vault, instance, version } = source;
    let resource = [
        ("service.name", "canton-keyvault"),
        ("service.namespace", vault),
        ("service.instance.id", instance),
        ("service.version", version),
    ];
    let resource = resource.map(|(name, value)| json!({ "key": name, "value": { "stringValue": value } }));
    let spans: Vec<Json> = batch.iter().map(|span| encoded(span)).collect();
    serde_json::to_vec(&json!({
        "resourceSpans": [{
            "resource": { "attributes": resource },
            "scopeSpans": [{ "scope": { "name": "canton-keyvault", "version": version }, "spans": spans }],
        }],
    }))
}

fn encoded(span: &Span) -> Json {
    let Span { trace_id, id, parent, name, kind, began, ended, attributes, failed } = span;
    let attributes: Vec<Json> = attributes.iter().map(|(name, value)| json!({ "key": name, "value": any_value(value) })).collect();
    let kind = match kind {
        SpanKind::Internal => 1,
        SpanKind::Server => 2,
        SpanKind::Client => 3,
    };
    let mut encoded = json!({
        "traceId": Hex(&trace_id.0).to_string(),
        "spanId": Hex(&id.0).to_string(),
        "name": name,
        "kind": kind,
        "startTimeUnixNano": nanos(*began),
        "endTimeUnixNano": nanos(*ended),
        "attributes": attributes,
        "status": if *failed { json!({ "code": 2 }) } else { json!({}) },
    });
    if let (Some(parent), Some(fields)) = (parent, encoded.as_object_mut()) {
        fields.insert("parentSpanId".into(), Hex(&parent.0).to_string().into());
    }
    encoded
}

/// OTLP/JSON has 64-bit numbers as text.
fn any_value(value: &Value) -> Json {
    match value {
        Value::Text(text) => json!({ "stringValue": text }),
        Value::Number(number) => json!({ "intValue": number.to_string() }),
        Value::Flag(flag) => json!({ "boolValue": flag }),
    }
}

fn nanos(at: Timestamp) -> String {
    (i128::from(at.micros()).max(0) * 1000).to_string()
}

/// How many spans of an accepted request the collector did not take, and why.
pub(super) fn rejected(answer: &[u8]) -> Option<(u64, String)> {
    let answer: Json = serde_json::from_slice(answer).ok()?;
    let partial = answer.get("partialSuccess")?;
    let rejected = partial.get("rejectedSpans")?;
    let number = rejected.as_u64().or_else(|| rejected.as_str()?.parse().ok()).filter(|number| *number > 0)?;
    Some((number, partial.get("errorMessage").and_then(Json::as_str).unwrap_or_default().to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::traces::span::{SpanId, TraceId};

    #[test]
    fn a_span_has_the_fields_of_the_protocol() {
        let span = Span {
            trace_id: TraceId([0xab; 16]),
            id: SpanId([1; 8]),
            parent: Some(SpanId([2; 8])),
            name: "unwrap".into(),
            kind: SpanKind::Client,
            began: Timestamp::from_micros(1_700_000_000_000_001),
            ended: Timestamp::from_micros(1_700_000_000_000_002),
            attributes: vec![("a", Value::Text("b".into())), ("n", Value::Number(u64::MAX)), ("f", Value::Flag(true))],
            failed: true,
        };
        let source = TraceSource { vault: "v".into(), instance: "main".into(), version: "1.2.3" };
        let root = Span { parent: None, failed: false, ..span.clone() };
        let body: Json = serde_json::from_slice(&encode(&[Box::new(span), Box::new(root)], &source).unwrap()).unwrap();
        let spans = &body["resourceSpans"][0]["scopeSpans"][0]["spans"];
        let expected = json!({
            "traceId": "abababababababababababababababab",
            "spanId": "0101010101010101",
            "parentSpanId": "0202020202020202",
            "name": "unwrap",
            "kind": 3,
            "startTimeUnixNano": "1700000000000001000",
            "endTimeUnixNano": "1700000000000002000",
            "attributes": [
                { "key": "a", "value": { "stringValue": "b" } },
                { "key": "n", "value": { "intValue": "18446744073709551615" } },
                { "key": "f", "value": { "boolValue": true } },
            ],
            "status": { "code": 2 },
        });
        assert_eq!(spans[0], expected);
        assert_eq!((&spans[1]["status"], spans[1].get("parentSpanId")), (&json!({}), None));
        assert!(body["resourceSpans"][0]["resource"].to_string().contains("service.instance.id"));
    }

    #[test]
    fn a_partial_success_says_how_many_spans_are_lost() {
        let rejected_of = |text: &str| rejected(text.as_bytes());
        assert_eq!(rejected_of(""), None);
        assert_eq!(rejected_of(r#"{"partialSuccess":{}}"#), None);
        assert_eq!(rejected_of(r#"{"partialSuccess":{"rejectedSpans":"0"}}"#), None);
        assert_eq!(rejected_of(r#"{"partialSuccess":{"rejectedSpans":"2","errorMessage":"old"}}"#), Some((2, "old".into())));
    }
}
