//! Pages without external resources: the API, from its OpenAPI document, and the error codes, from their table.

use std::fmt::Write as _;

use utoipa::openapi::path::Operation;

use super::{CODES, CodeInfo, routes};

/// The page, as HTML.
pub(super) fn page() -> String {
    let document = routes::openapi();
    let mut page = String::from(HEAD);
    let _ = write!(
        page,
        "<h1>{} {}</h1><p>{}</p>",
        text(&document.info.title),
        text(&document.info.version),
        text(document.info.description.as_deref().unwrap_or_default())
    );
    page.push_str("<p><a href=\"/openapi.json\">openapi.json</a> · <a href=\"/docs/errors\">error codes</a></p>");
    for (path, item) in &document.paths.paths {
        for (method, operation) in [("GET", &item.get), ("POST", &item.post), ("DELETE", &item.delete)] {
            if let Some(operation) = operation {
                call(&mut page, method, path, operation);
            }
        }
    }
    page.push_str("<h2>Schemas</h2>");
    for (name, schema) in document.components.iter().flat_map(|components| &components.schemas) {
        let json = serde_json::to_string_pretty(schema).unwrap_or_default();
        let _ = write!(page, "<details id=\"{0}\"><summary><code>{0}</code></summary><pre>{1}</pre></details>", text(name), text(&json));
    }
    page
}

/// The page of error codes, as HTML. Each code is an anchor: the `type` of a problem document points to it.
pub(super) fn errors() -> String {
    let mut page = String::from(HEAD);
    page.push_str(
        "<h1>Error codes</h1><p><code>retryable</code> means: the same call may succeed later without anybody changing anything.</p>\
         <table><tr><th>code<th>status<th>retryable<th>what it is<th>what to do</tr>",
    );
    for CodeInfo { code, status, retryable, title, remedy } in CODES {
        let retryable = if *retryable { "yes" } else { "no" };
        let _ = write!(
            page,
            "<tr id=\"{code}\"><td><a href=\"#{code}\"><code>{code}</code></a><td>{status}<td>{retryable}<td>{}<td>{}</tr>",
            text(title),
            text(remedy)
        );
    }
    page.push_str("</table>");
    page
}

fn call(page: &mut String, method: &str, path: &str, operation: &Operation) {
    let _ = write!(
        page,
        "<details><summary><b>{method}</b> <code>{}</code> {}</summary>",
        text(path),
        text(operation.summary.as_deref().unwrap_or_default())
    );
    if let Some(description) = &operation.description {
        let _ = write!(page, "<p>{}</p>", text(description));
    }
    let shown =
        serde_json::json!({ "parameters": operation.parameters, "requestBody": operation.request_body, "responses": operation.responses });
    let _ = write!(page, "<pre>{}</pre></details>", text(&serde_json::to_string_pretty(&shown).unwrap_or_default()));
}

fn text(raw: &str) -> String {
    raw.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

const HEAD: &str = "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><title>Canton Key Vault API</title><meta name=\"viewport\" content=\"width=device-width\">\
<style>body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem}summary{cursor:pointer;padding:.3rem 0}\
table{border-collapse:collapse}td,th{text-align:left;vertical-align:top;padding:.3rem .8rem .3rem 0}tr:target{outline:2px solid}\
pre{background:#f4f4f4;padding:1rem;overflow:auto;font-size:13px}@media(prefers-color-scheme:dark){body{background:#111;color:#eee}table{border-collapse:collapse}td,th{text-align:left;vertical-align:top;padding:.3rem .8rem .3rem 0}tr:target{outline:2px solid}\
pre{background:#222}a{color:#8cf}}</style>";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_shows_every_path_and_loads_nothing() {
        let page = page();
        for path in routes::openapi().paths.paths.keys() {
            assert!(page.contains(&text(path)), "{path}");
        }
        let page = page + &errors();
        assert!(!page.contains("<script") && !page.contains("src=") && !page.contains("http://") && !page.contains("https://"));
    }
}
