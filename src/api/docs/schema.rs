//! Schemas of the OpenAPI document: a table of the fields of each, and types as text with links.

use maud::{Markup, html};
use serde_json::Value;

use super::{Part, example, prose};

/// The place of a schema in the document.
const PREFIX: &str = "#/components/schemas/";

/// All schemas, in the order of their names.
pub(super) fn parts(document: &Value) -> Vec<Part> {
    let schemas = document.pointer("/components/schemas").and_then(Value::as_object);
    schemas.into_iter().flatten().map(|(name, schema)| part(document, name, schema)).collect()
}

fn part(document: &Value, name: &str, schema: &Value) -> Part {
    let fields = schema.get("properties").and_then(Value::as_object);
    let required: Vec<&str> = schema.get("required").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).collect();
    let names: Vec<&str> = fields.into_iter().flatten().map(|(name, _)| name.as_str()).collect();
    let values: Vec<&str> = schema.get("enum").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).collect();
    let content = html! {
        summary { code { (name) } }
        div id={ "schema-" (name) } {
            @if let Some(text) = description(schema) { p { (prose(text)) } }
            @if let Some(fields) = fields {
                table {
                    caption { "Fields" }
                    thead { tr { th scope="col" { "field" } th scope="col" { "type" } th scope="col" { "required" } th scope="col" { "meaning" } } }
                    tbody {
                        @for (field, of) in fields {
                            tr {
                                th scope="row" { code { (field) } }
                                td { (type_of(of)) }
                                td { @if required.contains(&field.as_str()) { "yes" } @else { "no" } }
                                td { (prose(description(of).unwrap_or_default())) }
                            }
                        }
                    }
                }
                p { "Example" }
                pre tabindex="0" { code { (example::pretty(&example::of(document, schema, false))) } }
            } @else {
                p { (type_of(schema)) }
                @if let Some(all) = schema.get("oneOf").and_then(Value::as_array) {
                    ul { @for one in all { li { (type_of(one)) " " (prose(description(one).unwrap_or_default())) } } }
                }
            }
        }
    };
    Part { words: format!("schema {name} {} {}", names.join(" "), values.join(" ")).to_lowercase(), content }
}

/// What a schema is, in words.
pub(super) fn description(schema: &Value) -> Option<&str> {
    schema.get("description").and_then(Value::as_str)
}

/// The name of the schema that a reference leads to.
pub(super) fn referred(schema: &Value) -> Option<&str> {
    schema.get("$ref").and_then(Value::as_str)?.strip_prefix(PREFIX)
}

/// The type of a value, with links to schemas.
pub(super) fn type_of(schema: &Value) -> Markup {
    if let Some(name) = referred(schema) {
        return html! { a href={ "#schema-" (name) } { code { (name) } } };
    }
    if let Some(values) = schema.get("enum").and_then(Value::as_array) {
        return html! { @for (place, value) in values.iter().enumerate() { @if place > 0 { ", " } code { (value.as_str().unwrap_or_default()) } } };
    }
    if let Some(any) = schema.get("oneOf").or_else(|| schema.get("anyOf")).or_else(|| schema.get("allOf")).and_then(Value::as_array) {
        return html! { @for (place, one) in any.iter().enumerate() { @if place > 0 { " or " } (type_of(one)) } };
    }
    let names: Vec<&str> = match schema.get("type") {
        Some(Value::String(one)) => vec![one],
        Some(Value::Array(several)) => several.iter().filter_map(Value::as_str).collect(),
        _ => vec!["any value"],
    };
    html! {
        @for (place, name) in names.iter().enumerate() {
            @if place > 0 { " or " }
            @if *name == "array" { "list of " (type_of(schema.get("items").unwrap_or(&Value::Null))) } @else { (name) }
        }
        (limits(schema))
    }
}

/// The bounds and the format of a value.
fn limits(schema: &Value) -> Markup {
    const LIMITS: &[(&str, &str)] = &[
        ("format", "format"),
        ("contentEncoding", "encoding"),
        ("minimum", "at least"),
        ("maximum", "at most"),
        ("minLength", "shortest"),
        ("maxLength", "longest"),
        ("minItems", "fewest items"),
        ("maxItems", "most items"),
        ("pattern", "pattern"),
    ];
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    html! { @for (name, label) in LIMITS { @if let Some(limit) = schema.get(*name) { ", " (label) " " code { (text(limit)) } } } }
}
