//! Entries of the log as OCSF events of the class API Activity (6003), for SIEM systems. `raw_data` has the stored bytes, so that nothing is lost.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Map, Value, json};

use crate::audit::{Entry, leaf_hash};
use crate::cli::Failure;
use crate::domain::Outcome;

/// The version of OCSF.
const VERSION: &str = "1.6.0";
/// API Activity, of the category Application Activity.
const CLASS: u32 = 6003;

/// The event of an entry, with a line end.
pub(super) fn event(entry: &Entry, bytes: &[u8]) -> Result<String, Failure> {
    let raw = std::str::from_utf8(bytes).map_err(|_| Failure::Unexpected("the vault sent an entry that is no text".into()))?;
    let (activity_id, activity_name) = activity(entry.operation.as_str());
    let (status_id, status, severity_id, severity) = match entry.outcome {
        Outcome::Ok => (1, "Success", 1, "Informational"),
        Outcome::Failed => (2, "Failure", 2, "Low"),
        Outcome::Denied => (2, "Failure", 3, "Medium"),
        Outcome::Intent => (99, "Intent", 1, "Informational"),
    };
    let resources: Vec<Value> = [
        entry.key_id.map(|key| json!({ "type": "key", "uid": key.to_string() })),
        entry.node.as_ref().map(|node| json!({ "type": "node", "name": node.to_string() })),
        entry.subject.as_ref().map(|subject| json!({ "type": "subject", "name": subject })),
    ]
    .into_iter()
    .flatten()
    .collect();
    let mut request = Map::new();
    if let Some(id) = &entry.request_id {
        request.insert("uid".into(), Value::from(id.as_str()));
    }
    let event = json!({
        "category_uid": CLASS / 1000,
        "category_name": "Application Activity",
        "class_uid": CLASS,
        "class_name": "API Activity",
        "activity_id": activity_id,
        "activity_name": activity_name.unwrap_or_else(|| entry.operation.as_str()),
        "type_uid": CLASS * 100 + activity_id,
        "time": entry.at.micros().div_euclid(1000),
        "count": entry.count.unwrap_or(1),
        "status_id": status_id,
        "status": status,
        "status_detail": entry.reason,
        "severity_id": severity_id,
        "severity": severity,
        "actor": { "user": { "name": entry.principal, "credential_uid": entry.certificate } },
        "src_endpoint": { "name": entry.principal },
        "http_request": { "user_agent": entry.client },
        "api": { "operation": entry.operation, "service": { "name": entry.vault }, "request": request },
        "resources": resources,
        "metadata": {
            "version": VERSION,
            "product": { "name": "Canton Key Vault", "vendor_name": "Canton Key Vault", "version": entry.version },
            "log_name": format!("{}/{}", entry.vault, entry.instance),
            "uid": STANDARD.encode(leaf_hash(bytes)),
            "sequence": entry.sequence,
            "original_time": entry.at,
            "correlation_uid": entry.trace_id,
        },
        "raw_data": raw,
    });
    Ok(without_nulls(event).to_string() + "\n")
}

/// The activity of an operation: by its last word.
fn activity(operation: &str) -> (u32, Option<&'static str>) {
    let (_, verb) = operation.split_once('.').unwrap_or_default();
    match verb {
        "create" | "create-exportable" | "import" | "add" | "bootstrap" | "replicate" | "create-checkpoint-key" | "make-checkpoint" => {
            (1, Some("Create"))
        }
        "list" | "show" | "query" | "export" | "summary" | "status" | "whoami" | "authorize" | "authorize-other" | "show-checkpoint"
        | "list-verifier-keys" | "prove-inclusion" | "prove-consistency" | "decode" => (2, Some("Read")),
        "enable"
        | "disable"
        | "rotate"
        | "supersede"
        | "restrict-signing"
        | "cancel-deletion"
        | "rename"
        | "reseal"
        | "rewrap"
        | "quarantine"
        | "freeze"
        | "unfreeze"
        | "reload"
        | "rotate-checkpoint-key" => (3, Some("Update")),
        "delete" | "destroy" | "withdraw" | "retire" => (4, Some("Delete")),
        _ => (99, None),
    }
}

/// OCSF has no null: an absent value is left out.
fn without_nulls(value: Value) -> Value {
    match value {
        Value::Object(fields) => {
            let fields = fields.into_iter().filter(|(_, value)| !value.is_null());
            Value::Object(fields.map(|(name, value)| (name, without_nulls(value))).collect())
        }
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        audit::{Source, StatePosition},
        domain::{AuditEvent, Operation, Principal, Timestamp},
    };

    #[test]
    fn an_event_has_what_the_class_requires() {
        let source = Source { vault: "v".into(), instance: "i".into(), version: "1".into() };
        let principal = Principal { name: "dns:a".into(), certificate: Some([1; 32]) };
        let at = Timestamp::from_micros(1_767_225_600_123_456);
        let call = AuditEvent { outcome: Outcome::Denied, ..AuditEvent::new(at, principal, Operation::Sign, "p".into()) };
        let entry = Entry::new(7, &source, &call, StatePosition::unchanged(1));
        let bytes = entry.encode().unwrap();
        let event: Value = serde_json::from_str(&event(&entry, &bytes).unwrap()).unwrap();
        for (field, expected) in [("class_uid", 6003), ("category_uid", 6), ("activity_id", 99), ("type_uid", 600_399), ("status_id", 2)] {
            assert_eq!(event[field], expected, "{field}");
        }
        assert_eq!(event["time"], 1_767_225_600_123_i64);
        assert_eq!((&event["api"]["operation"], &event["actor"]["user"]["name"]), (&json!("keys.sign"), &json!("dns:a")));
        assert_eq!(event["raw_data"].as_str().unwrap().as_bytes(), bytes);
        assert!(!event.to_string().contains("null"));
    }
}
