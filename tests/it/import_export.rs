//! Import and export through the API in every format of Canton and PKCS#8, checked by independent code.

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use canton_keyvault::crypto::{SystemRandom, ecies_sender::encrypt_to};
use serde_json::{Value, json};

use crate::{
    known_bytes::{unbase64, unhex},
    support::{
        api::{Caller, Reply, id},
        openssl::{assert_verifies, ec_key, genpkey, oaep, public_key},
        vault::TestVault,
    },
};

fn vectors() -> Value {
    serde_json::from_str(include_str!("../vectors/canton.json")).unwrap()
}

fn hex_of(value: &Value) -> Vec<u8> {
    unhex(value.as_str().unwrap())
}

/// An import into `participant1`, with more fields.
fn import(format: &str, material: &[u8], more: &Value) -> Value {
    let mut body = json!({ "node": "participant1", "format": format, "material": STANDARD.encode(material) });
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    body
}

fn bytes(answer: &Value, field: &str) -> Vec<u8> {
    unbase64(answer[field].as_str().unwrap_or_else(|| panic!("no {field} in {answer}")))
}

struct Cast {
    vault: TestVault,
    node: Caller,
    admin: Caller,
}

impl Cast {
    fn start() -> Self {
        let vault = TestVault::start();
        let (node, admin) = (Caller::new(&vault, "participant1"), Caller::new(&vault, "key-admin"));
        Self { vault, node, admin }
    }

    async fn import(&self, body: &Value) -> Reply {
        self.admin.post("/v1/keys/import", body).await
    }

    async fn brought(&self, body: &Value) -> Value {
        let reply = self.import(body).await;
        assert_eq!(reply.status, 201, "{}", reply.text);
        assert_eq!(reply.json()["origin"], "imported");
        reply.json()
    }

    async fn sign(&self, key: &Value, algorithm: &str, message: &[u8]) -> Value {
        let body = json!({ "algorithm": algorithm, "message": STANDARD.encode(message) });
        self.node.post(&format!("/v1/keys/{}/sign", id(key)), &body).await.success()
    }

    async fn decrypt(&self, key: &Value, algorithm: &str, ciphertext: &[u8]) -> Vec<u8> {
        let body = json!({ "algorithm": algorithm, "ciphertext": STANDARD.encode(ciphertext) });
        bytes(&self.node.post(&format!("/v1/keys/{}/decrypt", id(key)), &body).await.success(), "plaintext")
    }

    /// Signs and has it verified elsewhere.
    async fn assert_signs(&self, key: &Value, algorithm: &str, hash: Option<&str>) {
        let answer = self.sign(key, algorithm, b"a message").await;
        assert_eq!(answer["signature_format"], if algorithm == "ed25519" { "concat" } else { "der" });
        assert_verifies(&bytes(key, "public_key"), hash, b"a message", &bytes(&answer, "signature"));
    }
}

#[tokio::test]
async fn every_form_of_a_canton_signing_key_gives_its_fingerprint_and_signs() {
    let vectors = vectors();
    let (made, node1) = (&vectors["constructed"], &vectors["verified"]["ed25519_keypairs"][0]);
    let whole = hex_of(&made["key_pair_export"]["hex"]);
    let usages = json!(["proof-of-ownership", "protocol"]);
    let none = json!({});
    let password = json!({ "password": made["password_export"]["password"] });
    for (form, body) in [
        ("3.4 to 3.6", import("canton-key-pair", &whole, &none)),
        ("3.3", import("canton-key-pair", &hex_of(&made["key_pair_export_3_3"]["hex"]), &none)),
        ("bare message", import("canton-key-pair", &whole[3..whole.len() - 2], &none)),
        ("private key message", import("canton-key-pair", &hex_of(&made["store_data_column"]["hex"]), &none)),
        ("with password", import("canton-key-pair", &hex_of(&made["password_export"]["file_hex"]), &password)),
        ("PKCS#8", import("pkcs8", &hex_of(&node1["pkcs8_hex"]), &json!({ "usage": ["protocol", "proof-of-ownership"] }))),
    ] {
        let cast = Cast::start();
        let key = cast.brought(&body).await;
        assert_eq!((&key["id"], &key["usage"]), (&node1["fingerprint"], &usages), "{form}");
        assert_eq!((&key["spec"], &key["purpose"], &key["class"]), (&json!("ec-curve25519"), &json!("signing"), &json!("long-term")));
        assert_eq!(bytes(&key, "public_key"), hex_of(&node1["spki_hex"]), "{form}");
        cast.assert_signs(&key, "ed25519", None).await;
        // What is there already stays as it is; other facts are another key's.
        let again = cast.import(&body).await;
        assert_eq!((again.status, again.json()), (200, cast.admin.get(&format!("/v1/keys/{}", id(&key))).await.success()), "{form}");
        for (fact, other) in
            [("node", json!("participant2")), ("class", json!("permanent")), ("exportable", json!(true)), ("usage", json!([]))]
        {
            let mut body = body.clone();
            body[fact] = other;
            cast.import(&body).await.refused(409, "key_exists");
        }
    }
}

#[tokio::test]
async fn keys_of_openssl_come_in_and_their_signatures_verify_there() {
    let cast = Cast::start();
    let node2 = &vectors()["verified"]["ed25519_keypairs"][1];
    let key = cast.brought(&import("pkcs8", &hex_of(&node2["pkcs8_hex"]), &json!({ "usage": ["namespace"] }))).await;
    assert_eq!((&key["id"], &key["class"]), (&node2["fingerprint"], &json!("permanent")));
    cast.assert_signs(&key, "ed25519", None).await;
    let signing = json!({ "purpose": "signing" });
    for (curve, spec, algorithm, hash) in [
        ("P-256", "ec-p256", "ecdsa-sha256", "sha256"),
        ("P-384", "ec-p384", "ecdsa-sha384", "sha384"),
        ("secp256k1", "ec-secp256k1", "ecdsa-sha256", "sha256"),
    ] {
        let pkcs8 = ec_key(curve);
        let key = cast.brought(&import("pkcs8", &pkcs8, &signing)).await;
        assert_eq!((&key["spec"], bytes(&key, "public_key")), (&json!(spec), public_key(&pkcs8)));
        cast.assert_signs(&key, algorithm, Some(hash)).await;
        let made = cast.node.create("participant1", "signing", spec).await;
        cast.assert_signs(&made, algorithm, Some(hash)).await;
    }
    let pkcs8 = genpkey(&["ED25519"]);
    cast.assert_signs(&cast.brought(&import("pkcs8", &pkcs8, &signing)).await, "ed25519", None).await;
}

#[tokio::test]
async fn a_ciphertext_from_outside_decrypts() {
    let mut cast = Cast::start();
    let vector = &vectors()["constructed"]["ecies_cbc"];
    let ecies = cast.brought(&import("pkcs8", &hex_of(&vector["recipient_pkcs8_hex"]), &json!({ "purpose": "encryption" }))).await;
    assert_eq!(bytes(&ecies, "public_key"), hex_of(&vector["recipient_spki_hex"]));
    let rsa = cast.brought(&import("pkcs8", &genpkey(&["RSA", "-pkeyopt", "rsa_keygen_bits:2048"]), &json!({}))).await;
    assert_eq!((&rsa["spec"], &rsa["purpose"]), (&json!("rsa-2048"), &json!("encryption")));
    let made_rsa = cast.node.create("participant1", "encryption", "rsa-2048").await;
    let made_ecies = cast.node.create("participant1", "encryption", "ec-p256").await;
    for _ in 0..2 {
        let name = "ecies-hkdf-hmac-sha256-aes128-cbc";
        assert_eq!(cast.decrypt(&ecies, name, &hex_of(&vector["ciphertext_hex"])).await, hex_of(&vector["plaintext_hex"]));
        for key in [&rsa, &made_rsa] {
            assert_eq!(cast.decrypt(key, "rsa-oaep-sha256", &oaep(&bytes(key, "public_key"), b"view key")).await, b"view key");
        }
        let ciphertext = encrypt_to(&bytes(&made_ecies, "public_key"), b"view key", &SystemRandom::default()).unwrap();
        assert_eq!(cast.decrypt(&made_ecies, name, &ciphertext).await, b"view key");
        cast.vault.restart();
        cast.node = Caller::new(&cast.vault, "participant1");
    }
}

#[tokio::test]
async fn a_raw_symmetric_key_comes_in_and_its_ciphertexts_open_outside() {
    let cast = Cast::start();
    let (raw, other) = ([0x5a; 32], [0x5b; 32]);
    let key = cast.brought(&import("raw", &raw, &json!({ "exportable": true }))).await;
    assert!(id(&key).starts_with("sym-") && key["public_key"].is_null());
    let sealed = cast.node.post(&format!("/v1/keys/{}/encrypt", id(&key)), &json!({ "plaintext": STANDARD.encode("plain") })).await;
    let sealed = bytes(&sealed.success(), "ciphertext");
    assert_eq!(cast.decrypt(&key, "aes-256-gcm", &sealed).await, b"plain");
    // 0x01 ‖ nonce(12) ‖ ciphertext ‖ tag, AAD = key id.
    let open = |raw: &[u8], aad: &str| {
        let key = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, raw).unwrap());
        let mut buffer = sealed[13..].to_vec();
        let nonce = Nonce::try_assume_unique_for_key(&sealed[1..13]).unwrap();
        key.open_in_place(nonce, Aad::from(aad), &mut buffer).map(|plain| plain.to_vec())
    };
    assert_eq!((sealed[0], open(&raw, &id(&key)).unwrap()), (1, b"plain".to_vec()));
    assert!(open(&raw, "sym-other").is_err() && open(&other, &id(&key)).is_err());
    // Its id tells nothing of the key: the same bytes again are another key.
    let again = cast.brought(&import("raw", &raw, &json!({}))).await;
    assert_ne!(again["id"], key["id"]);
    let exported = Caller::new(&cast.vault, "exporter").post(&format!("/v1/keys/{}/export", id(&key)), &json!({ "format": "raw" })).await;
    assert_eq!(bytes(&exported.success(), "material"), raw);
}

#[tokio::test]
async fn an_exported_key_is_imported_into_another_vault_as_the_same_key() {
    let (here, there) = (Cast::start(), Cast::start());
    let exporter = Caller::new(&here.vault, "exporter");
    for (purpose, spec, algorithm, hash) in [
        ("signing", "ec-curve25519", "ed25519", None),
        ("signing", "ec-p256", "ecdsa-sha256", Some("sha256")),
        ("signing", "ec-p384", "ecdsa-sha384", Some("sha384")),
        ("signing", "ec-secp256k1", "ecdsa-sha256", Some("sha256")),
        ("encryption", "ec-p256", "ecies-hkdf-hmac-sha256-aes128-cbc", None),
        ("encryption", "rsa-2048", "rsa-oaep-sha256", None),
    ] {
        let usage = if purpose == "signing" { json!(["protocol"]) } else { json!([]) };
        let new = json!({ "node": "participant1", "purpose": purpose, "spec": spec, "usage": usage, "exportable": true });
        let key = here.admin.post("/v1/keys", &new).await.success();
        let path = format!("/v1/keys/{}/export", id(&key));
        for (nth, (format, password)) in
            [("pkcs8", None), ("canton-key-pair", None), ("canton-key-pair", Some("päss word"))].into_iter().enumerate()
        {
            let mut how = json!({ "format": format });
            let mut more = json!({ "purpose": purpose, "usage": usage });
            if let Some(password) = password {
                (how["password"], more["password"]) = (json!(password), json!(password));
            }
            let went_out = exporter.post(&path, &how).await.success();
            assert_eq!(went_out["format"], format);
            let material = bytes(&went_out, "material");
            if format == "pkcs8" {
                assert_eq!(public_key(&material), bytes(&key, "public_key"), "{spec}");
            }
            let arrived = there.import(&import(format, &material, &more)).await;
            assert_eq!(arrived.status, if nth == 0 { 201 } else { 200 }, "{spec} {format}: {}", arrived.text);
            assert_eq!((&arrived.json()["id"], &arrived.json()["exportable"]), (&key["id"], &json!(false)), "{spec} {format}");
            if password.is_some() {
                more.as_object_mut().unwrap().remove("password");
                there.import(&import(format, &material, &more)).await.refused(422, "invalid_material");
                more["password"] = json!("another");
                there.import(&import(format, &material, &more)).await.refused(422, "invalid_material");
            }
        }
        match purpose {
            "signing" => there.assert_signs(&key, algorithm, hash).await,
            _ if spec == "rsa-2048" => {
                assert_eq!(there.decrypt(&key, algorithm, &oaep(&bytes(&key, "public_key"), b"plain")).await, b"plain");
            }
            _ => {
                let ciphertext = encrypt_to(&bytes(&key, "public_key"), b"plain", &SystemRandom::default()).unwrap();
                assert_eq!(there.decrypt(&key, algorithm, &ciphertext).await, b"plain");
            }
        }
    }
}

#[tokio::test]
async fn a_key_that_is_not_exportable_is_not_exported() {
    let cast = Cast::start();
    let exporter = Caller::new(&cast.vault, "exporter");
    let key = cast.node.signing_key("participant1").await;
    let imported = cast.brought(&import("raw", &[1; 32], &json!({}))).await;
    for (key, format) in [(key, "pkcs8"), (id(&imported), "raw")] {
        exporter.post(&format!("/v1/keys/{key}/export"), &json!({ "format": format })).await.refused(409, "not_exportable");
    }
    let new = json!({ "node": "participant1", "purpose": "signing", "spec": "ec-curve25519", "exportable": true });
    cast.node.post("/v1/keys", &new).await.refused(403, "forbidden");
    let key = cast.admin.post("/v1/keys", &new).await.success();
    let path = format!("/v1/keys/{}/export", id(&key));
    exporter.post(&path, &json!({ "format": "raw" })).await.refused(422, "invalid_attributes");
    exporter.post(&path, &json!({ "format": "pkcs8", "password": "x" })).await.refused(422, "invalid_attributes");
    // Its successor was made here and stays here.
    let successor = cast.node.step(&id(&key), "rotate").await.success();
    exporter.post(&format!("/v1/keys/{}/export", id(&successor)), &json!({ "format": "pkcs8" })).await.refused(409, "not_exportable");
}

#[tokio::test]
async fn an_idempotency_key_means_one_key_for_one_body_of_one_principal() {
    let mut cast = Cast::start();
    let new = json!({ "node": "participant1", "purpose": "signing", "spec": "ec-curve25519", "name": "one" });
    let first = cast.node.once("/v1/keys", "k-1", &new).await.success();
    cast.vault.restart();
    (cast.node, cast.admin) = (Caller::new(&cast.vault, "participant1"), Caller::new(&cast.vault, "key-admin"));
    let again = cast.node.once("/v1/keys", "k-1", &new).await;
    assert_eq!((again.status, again.json()), (201, first.clone()));
    let mut other = new.clone();
    other["name"] = json!("two");
    cast.node.once("/v1/keys", "k-1", &other).await.refused(409, "idempotency_mismatch");
    assert_ne!(cast.node.once("/v1/keys", "k-2", &new).await.success()["id"], first["id"]);
    assert_ne!(cast.admin.once("/v1/keys", "k-1", &new).await.success()["id"], first["id"], "another principal's key is its own");
    for bad in ["", "two words", &"x".repeat(256)] {
        cast.node.once("/v1/keys", bad, &new).await.refused(400, "invalid_request");
    }

    let rotate = format!("/v1/keys/{}/rotate", id(&first));
    let successor = cast.node.once(&rotate, "k-1", &json!({})).await.success();
    assert_eq!(cast.node.once(&rotate, "k-1", &json!({})).await.success()["id"], successor["id"]);
    cast.node.once(&rotate, "k-1", &json!({ "name": "x" })).await.refused(409, "idempotency_mismatch");

    // The same facts with other material are another body, although no hash of the material is kept.
    for (one, two, format) in [([1; 32].to_vec(), [2; 32].to_vec(), "raw"), (genpkey(&["ED25519"]), genpkey(&["ED25519"]), "pkcs8")] {
        let more = json!({ "exportable": true });
        let key = cast.admin.once("/v1/keys/import", format, &import(format, &one, &more)).await.success();
        let again = cast.admin.once("/v1/keys/import", format, &import(format, &one, &more)).await;
        assert_eq!((again.status, again.json()), (201, key.clone()));
        cast.admin.once("/v1/keys/import", format, &import(format, &two, &more)).await.refused(409, "idempotency_mismatch");
        cast.admin.step(&id(&key), "disable").await.success();
        cast.admin.once("/v1/keys/import", format, &import(format, &two, &more)).await.refused(409, "idempotency_mismatch");
        assert_eq!(cast.admin.once("/v1/keys/import", format, &import(format, &one, &more)).await.success()["state"], "disabled");
    }
}
