//! The route table: every call of `/v1`, and the OpenAPI document that is generated from it.

use std::{borrow::Cow, collections::HashMap, sync::Arc};

use axum::{Router, http::Method, routing::get};
use utoipa::{
    Modify, OpenApi,
    openapi::{RefOr, security::SecurityScheme},
};
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::domain::Operation;

use super::{
    Api, Problem,
    audit::{access, checkpoints, entries, removals, summary, tiles},
    authorization, docs, freeze,
    keys::{self, corrections, lifecycle, operations, reseal, sign_batch, verify},
    status, topology,
    wrapper_keys::{self, posture, rotations},
};

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Canton Key Vault",
        description = "Keeps the private keys of Canton nodes sealed, opens them only into memory, and audits every use.\n\nEvery call needs a client certificate. Bytes are standard base64, times RFC 3339. Errors are problem documents (RFC 9457); `retryable` says whether the same call may succeed later.",
        license(name = "Apache-2.0", identifier = "Apache-2.0")
    ),
    servers((
        url = "https://{host}:{port}",
        description = "The listener of the API: `[listen] api`",
        variables(
            ("host" = (default = "localhost", description = "A name in the server certificate")),
            ("port" = (default = "8443", description = "The port of `[listen] api`"))
        )
    )),
    tags(
        (name = "keys", description = "Creating, importing, listing and showing keys"),
        (name = "lifecycle", description = "Changing the state of keys, and re-sealing them"),
        (name = "use", description = "Using keys: signing, decrypting, encrypting, exporting"),
        (name = "wrapper-keys", description = "The keys of the KMS that seal all others, and rotations between them"),
        (name = "audit", description = "The log of every call"),
        (name = "vault", description = "The status and the freeze of the vault, and the rights of the caller")
    ),
    security(("client_certificate" = [])),
    modifiers(&ClientCertificate),
    components(schemas(Problem)),
    paths(tiles::read)
)]
struct Document;

/// How a caller proves who it is. The derive has no such scheme.
struct ClientCertificate;

impl Modify for ClientCertificate {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        let description = "The principal is the SPIFFE id or DNS name of the client certificate. Its CA is in `[[tls.client_cas]]`, and its rights are in `[[grants]]`.";
        let scheme = SecurityScheme::MutualTls { description: Some(description.into()), deprecated: None, extensions: None };
        document.components.get_or_insert_default().add_security_scheme("client_certificate", scheme);
    }
}

fn table() -> OpenApiRouter<Arc<Api>> {
    OpenApiRouter::with_openapi(Document::openapi())
        .routes(routes!(keys::create, keys::list))
        .routes(routes!(keys::import))
        .routes(routes!(keys::show, lifecycle::delete))
        .routes(routes!(keys::rotate))
        .routes(routes!(operations::sign))
        .routes(routes!(sign_batch::sign_batch))
        .routes(routes!(topology::sign))
        .routes(routes!(topology::decode))
        .routes(routes!(operations::decrypt))
        .routes(routes!(operations::encrypt))
        .routes(routes!(operations::export))
        .routes(routes!(lifecycle::enable))
        .routes(routes!(lifecycle::disable))
        .routes(routes!(lifecycle::supersede))
        .routes(routes!(lifecycle::restrict_signing))
        .routes(routes!(lifecycle::cancel_deletion))
        .routes(routes!(corrections::withdraw))
        .routes(routes!(corrections::rename))
        .routes(routes!(verify::verify))
        .routes(routes!(reseal::reseal))
        .routes(routes!(reseal::start, reseal::list))
        .routes(routes!(reseal::show))
        .routes(routes!(reseal::abort))
        .routes(routes!(wrapper_keys::add, wrapper_keys::list))
        .routes(routes!(wrapper_keys::show))
        .routes(routes!(posture::show))
        .routes(routes!(wrapper_keys::rename))
        .routes(routes!(wrapper_keys::retire))
        .routes(routes!(wrapper_keys::replicate))
        .routes(routes!(rotations::start, rotations::list))
        .routes(routes!(rotations::show))
        .routes(routes!(rotations::abort))
        .routes(routes!(entries::entries))
        .routes(routes!(entries::export))
        .routes(routes!(summary::summary))
        .routes(routes!(access::access))
        .routes(routes!(checkpoints::show))
        .routes(routes!(checkpoints::make))
        .routes(routes!(checkpoints::verifier_keys, checkpoints::rotate))
        .routes(routes!(checkpoints::inclusion))
        .routes(routes!(checkpoints::consistency))
        .routes(routes!(removals::remove))
        .routes(routes!(authorization::whoami))
        .routes(routes!(authorization::authorize))
        .routes(routes!(status::status))
        .routes(routes!(freeze::freeze))
        .routes(routes!(freeze::unfreeze))
}

/// The routes, with their documentation.
pub(super) fn router() -> Router<Arc<Api>> {
    let (router, _) = table().split_for_parts();
    router.route(tiles::ROUTE, get(tiles::read)).merge(docs::documentation_pages())
}

/// The OpenAPI 3.1 document, as committed under `openapi/`.
pub fn openapi() -> utoipa::openapi::OpenApi {
    table().into_openapi()
}

/// Every route: its method and path, and its operation in the log. `None` for one without.
pub fn routes() -> Vec<(String, Option<Operation>)> {
    let mut routes = Vec::new();
    for (path, item) in openapi().paths.paths {
        for (method, operation) in [("GET", item.get), ("POST", item.post), ("DELETE", item.delete)] {
            if let Some(operation) = operation {
                routes.push((format!("{method} {path}"), operation.operation_id.and_then(|id| id.parse().ok())));
            }
        }
    }
    routes
}

/// The operation of a route, for the log and the metrics, and whether the route takes an `Idempotency-Key`. The `operationId` of the document is
/// the operation in the log.
pub(super) struct Operations(HashMap<String, Vec<(Method, Operation, TakesIdempotencyKey)>>);

type TakesIdempotencyKey = bool;

impl Operations {
    pub(super) fn new() -> Self {
        let mut known: HashMap<String, Vec<_>> = HashMap::new();
        for (path, item) in openapi().paths.paths {
            let of = [(Method::GET, item.get), (Method::POST, item.post), (Method::DELETE, item.delete)];
            for (method, operation) in of {
                let Some(documented) = operation else { continue };
                let takes_idempotency_key = documented
                    .parameters
                    .iter()
                    .flatten()
                    .any(|parameter| matches!(parameter, RefOr::T(parameter) if parameter.name == "Idempotency-Key"));
                if let Some(operation) = documented.operation_id.and_then(|id| id.parse().ok()) {
                    known.entry(path.clone()).or_default().push((method, operation, takes_idempotency_key));
                }
            }
        }
        Self(known)
    }

    pub(super) fn of(&self, method: &Method, matched: &str) -> Option<Operation> {
        self.find(method, matched).map(|(operation, _)| operation)
    }

    /// Whether an `Idempotency-Key` has an effect on this route.
    pub(super) fn takes_idempotency_key(&self, method: &Method, matched: &str) -> bool {
        self.find(method, matched).is_some_and(|(_, takes)| takes)
    }

    fn find(&self, method: &Method, matched: &str) -> Option<(Operation, TakesIdempotencyKey)> {
        // A HEAD is answered by the route of its GET.
        let method = if method == Method::HEAD { &Method::GET } else { method };
        // A path that takes the rest of the URL has another form in the document.
        let path = if matched.contains("{*") { Cow::Owned(matched.replace("{*", "{")) } else { Cow::Borrowed(matched) };
        self.0.get(&*path)?.iter().find(|(of, ..)| of == method).map(|(_, operation, takes)| (*operation, *takes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_route_is_an_operation_of_the_log() {
        let document = openapi();
        let routes: usize =
            document.paths.paths.values().map(|item| [&item.get, &item.post, &item.delete].iter().filter(|o| o.is_some()).count()).sum();
        assert_eq!(Operations::new().0.values().map(Vec::len).sum::<usize>(), routes);
        assert!(routes >= 23, "{routes}");
    }

    /// What validators and generators of clients refuse or stumble over. `scripts/test-clients` runs them.
    #[test]
    fn the_document_is_complete() {
        let document = serde_json::to_value(openapi()).unwrap();
        let declared: Vec<_> = document["tags"].as_array().unwrap().iter().map(|tag| &tag["name"]).collect();
        assert_eq!(document["components"]["securitySchemes"]["client_certificate"]["type"], "mutualTLS");
        assert_eq!(document["security"], serde_json::json!([{ "client_certificate": [] }]));
        assert!(!document["servers"].as_array().unwrap().is_empty());
        let calls = document["paths"].as_object().unwrap().values().flat_map(|item| item.as_object().unwrap().values());
        for call in calls {
            let id = &call["operationId"];
            assert!(id.is_string() && call["summary"].is_string(), "{id}");
            assert!(declared.contains(&&call["tags"][0]), "{id}: the tag is not declared");
            for (status, response) in call["responses"].as_object().unwrap() {
                assert!(response["description"].as_str().is_some_and(|text| !text.is_empty()), "{id} {status}: no description");
            }
            for parameter in call["parameters"].as_array().into_iter().flatten() {
                assert!(!parameter["schema"]["type"].is_array(), "{id} {}: a parameter cannot be null", parameter["name"]);
            }
        }
        for (name, schema) in document["components"]["schemas"].as_object().unwrap().iter().filter(|(name, _)| name.starts_with("List_")) {
            assert!(schema["properties"]["items"]["items"]["$ref"].is_string(), "{name}: the items have no name");
        }
    }

    /// `cargo test openapi` says how to regenerate it.
    /// A client generator refuses a document that names a schema which it does not have.
    #[test]
    fn every_schema_that_is_named_exists() {
        let text = serde_json::to_string(&openapi()).unwrap();
        let document: serde_json::Value = serde_json::from_str(&text).unwrap();
        let named = text.split("\"$ref\":\"#").skip(1).map(|rest| rest.split('"').next().unwrap());
        let missing: std::collections::BTreeSet<&str> = named.filter(|place| document.pointer(place).is_none()).collect();
        assert_eq!(missing, std::collections::BTreeSet::new());
    }

    #[test]
    fn the_committed_openapi_is_the_generated_one() {
        let generated = openapi().to_pretty_json().unwrap() + "\n";
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/openapi/openapi.json");
        if std::env::var_os("KEYVAULT_WRITE_DOCUMENTS").is_some() {
            std::fs::write(path, &generated).unwrap();
        }
        assert!(std::fs::read_to_string(path).unwrap() == generated, "renew it: KEYVAULT_WRITE_DOCUMENTS=1 cargo test --lib");
    }
}
