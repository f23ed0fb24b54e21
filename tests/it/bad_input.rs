//! Bad input gets the documented code, a remedy, and an audit entry. The response never repeats the input.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use canton_keyvault::{
    api::{CODES, CodeInfo, Problem},
    crypto::{SystemRandom, ecies_sender::encrypt_to},
};
use serde_json::{Value, json};

use crate::{
    known_bytes::{unbase64, unhex},
    support::{
        api::{Caller, Reply, id, without_limits},
        openssl::{ec_key, genpkey, oaep, openssl},
        vault::TestVault,
    },
};

/// Stands in secret fields of refused requests, and nowhere in answers or in the log.
const SECRET: &str = "hunter2SECRET";

struct Cast {
    vault: TestVault,
    node: Caller,
    admin: Caller,
    auditor: Caller,
}

impl Cast {
    fn start() -> Self {
        let vault = without_limits();
        let caller = |who| Caller::new(&vault, who);
        Self { node: caller("participant1"), admin: caller("key-admin"), auditor: caller("auditor"), vault }
    }

    /// What every refusal owes: the status and code, one form, and an entry with the same words.
    async fn assert_refused(&self, what: &str, reply: &Reply, status: u16, code: &str) {
        assert_eq!(reply.outcome(), (status, code.to_owned()), "{what}: {}", reply.text);
        assert_eq!(reply.headers["content-type"], "application/problem+json", "{what}");
        let problem = reply.json();
        let text = |field: &str| problem[field].as_str().unwrap_or_else(|| panic!("{what}: no {field} in {problem}")).to_owned();
        assert_eq!((&problem["retryable"], &problem["status"]), (&json!(false), &json!(status)), "{what}");
        assert_eq!((text("type"), text("request_id").len()), (format!("/docs/errors#{code}"), 32), "{what}");
        assert_eq!(reply.headers["x-request-id"], text("request_id"), "{what}");
        assert!((10..=600).contains(&text("detail").len()) && text("detail").contains(' '), "{what}: {}", text("detail"));
        assert!(!text("title").is_empty() && !text("remedy").is_empty(), "{what}");
        assert!(!reply.text.contains(SECRET), "{what}: {}", reply.text);
        let entries = self.auditor.log("").await;
        let entry = entries.iter().rfind(|entry| entry["request_id"] == problem["request_id"]);
        let entry = entry.unwrap_or_else(|| panic!("{what}: no entry for {}", text("request_id")));
        let outcome = if code == "unknown_node" { "denied" } else { "failed" };
        assert_eq!((&entry["reason"], &entry["outcome"]), (&json!(code), &json!(outcome)), "{what}");
        assert!(!entry.to_string().contains(SECRET), "{what}");
    }
}

#[tokio::test]
async fn requests_that_cannot_be_read() {
    let cast = Cast::start();
    let key = cast.node.signing_key("participant1").await;
    let symmetric = id(&cast.node.create("participant1", "symmetric", "aes-256").await);
    let (sign, decrypt, encrypt) =
        (format!("/v1/keys/{key}/sign"), format!("/v1/keys/{key}/decrypt"), format!("/v1/keys/{symmetric}/encrypt"));
    let bytes = |length: usize| STANDARD.encode(vec![7; length]);
    let deep = format!("{{\"algorithm\":{}1{}}}", "[".repeat(5000), "]".repeat(5000));
    let long_word = "x".repeat(5000);
    let invalid = (400, "invalid_request");
    for (what, method, target, body, (status, code)) in [
        ("no body", "POST", sign.as_str(), String::new(), invalid),
        ("not JSON", "POST", &sign, "algorithm=ed25519".into(), invalid),
        ("JSON cut off", "POST", &sign, r#"{"algorithm":"ed2"#.into(), invalid),
        ("two documents", "POST", &sign, r#"{"algorithm":"ed25519","message":""}{}"#.into(), invalid),
        ("an array for an object", "POST", &sign, r#"["ed25519","aGVsbG8="]"#.into(), invalid),
        ("an array for nothing", "POST", &format!("/v1/keys/{key}/disable"), "[]".into(), invalid),
        ("deep JSON", "POST", &sign, deep, invalid),
        ("a field twice", "POST", &sign, r#"{"algorithm":"ed25519","algorithm":"ed25519","message":""}"#.into(), invalid),
        ("an unknown field", "POST", &sign, r#"{"algorithm":"ed25519","message":"","digest":""}"#.into(), invalid),
        ("a very long unknown field", "POST", &sign, format!(r#"{{"{long_word}":1}}"#), invalid),
        ("a missing field", "POST", &sign, r#"{"algorithm":"ed25519"}"#.into(), invalid),
        ("an unknown algorithm", "POST", &sign, format!(r#"{{"algorithm":"{SECRET}","message":""}}"#), invalid),
        ("a very long algorithm", "POST", &sign, format!(r#"{{"algorithm":"{long_word}","message":""}}"#), invalid),
        ("a number for bytes", "POST", &sign, r#"{"algorithm":"ed25519","message":17}"#.into(), invalid),
        ("base64 without padding", "POST", &sign, r#"{"algorithm":"ed25519","message":"aGVsbG8"}"#.into(), invalid),
        ("base64 of URLs", "POST", &sign, r#"{"algorithm":"ed25519","message":"_-8="}"#.into(), invalid),
        ("hex for base64", "POST", &sign, format!(r#"{{"algorithm":"ed25519","message":"{SECRET}!"}}"#), invalid),
        ("a message too long", "POST", &sign, json!({ "algorithm": "ed25519", "message": bytes(4097) }).to_string(), (413, "too_large")),
        ("a plaintext too long", "POST", &encrypt, json!({ "plaintext": bytes(4097) }).to_string(), (413, "too_large")),
        (
            "a ciphertext too long",
            "POST",
            &decrypt,
            json!({ "algorithm": "rsa-oaep-sha256", "ciphertext": bytes(6145) }).to_string(),
            (413, "too_large"),
        ),
        ("a body too long", "POST", &sign, "x".repeat(64 * 1024 + 1), (413, "too_large")),
        ("a body for a read", "GET", "/v1/keys", r#"{"node":"participant1"}"#.into(), invalid),
        ("an unknown parameter", "GET", "/v1/keys?nodes=participant1", String::new(), invalid),
        ("a bad cursor", "GET", "/v1/keys?cursor=next", String::new(), invalid),
        ("a negative cursor", "GET", "/v1/keys?cursor=-1", String::new(), invalid),
        ("no limit", "GET", "/v1/keys?limit=0", String::new(), invalid),
        ("a limit too high", "GET", "/v1/keys?limit=1001", String::new(), invalid),
        ("a state that is none", "GET", "/v1/keys?state=asleep", String::new(), invalid),
        ("a node that is none", "GET", "/v1/keys?node=a%20b", String::new(), invalid),
        ("a key id that is none", "GET", "/v1/keys/1220abc", String::new(), invalid),
        ("a key id in capitals", "GET", &format!("/v1/keys/1220{}", "A".repeat(64)), String::new(), invalid),
        ("a key id that is no text", "GET", "/v1/keys/%FF%FE", String::new(), invalid),
        ("a few days", "DELETE", &format!("/v1/keys/{key}?days=1"), String::new(), invalid),
        ("an unknown path", "POST", "/v1/keys/x/y/z", String::new(), (404, "no_such_route")),
        ("a path with a slash too many", "GET", "/v1/keys/", String::new(), (404, "no_such_route")),
        ("an unknown step", "POST", &format!("/v1/keys/{key}/steal"), String::new(), (404, "no_such_route")),
        ("a wrong method", "PUT", &sign, String::new(), (405, "method_not_allowed")),
        ("a method that nobody has", "BREW", "/v1/keys", String::new(), (405, "method_not_allowed")),
        ("reading a use", "GET", &sign, String::new(), (405, "method_not_allowed")),
    ] {
        let reply = cast.node.send(method, target, &[], body).await;
        cast.assert_refused(what, &reply, status, code).await;
    }
    for (what, target) in
        [("a time that is none", "/v1/audit/entries?from=yesterday"), ("an operation that is none", "/v1/audit/entries?operation=look")]
    {
        cast.assert_refused(what, &cast.auditor.get(target).await, 400, "invalid_request").await;
    }
    // The longest that fits goes through, and what was refused changed nothing.
    cast.node.post(&sign, &json!({ "algorithm": "ed25519", "message": bytes(4096) })).await.success();
    cast.node.post(&encrypt, &json!({ "plaintext": bytes(4096) })).await.success();
    assert_eq!(cast.node.get(&format!("/v1/keys/{key}")).await.success()["revision"], 1);
}

#[tokio::test]
async fn facts_and_algorithms_that_do_not_go_together() {
    let cast = Cast::start();
    let (invalid, attributes) = ((400, "invalid_request"), (422, "invalid_attributes"));
    let new = |purpose: &str, spec: &str| json!({ "node": "participant1", "purpose": purpose, "spec": spec });
    let with = |field: &str, value: Value| {
        let mut body = new("signing", "ec-curve25519");
        body[field] = value;
        body
    };
    let mut used = new("encryption", "ec-p256");
    used["usage"] = json!(["protocol"]);
    for (what, body, (status, code)) in [
        ("Ed25519 does not encrypt", new("encryption", "ec-curve25519"), attributes),
        ("P-384 does not encrypt", new("encryption", "ec-p384"), attributes),
        ("secp256k1 does not encrypt", new("encryption", "ec-secp256k1"), attributes),
        ("RSA does not sign", new("signing", "rsa-2048"), attributes),
        ("AES does not sign", new("signing", "aes-256"), attributes),
        ("P-256 is not symmetric", new("symmetric", "ec-p256"), attributes),
        ("a usage on an encryption key", used, attributes),
        ("a spec that is none", new("signing", "rsa-4096"), invalid),
        ("a purpose that is none", new("decryption", "ec-p256"), invalid),
        ("a node that is not declared", with("node", json!("participant9")), (422, "unknown_node")),
        ("a node that is the vault's own", with("node", json!("$vault")), (422, "unknown_node")),
        ("a node with a path", with("node", json!("../participant1")), invalid),
        ("no node", with("node", json!("")), invalid),
        ("a name too long", with("name", json!("n".repeat(301))), invalid),
        ("no name", with("name", json!("")), invalid),
        ("a name with a line end", with("name", json!("a\nb")), invalid),
        ("a usage that is none", with("usage", json!(["signing"])), invalid),
        ("a class that is none", with("class", json!("eternal")), invalid),
        ("exportable by a word", with("exportable", json!("no")), invalid),
    ] {
        cast.assert_refused(what, &cast.admin.post("/v1/keys", &body).await, status, code).await;
    }

    let kinds = [
        ("signing", "ec-curve25519", "ed25519"),
        ("signing", "ec-p256", "ecdsa-sha256"),
        ("signing", "ec-p384", "ecdsa-sha384"),
        ("encryption", "ec-p256", "ecies-hkdf-hmac-sha256-aes128-cbc"),
        ("encryption", "rsa-2048", "rsa-oaep-sha256"),
        ("symmetric", "aes-256", "aes-256-gcm"),
    ];
    let some = STANDARD.encode([7; 161]);
    for (purpose, spec, own) in kinds {
        let key = id(&cast.node.create("participant1", purpose, spec).await);
        for (_, _, algorithm) in kinds {
            let unsupported = [
                ("sign", "message", purpose == "signing" && algorithm == own),
                ("decrypt", "ciphertext", purpose != "signing" && algorithm == own),
                ("encrypt", "plaintext", purpose == "symmetric" && algorithm == own),
            ];
            for (verb, field, supported) in unsupported {
                let reply = cast.node.post(&format!("/v1/keys/{key}/{verb}"), &json!({ "algorithm": algorithm, field: some })).await;
                let what = format!("{verb} by {algorithm} with an {purpose} key of {spec}");
                match (supported, verb) {
                    (true, "decrypt") => cast.assert_refused(&what, &reply, 422, "decryption_failed").await,
                    (true, _) => drop(reply.success()),
                    (false, _) => cast.assert_refused(&what, &reply, 422, "unsupported_algorithm").await,
                }
            }
        }
    }
}

/// Every failure gives the same document, so that a caller does not learn how far the vault got.
#[tokio::test]
async fn every_failed_decryption_gives_the_same_document() {
    let cast = Cast::start();
    let mut documents = std::collections::BTreeSet::new();
    let flip = |bytes: &[u8], at: usize| {
        let mut bytes = bytes.to_vec();
        bytes[at] ^= 1;
        bytes
    };
    for (purpose, spec, algorithm) in [
        ("encryption", "ec-p256", "ecies-hkdf-hmac-sha256-aes128-cbc"),
        ("encryption", "rsa-2048", "rsa-oaep-sha256"),
        ("symmetric", "aes-256", "aes-256-gcm"),
    ] {
        let key = cast.node.create("participant1", purpose, spec).await;
        let spki = || unbase64(key["public_key"].as_str().unwrap());
        let encrypt = format!("/v1/keys/{}/encrypt", id(&key));
        let good = match spec {
            "ec-p256" => encrypt_to(&spki(), b"plain", &SystemRandom::default()).unwrap(),
            "rsa-2048" => oaep(&spki(), b"plain"),
            _ => unbase64(cast.node.post(&encrypt, &json!({ "plaintext": "cGxhaW4=" })).await.success()["ciphertext"].as_str().unwrap()),
        };
        let last = good.len() - 1;
        let mut bad = vec![vec![], vec![4], good[..last].to_vec(), [&good[..], &[0]].concat(), vec![0; good.len()], vec![255; good.len()]];
        bad.extend([0, 16, last].map(|at| flip(&good, at)));
        if spec == "ec-p256" {
            // The MAC does not cover the IV: this one fails at the padding alone. Then a point off the curve, and no block at all.
            bad.extend([flip(&good, 15), flip(&good, 17 + 32), good[..113].to_vec()]);
            bad.retain(|bytes| *bytes != flip(&good, 0));
        }
        for ciphertext in bad {
            let body = json!({ "algorithm": algorithm, "ciphertext": STANDARD.encode(&ciphertext) });
            let reply = cast.node.post(&format!("/v1/keys/{}/decrypt", id(&key)), &body).await;
            cast.assert_refused(spec, &reply, 422, "decryption_failed").await;
            let mut document = reply.json();
            document["request_id"].take();
            documents.insert(document.to_string());
        }
    }
    assert_eq!(documents.len(), 1, "{documents:#?}");
}

#[tokio::test]
async fn material_that_is_no_key_of_the_vault() {
    let cast = Cast::start();
    let p256 = ec_key("P-256");
    let splice = |into: &[u8], tail: &[u8]| [&into[..into.len() - tail.len()], tail].concat();
    let (mut off_curve, other) = (p256.clone(), ec_key("P-256"));
    *off_curve.last_mut().unwrap() ^= 1;
    let scalar = |value: [u8; 32]| [&p256[..36], &value, &p256[68..]].concat();
    let pem = |key: &[u8]| openssl(&["pkey", "-inform", "DER"], key);
    let rsa = |bits: &str| genpkey(&["RSA", "-pkeyopt", &format!("rsa_keygen_bits:{bits}")]);
    let rsa_2048 = rsa("2048");
    let canton = unhex("0ac0010aa701202122232425262728292a2bd8d8dec1");
    let material = (422, "invalid_material");
    let attributes = (422, "invalid_attributes");
    for (what, format, material, purpose, (status, code)) in [
        ("nothing", "pkcs8", vec![], "signing", material),
        ("PEM", "pkcs8", pem(&p256), "signing", material),
        ("SEC1", "pkcs8", openssl(&["ec", "-outform", "DER"], &pem(&p256)), "signing", material),
        ("PKCS#1", "pkcs8", openssl(&["rsa", "-traditional", "-outform", "DER"], &pem(&rsa_2048)), "encryption", material),
        ("SPKI", "pkcs8", openssl(&["pkey", "-inform", "DER", "-pubout", "-outform", "DER"], &p256), "signing", material),
        (
            "encrypted PKCS#8",
            "pkcs8",
            openssl(&["pkcs8", "-topk8", "-outform", "DER", "-passout", "pass:secret"], &pem(&p256)),
            "signing",
            material,
        ),
        ("X25519", "pkcs8", genpkey(&["X25519"]), "encryption", material),
        ("Ed448", "pkcs8", genpkey(&["ED448"]), "signing", material),
        ("P-521", "pkcs8", ec_key("P-521"), "signing", material),
        ("a public key of another key", "pkcs8", splice(&p256, &other[other.len() - 65..]), "signing", material),
        ("a public key off the curve", "pkcs8", off_curve, "signing", material),
        ("scalar 0", "pkcs8", scalar([0; 32]), "signing", material),
        ("a scalar beyond the order", "pkcs8", scalar([255; 32]), "signing", material),
        ("bytes after the key", "pkcs8", [&p256[..], &[0]].concat(), "signing", material),
        ("a key cut off", "pkcs8", p256[..p256.len() - 1].to_vec(), "signing", material),
        ("RSA-1024", "pkcs8", rsa("1024"), "encryption", material),
        ("RSA-3072", "pkcs8", rsa("3072"), "encryption", material),
        (
            "RSA with exponent 3",
            "pkcs8",
            genpkey(&["RSA", "-pkeyopt", "rsa_keygen_bits:2048", "-pkeyopt", "rsa_keygen_pubexp:3"]),
            "encryption",
            material,
        ),
        ("RSA for signing", "pkcs8", rsa_2048, "signing", material),
        ("Ed25519 for encryption", "pkcs8", genpkey(&["ED25519"]), "encryption", material),
        ("a short symmetric key", "raw", vec![1; 31], "symmetric", material),
        ("a long symmetric key", "raw", vec![1; 33], "symmetric", material),
        ("raw bytes for signing", "raw", vec![1; 32], "signing", attributes),
        ("PKCS#8 as a Canton file", "canton-key-pair", p256.clone(), "signing", material),
        ("half a Canton file", "canton-key-pair", canton, "signing", material),
        ("text as a Canton file", "canton-key-pair", SECRET.into(), "signing", material),
    ] {
        let encoded = STANDARD.encode(&material);
        let body = json!({ "node": "participant1", "format": format, "material": encoded, "purpose": purpose });
        let reply = cast.admin.post("/v1/keys/import", &body).await;
        cast.assert_refused(what, &reply, status, code).await;
        assert!(encoded.is_empty() || !reply.text.contains(&encoded), "{what}");
    }
    let with = |more: Value| {
        let mut body = json!({ "node": "participant1", "format": "pkcs8", "material": STANDARD.encode(&p256) });
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        body
    };
    for (what, body, (status, code)) in [
        ("a key that does not say what it is for", with(json!({})), attributes),
        ("a password for PKCS#8", with(json!({ "purpose": "signing", "password": SECRET })), attributes),
        ("a password that is a number", with(json!({ "password": 17 })), (400, "invalid_request")),
        ("a secret as the format", with(json!({ "format": SECRET })), (400, "invalid_request")),
        ("a secret as material", with(json!({ "material": format!("{SECRET}!") })), (400, "invalid_request")),
        ("usages of an encryption key", with(json!({ "purpose": "encryption", "usage": ["protocol"] })), attributes),
        ("an undeclared node", with(json!({ "node": "participant9", "purpose": "signing" })), (422, "unknown_node")),
    ] {
        cast.assert_refused(what, &cast.admin.post("/v1/keys/import", &body).await, status, code).await;
    }
    assert_eq!(cast.admin.get("/v1/keys").await.success()["items"], json!([]), "nothing came in");
    assert!(!cast.vault.log().iter().any(|line| line.to_string().contains(SECRET)), "nor does the log quote it");
}

#[tokio::test]
async fn the_type_of_every_problem_leads_to_its_code() {
    let vault = TestVault::start();
    let caller = Caller::new(&vault, "participant1");
    for CodeInfo { code, .. } in CODES {
        let kind = Problem::new(*code, "", "").kind;
        let (page, anchor) = kind.split_once('#').unwrap();
        let page = caller.get(page).await;
        assert_eq!((page.status, page.headers["content-type"].to_str().unwrap()), (200, "text/html; charset=utf-8"), "{kind}");
        assert_eq!(page.text.matches(&format!(" id=\"{anchor}\"")).count(), 1, "{kind}");
    }
}
