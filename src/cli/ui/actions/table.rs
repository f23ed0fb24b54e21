//! The table of all changes. A key that is never used again and a wrapper key that never wraps again take a written confirmation.

use serde_json::{Map, Value, json};

use super::{Action, Asked, Target};
use crate::{
    cli::{
        steps::{self, Step},
        ui::{
            fields::{field_text, items},
            form::{Field, Kind},
        },
        value_parsers::ClosedSet,
    },
    client::{Call, ClientError},
    domain::{IdError, KeySpec, Operation, Purpose, Usage},
};

const NEW_KEY: &[Field] = &[
    Field { name: "node", label: "Node", kind: Kind::Required("participant1") },
    Field { name: "purpose", label: "Purpose", kind: Kind::OneOf(Purpose::all) },
    Field { name: "spec", label: "Spec", kind: Kind::OneOf(KeySpec::all) },
    Field { name: "usage", label: "Usage of a signing key (from the name, if any)", kind: Kind::Choice(Usage::all) },
    Field { name: "name", label: "Name", kind: Kind::Text("participant1-signing") },
];

const DAYS: &[Field] = &[Field { name: "days", label: "Days until it is destroyed, 7 to 365", kind: Kind::Required("30") }];

const NAME: &[Field] = &[Field { name: "name", label: "New name (none, if empty)", kind: Kind::Text("orders") }];

const WRAPPER_KEY_NAME: &[Field] = &[Field { name: "name", label: "New name (none, if empty)", kind: Kind::Text("central-2026") }];

/// Every change.
pub(super) const ACTIONS: &[Action] = &[
    Action {
        name: "create-key",
        title: "Create a key",
        target: Target::NewKey,
        fits: |_| true,
        fields: NEW_KEY,
        step: |asked| {
            let node = asked.values.get("node").unwrap_or_default();
            simple(
                Operation::CreateKey,
                format!("Create a key of the node {node}?"),
                "The vault creates the key. It cannot be exported, ever.",
            )
        },
        written: false,
        call: |asked| {
            let one = |name| asked.values.get(name).map(|value| (name.to_owned(), Value::from(value)));
            let mut key: Map<String, Value> = ["node", "purpose", "spec", "name"].into_iter().filter_map(one).collect();
            if let Some(usage) = asked.values.get("usage") {
                key.insert("usage".into(), json!([usage]));
            }
            Call::post("/v1/keys").json(&key)?.idempotent()
        },
        result: Target::Key,
        done: "The key was created.",
    },
    Action {
        name: "disable-key",
        title: "Disable",
        target: Target::Key,
        fits: |key| state(key, &["active", "superseded"]),
        fields: &[],
        step: |asked| {
            about_key(asked, Operation::DisableKey, "Disable", "The vault refuses every use of the key at once, until it is enabled again.")
        },
        written: false,
        call: |asked| key_step(asked, "disable"),
        result: Target::Key,
        done: "The key is disabled.",
    },
    Action {
        name: "enable-key",
        title: "Enable",
        target: Target::Key,
        fits: |key| state(key, &["disabled", "quarantined"]),
        fields: &[],
        step: |asked| {
            about_key(asked, Operation::EnableKey, "Enable", "The vault opens the key to verify it, and restores the state before.")
        },
        written: false,
        call: |asked| key_step(asked, "enable"),
        result: Target::Key,
        done: "The key is enabled.",
    },
    Action {
        name: "rename-key",
        title: "Rename",
        target: Target::Key,
        fits: |key| !state(key, &["destroyed"]),
        fields: NAME,
        step: |asked| about_key(asked, Operation::RenameKey, "Rename", "Only the name changes. Canton finds a key by its id."),
        written: false,
        call: |asked| Call::post(&format!("/v1/keys/{}/name", asked.id)).json(&json!({ "name": asked.values.get("name") })),
        result: Target::Key,
        done: "The key has the name.",
    },
    Action {
        name: "rotate-key",
        title: "Rotate: create a successor",
        target: Target::Key,
        fits: |key| state(key, &["active"]),
        fields: &[],
        step: |asked| {
            let effect = "The vault creates a successor. The old key signs until it is superseded: Canton signs with it until its topology change takes effect.";
            about_key(asked, Operation::RotateKey, "Rotate", effect)
        },
        written: false,
        call: |asked| Call::post(&format!("/v1/keys/{}/rotate", asked.id)).json(&json!({}))?.idempotent(),
        result: Target::Key,
        done: "This key was created as the successor.",
    },
    Action {
        name: "supersede-key",
        title: "Supersede",
        target: Target::Key,
        fits: |key| state(key, &["active"]),
        fields: &[],
        step: |asked| Ok(steps::supersede(asked.id.parse()?)),
        written: true,
        call: |asked| key_step(asked, "supersede"),
        result: Target::Key,
        done: "The key is superseded.",
    },
    Action {
        name: "delete-key",
        title: "Delete",
        target: Target::Key,
        fits: |key| !state(key, &["pending-deletion", "destroyed"]),
        fields: DAYS,
        step: |asked| Ok(steps::delete(asked.id.parse()?, days(asked))),
        written: true,
        call: |asked| Ok(Call::delete(&format!("/v1/keys/{}", asked.id)).query("days", asked.values.get("days").unwrap_or_default())),
        result: Target::Key,
        done: "The deletion is scheduled.",
    },
    Action {
        name: "withdraw-key",
        title: "Withdraw the import",
        target: Target::Key,
        fits: |key| field_text(key, "origin") == "imported" && !state(key, &["pending-deletion", "destroyed"]),
        fields: DAYS,
        step: |asked| Ok(steps::withdraw(asked.id.parse()?, days(asked))),
        written: true,
        call: |asked| Call::post(&format!("/v1/keys/{}/withdraw", asked.id)).json(&json!({ "days": days(asked) })),
        result: Target::Key,
        done: "The key is withdrawn.",
    },
    Action {
        name: "cancel-deletion",
        title: "Cancel the deletion",
        target: Target::Key,
        fits: |key| state(key, &["pending-deletion"]),
        fields: &[],
        step: |asked| about_key(asked, Operation::CancelDeletion, "Cancel the deletion of", "The state before is restored."),
        written: false,
        call: |asked| key_step(asked, "cancel-deletion"),
        result: Target::Key,
        done: "The deletion is cancelled.",
    },
    Action {
        name: "start-rotation",
        title: "Rotate to this wrapper key",
        target: Target::WrapperKey,
        fits: |key| !state(key, &["retiring", "retired"]),
        fields: &[],
        step: |asked| {
            let effect = "It becomes active for new keys at once. A job then gives every other key a verified wrap under it. No private key is opened. To go back, start another rotation.";
            simple(Operation::StartRotation, format!("Rotate to the wrapper key {}?", asked.id), effect)
        },
        written: false,
        call: |asked| Call::post("/v1/wrapper-keys/rotations").json(&json!({ "to": asked.id })),
        result: Target::Rotation,
        done: "The rotation was started.",
    },
    Action {
        name: "rename-wrapper-key",
        title: "Rename",
        target: Target::WrapperKey,
        fits: |_| true,
        fields: WRAPPER_KEY_NAME,
        step: |asked| {
            let question = match asked.values.get("name") {
                Some(name) => format!("Give the wrapper key {} the name {name}?", asked.id),
                None => format!("Remove the name of the wrapper key {}?", asked.id),
            };
            simple(
                Operation::RenameWrapperKey,
                question,
                "Only the name changes, by which commands find the wrapper key. Nothing else depends on it.",
            )
        },
        written: false,
        call: |asked| Call::post(&format!("/v1/wrapper-keys/{}/name", asked.id)).json(&json!({ "name": asked.values.get("name") })),
        result: Target::WrapperKey,
        done: "The name was changed.",
    },
    Action {
        name: "retire-wrapper-key",
        title: "Retire",
        target: Target::WrapperKey,
        fits: |key| state(key, &["standby", "draining"]),
        fields: &[],
        step: |asked| Ok(steps::retire(asked.id.parse()?)),
        written: true,
        call: |asked| Call::post(&format!("/v1/wrapper-keys/{}/retire", asked.id)).json(&json!({})),
        result: Target::WrapperKey,
        done: "The wrapper key is retired.",
    },
    Action {
        name: "abort-rotation",
        title: "Abort",
        target: Target::Rotation,
        fits: |job| state(job, &["running"]),
        fields: &[],
        step: |asked| simple(Operation::AbortRotation, format!("Abort the rotation {}?", asked.id), ABORT),
        written: false,
        call: |asked| Call::post(&format!("/v1/wrapper-keys/rotations/{}/abort", asked.id)).json(&json!({})),
        result: Target::Rotation,
        done: "The rotation is aborted.",
    },
    Action {
        name: "abort-reseal",
        title: "Abort",
        target: Target::Reseal,
        fits: |job| state(job, &["running"]),
        fields: &[],
        step: |asked| simple(Operation::AbortReseal, format!("Abort the re-seal {}?", asked.id), ABORT),
        written: false,
        call: |asked| Call::post(&format!("/v1/keys/reseals/{}/abort", asked.id)).json(&json!({})),
        result: Target::Reseal,
        done: "The re-seal is aborted.",
    },
    Action {
        name: "freeze",
        title: "Freeze the vault",
        target: Target::Vault,
        fits: |status| !frozen(status),
        fields: &[],
        step: |_| {
            simple(
                Operation::Freeze,
                "Freeze the vault?".into(),
                "The vault wipes every open key and refuses every use, also after a restart, until it is unfrozen.",
            )
        },
        written: false,
        call: |_| Call::post("/v1/freeze").json(&json!({})),
        result: Target::Vault,
        done: "The vault is frozen.",
    },
    Action {
        name: "unfreeze",
        title: "Unfreeze the vault",
        target: Target::Vault,
        fits: frozen,
        fields: &[],
        step: |_| simple(Operation::Unfreeze, "Unfreeze the vault?".into(), "The vault permits the use of keys again."),
        written: false,
        call: |_| Call::post("/v1/unfreeze").json(&json!({})),
        result: Target::Vault,
        done: "The vault is not frozen.",
    },
];

const ABORT: &str = "What is done stays done, and every key opens as before.";

fn state(object: &Value, states: &[&str]) -> bool {
    states.contains(&field_text(object, "state"))
}

fn frozen(status: &Value) -> bool {
    items(status, "reasons").iter().any(|reason| field_text(reason, "code") == "frozen")
}

/// A number of days that the vault refuses stays as it is, so that the vault says why.
fn days(asked: &Asked) -> u32 {
    asked.values.get("days").and_then(|days| days.parse().ok()).unwrap_or(0)
}

#[expect(clippy::unnecessary_wraps, reason = "as the steps of the command line, which can refuse an id")]
fn simple(operation: Operation, question: String, effect: &str) -> Result<Step, IdError> {
    Ok(Step { operation, question, effect: effect.to_owned() })
}

fn about_key(asked: &Asked, operation: Operation, verb: &str, effect: &str) -> Result<Step, IdError> {
    simple(operation, format!("{verb} the key {}?", asked.id), effect)
}

fn key_step(asked: &Asked, step: &str) -> Result<Call, ClientError> {
    Call::post(&format!("/v1/keys/{}/{step}", asked.id)).json(&json!({}))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_change_has_a_name_of_its_own_and_refuses_ids_of_another_form() {
        for (place, action) in ACTIONS.iter().enumerate() {
            assert!(ACTIONS.iter().skip(place + 1).all(|other| other.name != action.name), "{}", action.name);
            let hostile = ["", "..", "a/b", "1220", "wk-x", "job-%2e"];
            let takes_id = !matches!(action.target, Target::Vault | Target::NewKey);
            assert!(!takes_id || hostile.iter().all(|id| action.target.check(id).is_err()), "{}", action.name);
        }
    }

    #[test]
    fn changes_that_the_command_line_asks_for_are_written_here() {
        let written: Vec<_> = ACTIONS.iter().filter(|action| action.written).map(|action| action.name).collect();
        assert_eq!(written, ["supersede-key", "delete-key", "withdraw-key", "retire-wrapper-key"]);
    }
}
