//! Nothing in a request is dropped silently: what the vault does not know, and what has no effect together with the rest, is refused.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Value, json};

use crate::support::{
    api::{Caller, id, without_limits},
    openssl::genpkey,
};

/// A path with ids of the right form.
fn filled(path: &str, key: &str) -> String {
    let id = match path {
        path if path.contains("rotations/{id}") || path.contains("reseals/{id}") => "job-000000000000",
        path if path.contains("tlog/{id}") => "checkpoint",
        path if path.contains("wrapper-keys/{id}") => "wk-000000000000",
        _ => key,
    };
    path.replace("{id}", id)
}

/// A valid value of a required parameter.
fn example(name: &str) -> String {
    let value = match name {
        "by" => "day",
        "key" => "name",
        "at" => "2026-01-31",
        "sequence" | "from" => "1",
        other => panic!("an example of {other}"),
    };
    format!("{name}={value}")
}

/// Every route of the OpenAPI document, whether it takes a body or parameters or not.
#[tokio::test]
async fn every_route_refuses_a_field_a_parameter_and_a_header_that_it_does_not_have() {
    let vault = without_limits();
    let admin = Caller::new(&vault, "key-admin");
    let document = admin.get("/openapi.json").await.success();
    let key = Caller::new(&vault, "participant1").signing_key("participant1").await;
    let mut routes = 0;
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let (method, target) = (method.to_uppercase(), filled(path, &key));
            let parameters = operation["parameters"].as_array().cloned().unwrap_or_default();
            let idempotent = parameters.iter().any(|parameter| parameter["name"] == "Idempotency-Key");
            let json = [("content-type", "application/json")];
            let required = parameters.iter().filter(|parameter| parameter["in"] == "query" && parameter["required"] == true);
            let required: Vec<String> = required.map(|parameter| example(parameter["name"].as_str().unwrap())).collect();
            let target = if required.is_empty() { target } else { format!("{target}?{}", required.join("&")) };
            let joint = if required.is_empty() { '?' } else { '&' };
            let with_parameter = format!("{target}{joint}unknown_parameter=1");
            let mut tries = vec![
                ("unknown_field", admin.send(&method, &target, &json, r#"{"unknown_field":1}"#).await),
                ("unknown_parameter", admin.send(&method, &with_parameter, &[], "").await),
            ];
            if !idempotent {
                tries.push(("Idempotency-Key", admin.send(&method, &target, &[("idempotency-key", "k")], "").await));
            }
            for (what, reply) in tries {
                let problem = reply.refused(400, "invalid_request");
                assert!(problem["detail"].as_str().unwrap().contains(what), "{method} {path} with {what}: {problem}");
            }
            // A parameter twice: one of the two would be dropped.
            for parameter in parameters.iter().filter(|parameter| parameter["in"] == "query") {
                let name = parameter["name"].as_str().unwrap();
                let reply = admin.send(&method, &format!("{target}{joint}{name}=7&{name}=7"), &[], "").await;
                reply.refused(400, "invalid_request");
            }
            routes += 1;
        }
    }
    assert!(routes >= 35, "{routes}");
    assert_eq!(admin.get(&format!("/v1/keys/{key}")).await.success()["revision"], 1, "nothing was changed");
}

/// Known fields that have no effect together. The refusal names the field.
#[tokio::test]
async fn fields_that_have_no_effect_together_are_refused() {
    let vault = without_limits();
    let (node, admin) = (Caller::new(&vault, "participant1"), Caller::new(&vault, "key-admin"));
    let (wrapper_admin, exporter) = (Caller::new(&vault, "wrapper-admin"), Caller::new(&vault, "exporter"));
    let key = node.signing_key("participant1").await;
    let new = |purpose: &str, spec: &str| json!({ "node": "participant1", "purpose": purpose, "spec": spec, "exportable": true });
    let pair = id(&admin.post("/v1/keys", &new("signing", "ec-curve25519")).await.success());
    let symmetric = id(&admin.post("/v1/keys", &new("symmetric", "aes-256")).await.success());
    let import = |more: Value| {
        let mut body = json!({ "node": "participant1", "format": "pkcs8", "material": STANDARD.encode(genpkey(&["ED25519"])) });
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        body
    };
    let authorize = "/v1/authorize".to_owned();
    let (export_pair, export_symmetric) = (format!("/v1/keys/{pair}/export"), format!("/v1/keys/{symmetric}/export"));
    let raw = STANDARD.encode([5; 32]);
    for (caller, path, body, status, told) in [
        (
            &node,
            authorize.clone(),
            json!({ "operation": "keys.sign", "key_id": key, "node": "participant1" }),
            400,
            "either key_id or node",
        ),
        (&node, authorize.clone(), json!({ "operation": "vault.freeze", "node": "participant1" }), 400, "node: vault.freeze"),
        (&node, authorize.clone(), json!({ "operation": "rotations.start", "key_id": key }), 400, "key_id: rotations.start"),
        (&node, authorize.clone(), json!({ "operation": "keys.create", "key_id": key }), 400, "key_id: keys.create"),
        (&wrapper_admin, "/v1/wrapper-keys".into(), json!({ "provider": "local", "reference": "x", "create": true }), 400, "not both"),
        (
            &wrapper_admin,
            "/v1/wrapper-keys".into(),
            json!({ "provider": "local", "reference": "x", "multi_region": true }),
            400,
            "multi_region",
        ),
        (&wrapper_admin, "/v1/wrapper-keys".into(), json!({ "provider": "local" }), 400, "reference"),
        (
            &wrapper_admin,
            "/v1/wrapper-keys".into(),
            json!({ "provider": "local", "create": true, "regions": ["eu-west-1"] }),
            422,
            "no regions",
        ),
        (&node, format!("/v1/keys/{key}/sign-topology"), json!({ "transaction": "", "transactions": [] }), 400, "not both"),
        (&admin, format!("/v1/keys/{key}/signing-restriction"), json!({ "topology_only": false, "mappings": [] }), 400, "mappings"),
        (&admin, "/v1/keys/import".into(), import(json!({ "password": "x" })), 422, "password"),
        (
            &admin,
            "/v1/keys/import".into(),
            json!({ "node": "participant1", "format": "raw", "material": raw, "replace_destroyed": true }),
            422,
            "replace_destroyed",
        ),
        (
            &admin,
            "/v1/keys/import".into(),
            json!({ "node": "participant1", "format": "raw", "material": raw, "usage": ["protocol"] }),
            422,
            "usages",
        ),
        (&exporter, export_pair.clone(), json!({ "format": "pkcs8", "password": "x" }), 422, "password: only"),
        (&exporter, export_pair.clone(), json!({ "format": "pkcs8", "canton_version": "3.4" }), 422, "canton_version: only"),
        (&exporter, export_pair, json!({ "format": "raw" }), 422, "not as raw"),
        (&exporter, export_symmetric.clone(), json!({ "format": "raw", "password": "x" }), 422, "password: only"),
        (&exporter, export_symmetric, json!({ "format": "pkcs8" }), 422, "exported as raw"),
    ] {
        let code = if status == 400 { "invalid_request" } else { "invalid_attributes" };
        let problem = caller.post(&path, &body).await.refused(status, code);
        assert!(problem["detail"].as_str().unwrap().contains(told), "{path} {body}: {problem}");
    }
    // A purpose that does not sign is named, and not an algorithm that nobody asked for.
    let transaction = crate::canton_made::text(&crate::canton_made::items("topology")[0], "prep_b64").to_owned();
    let problem = node.post(&format!("/v1/keys/{symmetric}/sign-topology"), &json!({ "transaction": transaction })).await;
    assert!(problem.refused(422, "invalid_attributes")["detail"].as_str().unwrap().contains("only a signing key"));
}

/// One message for several causes would name a wrong one.
#[tokio::test]
async fn a_state_change_that_is_refused_says_why() {
    let vault = without_limits();
    let (node, admin) = (Caller::new(&vault, "participant1"), Caller::new(&vault, "key-admin"));
    let key = node.signing_key("participant1").await;
    let restriction = format!("/v1/keys/{key}/signing-restriction");
    let told = |problem: Value| problem["detail"].as_str().unwrap().to_owned();
    let refused = async |step: &str| told(admin.step(&key, step).await.refused(409, "invalid_key_state"));
    let not_restricted = admin.post(&restriction, &json!({ "topology_only": false })).await.refused(409, "invalid_key_state");
    assert!(told(not_restricted).contains("no restriction"));
    admin.post(&restriction, &json!({ "topology_only": true })).await.success();
    let the_same = admin.post(&restriction, &json!({ "topology_only": true })).await.refused(409, "invalid_key_state");
    assert!(told(the_same).contains("exactly this restriction"));
    assert!(refused("enable").await.contains("neither disabled nor quarantined"));
    assert!(refused("cancel-deletion").await.contains("no deletion is scheduled"));
    admin.step(&key, "disable").await.success();
    assert!(refused("disable").await.contains("disabled already"));
    assert!(refused("supersede").await.contains("only an active key"));
    admin.delete(&format!("/v1/keys/{key}")).await.success();
    assert!(refused("enable").await.contains("cancel the deletion first"));
    assert!(told(admin.delete(&format!("/v1/keys/{key}")).await.refused(409, "invalid_key_state")).contains("scheduled already"));
    // The explanation beforehand has the same words.
    let asked = json!({ "operation": "keys.disable", "key_id": key });
    let asked = admin.post("/v1/authorize", &asked).await.success();
    assert!(asked["detail"].as_str().unwrap().contains("refused already"), "{asked}");
    // What is permanent is named by the call, and a state that refuses it anyway comes first.
    let new = json!({ "node": "participant1", "purpose": "signing", "spec": "ec-curve25519", "class": "permanent" });
    let permanent = id(&node.post("/v1/keys", &new).await.success());
    for (step, word) in [("supersede", "superseded"), ("rotate", "rotated")] {
        let by = if step == "rotate" { &node } else { &admin };
        assert!(told(by.step(&permanent, step).await.refused(409, "permanent_key")).ends_with(word));
    }
    assert!(told(admin.delete(&format!("/v1/keys/{permanent}")).await.refused(409, "permanent_key")).ends_with("deleted"));
    admin.step(&permanent, "disable").await.success();
    node.step(&permanent, "rotate").await.refused(409, "key_disabled");
}
