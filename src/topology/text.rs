//! A transaction in plain words, for a terminal: every field, keys with the names that the vault knows, then the warnings.

use serde_json::Value as Json;

use super::{KnownKey, Mapping, TopologyTransaction, warnings};

/// The lines of the text. Identifiers contain no control characters, because Canton allows none in them.
pub fn text(transaction: &TopologyTransaction, known: &[KnownKey]) -> Vec<String> {
    let mut description = serde_json::to_value(transaction.description()).unwrap_or_default();
    if let (Mapping::SynchronizerParametersState(state), Json::Object(fields)) = (&transaction.mapping, &mut description) {
        // A parameter that is zero or absent is signed as well.
        fields.insert("parameters".to_owned(), state.shown.clone());
    }
    let mut lines = vec![
        format!("Hash to sign: {}", transaction.hash()),
        format!("Operation:    {}", operation(transaction)),
        format!(
            "Mapping:      {} (Canton's code {}, {})",
            transaction.mapping.kind(),
            transaction.mapping.code(),
            transaction.mapping.short_code()
        ),
        format!("Serial:       {}", transaction.serial),
    ];
    let shown_above = ["operation", "mapping", "code", "short_code", "serial"];
    if let Json::Object(fields) = &description {
        for (name, value) in fields.iter().filter(|(name, value)| !shown_above.contains(&name.as_str()) && !value.is_null()) {
            show(&mut lines, 0, &words(name), value, known);
        }
    }
    let warnings = warnings(transaction, known);
    if warnings.is_empty() {
        lines.push("No warnings.".to_owned());
    }
    lines.extend(warnings.iter().map(|warning| format!("WARNING ({}): {}", warning.reason, warning.detail)));
    lines
}

fn operation(transaction: &TopologyTransaction) -> &'static str {
    match (transaction.operation, transaction.serial) {
        (super::TopologyOperation::AddReplace, 1) => "add",
        (super::TopologyOperation::AddReplace, _) => "replace",
        (super::TopologyOperation::Remove, _) => "remove",
    }
}

/// A field name as words.
fn words(name: &str) -> String {
    let text = name.replace('_', " ").replace(" hex", "").replace(" if new", " if this is new");
    let mut characters = text.chars();
    characters.next().map_or_else(String::new, |first| first.to_uppercase().chain(characters).collect())
}

fn show(lines: &mut Vec<String>, depth: usize, name: &str, value: &Json, known: &[KnownKey]) {
    let indent = "  ".repeat(depth);
    match value {
        Json::Object(fields) => {
            lines.push(format!("{indent}{name}:"));
            for (field, value) in fields.iter().filter(|(_, value)| !value.is_null()) {
                show(lines, depth + 1, &words(field), value, known);
            }
        }
        Json::Array(items) if items.is_empty() => lines.push(format!("{indent}{name}: none")),
        Json::Array(items) if items.iter().all(|item| !item.is_object()) => {
            lines.push(format!("{indent}{name}: {}", items.iter().map(|item| scalar(item, known)).collect::<Vec<_>>().join(", ")));
        }
        Json::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                show(lines, depth, &format!("{name} {} of {}", index + 1, items.len()), item, known);
            }
        }
        scalar_value => lines.push(format!("{indent}{name}: {}", scalar(scalar_value, known))),
    }
}

/// A value, with the name of the key if it is a fingerprint that the vault knows.
fn scalar(value: &Json, known: &[KnownKey]) -> String {
    let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    match known.iter().find(|key| key.fingerprint.to_string() == text) {
        Some(key) => format!("{text} ({})", key.name),
        None => text,
    }
}
