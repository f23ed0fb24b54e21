//! Examples: a value that fits a schema, made from its own examples, its sets of values, its formats and the names of the fields.

use serde_json::{Map, Value, json};

use super::schema::referred;

/// Deeper values are left out, so that a schema that contains itself ends.
const DEEPEST: usize = 6;

/// Texts for fields without an example of their own, by their names.
const TEXTS: &[(&str, &str)] = &[
    ("node", "participant1"),
    ("nodes", "participant1"),
    ("name", "participant1-signing"),
    ("id", "1220a63d079ae76ffba43d4a4be873afeb6ee14eaa2bb01b26a072a07d0cecadd809"),
    ("key_id", "1220a63d079ae76ffba43d4a4be873afeb6ee14eaa2bb01b26a072a07d0cecadd809"),
    ("wrapper_key", "wk-001122334455"),
    ("active_wrapper", "wk-001122334455"),
    ("to", "wk-001122334455"),
    ("from", "wk-665544332211"),
    ("principal", "spiffe://example.org/participant1"),
    ("region", "eu-west-1"),
    ("regions", "eu-west-1"),
    ("reference", "arn:aws:kms:eu-west-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab"),
];

/// A value of the schema. Of a request: only what is required.
pub(super) fn of(document: &Value, schema: &Value, only_required: bool) -> Value {
    Maker { document, only_required }.value("", schema, 0)
}

/// JSON with line breaks.
pub(super) fn pretty(value: &Value) -> String {
    serde_json::to_string_pretty(value).unwrap_or_default()
}

struct Maker<'d> {
    document: &'d Value,
    only_required: bool,
}

impl Maker<'_> {
    fn value(&self, name: &str, schema: &Value, depth: usize) -> Value {
        if depth > DEEPEST {
            return Value::Null;
        }
        if let Some(example) = schema.get("example") {
            return example.clone();
        }
        if let Some(of) = referred(schema) {
            return self
                .document
                .pointer(&format!("/components/schemas/{of}"))
                .map_or(Value::Null, |found| self.value(name, found, depth + 1));
        }
        if let Some(first) = schema.get("enum").and_then(|values| values.get(0)) {
            return first.clone();
        }
        if let Some(any) = schema.get("oneOf").or_else(|| schema.get("anyOf")).or_else(|| schema.get("allOf")).and_then(Value::as_array) {
            let not_null = any.iter().find(|one| one.get("type").and_then(Value::as_str) != Some("null"));
            return not_null.map_or(Value::Null, |one| self.value(name, one, depth + 1));
        }
        let kind = match schema.get("type") {
            Some(Value::String(one)) => one.as_str(),
            Some(Value::Array(several)) => several.iter().filter_map(Value::as_str).find(|kind| *kind != "null").unwrap_or_default(),
            _ => "",
        };
        match kind {
            "object" => self.object(schema, depth),
            "array" => json!([self.value(name, schema.get("items").unwrap_or(&Value::Null), depth + 1)]),
            "string" => text(name, schema).into(),
            "integer" | "number" => schema.get("minimum").filter(|least| **least != json!(0)).cloned().unwrap_or_else(|| json!(1)),
            "boolean" => json!(true),
            _ => Value::Null,
        }
    }

    fn object(&self, schema: &Value, depth: usize) -> Value {
        let required: Vec<&str> =
            schema.get("required").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).collect();
        let fields = schema.get("properties").and_then(Value::as_object).into_iter().flatten();
        let shown = fields.filter(|(name, _)| !self.only_required || required.contains(&name.as_str()));
        Value::Object(shown.map(|(name, of)| (name.clone(), self.value(name, of, depth + 1))).collect::<Map<_, _>>())
    }
}

fn text(name: &str, schema: &Value) -> &'static str {
    let is = |field: &str, value: &str| schema.get(field).and_then(Value::as_str) == Some(value);
    if is("format", "date-time") {
        return "2026-01-31T12:00:00Z";
    }
    if is("format", "date") {
        return "2026-01-31";
    }
    if is("contentEncoding", "base64") || is("format", "byte") {
        return "aGVsbG8=";
    }
    TEXTS.iter().find(|(field, _)| *field == name).map_or("text", |(_, text)| text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::routes;

    #[test]
    fn an_example_of_every_schema_has_the_required_fields_and_only_known_values() {
        let document = serde_json::to_value(routes::openapi()).unwrap();
        for (name, schema) in document["components"]["schemas"].as_object().unwrap() {
            for only_required in [false, true] {
                let example = of(&document, schema, only_required);
                for field in schema["required"].as_array().into_iter().flatten() {
                    assert!(!example[field.as_str().unwrap()].is_null(), "{name}: {field} in {example}");
                }
                if let Some(values) = schema["enum"].as_array() {
                    assert!(values.contains(&example), "{name}: {example}");
                }
            }
        }
    }

    #[test]
    fn the_example_of_a_new_key_is_one_that_the_vault_takes() {
        let document = serde_json::to_value(routes::openapi()).unwrap();
        let schema = &document["components"]["schemas"]["CreateKey"];
        assert_eq!(of(&document, schema, true), json!({ "node": "participant1", "purpose": "signing", "spec": "ec-curve25519" }));
    }
}
