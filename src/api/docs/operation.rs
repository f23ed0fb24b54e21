//! Calls of the OpenAPI document: parameters, body and answers with links to their schemas, and an example for the command line.

use maud::{Markup, html};
use serde_json::Value;

use super::{
    Group, Part, example, prose,
    schema::{description, type_of},
};

const METHODS: &[&str] = &["get", "post", "delete"];

/// The calls, in the order of the tags of the document.
pub(super) fn groups(document: &Value) -> Vec<Group> {
    let text = |value: &Value, name: &str| value.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
    let tags = document.get("tags").and_then(Value::as_array).into_iter().flatten();
    let group = |tag: &Value| {
        let name = text(tag, "name");
        let title = format!("{name}: {}", text(tag, "description"));
        Group { parts: calls(document, &name), id: format!("calls-{name}"), title }
    };
    tags.map(group).collect()
}

fn calls(document: &Value, tag: &str) -> Vec<Part> {
    let mut parts = Vec::new();
    for (path, item) in document.get("paths").and_then(Value::as_object).into_iter().flatten() {
        for method in METHODS {
            let Some(call) = item.get(*method).filter(|call| call.pointer("/tags/0").and_then(Value::as_str) == Some(tag)) else {
                continue;
            };
            parts.push(part(document, method, path, call));
        }
    }
    parts
}

fn part(document: &Value, method: &str, path: &str, call: &Value) -> Part {
    let text = |name: &str| call.get(name).and_then(Value::as_str).unwrap_or_default();
    let (id, summary, method) = (text("operationId"), text("summary"), method.to_uppercase());
    let parameters = call.get("parameters").and_then(Value::as_array).map_or(&[] as &[Value], Vec::as_slice);
    let body = call.pointer("/requestBody/content/application~1json/schema");
    let content = html! {
        summary { b { (method) } " " code { (path) } " " (summary) }
        div id={ "call-" (id) } {
            p { "Operation in the audit log: " code { (id) } }
            @for paragraph in text("description").split("\n\n").filter(|text| !text.is_empty()) { p { (prose(paragraph)) } }
            @if !parameters.is_empty() { (parameter_table(parameters)) }
            @if let Some(body) = body { p { "Body: " (type_of(body)) } }
            (answers(call))
            p { "Example" }
            pre tabindex="0" { code { (curl(document, &method, path, parameters, body)) } }
        }
    };
    let names: Vec<&str> = parameters.iter().filter_map(|parameter| parameter.get("name").and_then(Value::as_str)).collect();
    Part { words: format!("{method} {path} {id} {summary} {} {}", names.join(" "), text("description")).to_lowercase(), content }
}

fn parameter_table(parameters: &[Value]) -> Markup {
    let text = |parameter: &Value, name: &str| parameter.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
    html! {
        table {
            caption { "Parameters" }
            thead { tr { @for name in ["name", "in", "type", "required", "meaning"] { th scope="col" { (name) } } } }
            tbody {
                @for parameter in parameters {
                    tr {
                        th scope="row" { code { (text(parameter, "name")) } }
                        td { (text(parameter, "in")) }
                        td { (type_of(parameter.get("schema").unwrap_or(&Value::Null))) }
                        td { @if parameter.get("required").and_then(Value::as_bool) == Some(true) { "yes" } @else { "no" } }
                        td { (prose(&text(parameter, "description"))) }
                    }
                }
            }
        }
    }
}

/// The answers: what a success has, and the codes of the errors with links.
fn answers(call: &Value) -> Markup {
    let responses = call.get("responses").and_then(Value::as_object);
    let all: Vec<_> = responses
        .into_iter()
        .flatten()
        .map(|(status, answer)| (status.as_str(), answer, description(answer).unwrap_or_default()))
        .collect();
    let is_error = |status: &str| status.starts_with(['4', '5']);
    html! {
        table {
            caption { "Answers" }
            thead { tr { th scope="col" { "status" } th scope="col" { "body" } th scope="col" { "meaning" } } }
            tbody {
                @for (status, answer, meaning) in all.iter().filter(|(status, ..)| !is_error(status)) {
                    tr {
                        th scope="row" { (status) }
                        td {
                            @for (kind, content) in answer.get("content").and_then(Value::as_object).into_iter().flatten() {
                                (type_of(content.get("schema").unwrap_or(&Value::Null)))
                                @if kind != "application/json" { " as " code { (kind) } }
                            }
                        }
                        td { (meaning) }
                    }
                }
            }
        }
        details {
            summary { "Errors: problem documents of the schema Problem" }
            ul {
                @for (status, _, codes) in all.iter().filter(|(status, ..)| is_error(status)) {
                    li {
                        (status) ": "
                        @for (place, code) in codes.split(", ").enumerate() { @if place > 0 { ", " } a href={ "/docs/errors#" (code) } { code { (code) } } }
                    }
                }
            }
        }
    }
}

/// The call with curl. Required parameters only.
fn curl(document: &Value, method: &str, path: &str, parameters: &[Value], body: Option<&Value>) -> String {
    let mut path = path.to_owned();
    let mut query = String::new();
    for parameter in parameters.iter().filter(|parameter| parameter.get("required").and_then(Value::as_bool) == Some(true)) {
        let name = parameter.get("name").and_then(Value::as_str).unwrap_or_default();
        if parameter.get("in").and_then(Value::as_str) == Some("query") {
            query.push(if query.is_empty() { '?' } else { '&' });
            query.push_str(name);
            query.push_str("=…");
        } else {
            path = path.replace(&format!("{{{name}}}"), &format!("${}", name.to_uppercase()));
        }
    }
    let option = match (method, body) {
        ("GET", _) | ("POST", Some(_)) => String::new(),
        _ => format!(" -X {method}"),
    };
    let data = body.map(|schema| format!(" \\\n  -d '{}'", example::of(document, schema, true))).unwrap_or_default();
    format!("curl --cacert ca.pem --cert client.pem --key client.key{option} \\\n  \"https://localhost:8443{path}{query}\"{data}")
}
