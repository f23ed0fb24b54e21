//! Tables of text: the width of the output, and that what a table shows is taken back.

use serde_json::{Value, json};

use super::{
    PAIR, assert_done,
    fake::{FakeVault, Reply},
    text,
};

const NAME: &str = "participant1-signing-key-of-the-first-synchronizer";

/// A fake whose lists have long values.
fn vault() -> FakeVault {
    FakeVault::start(|seen| {
        let path = seen.target.split('?').next().unwrap();
        let item = match path.rsplit('/').next().unwrap() {
            "keys" => json!({ "id": PAIR, "node": "participant1", "name": NAME, "purpose": "signing", "spec": "ec-curve25519",
                "usage": ["namespace", "protocol"], "class": "permanent", "state": "pending-deletion" }),
            "wrapper-keys" => json!({ "id": "wk-001122334455", "provider": "openbao-transit", "state": "active", "health": "available",
                "keys": 12_345, "left": 0, "regions": ["eu-central-1", "eu-west-1"], "created_at": "2026-01-31T12:00:00.123456Z",
                "reference": "arn:aws:kms:eu-central-1:111122223333:key/mrk-0123456789abcdef0123456789abcdef" }),
            "rotations" | "reseals" => {
                json!({ "id": "job-001122334455", "state": "succeeded", "total": 12_345, "done": 12_345, "failed": 0,
                "started_at": "2026-01-31T12:00:00.123456Z", "finished_at": "2026-01-31T13:00:00.123456Z" })
            }
            _ => json!({ "sequence": 123_456, "at": "2026-01-31T12:00:00.123456Z", "principal": "spiffe://example.org/canton/participant1",
                "operation": "keys.sign-topology", "outcome": "denied", "reason": "no-grant", "node": "participant1", "key_id": PAIR,
                "calls": 1_234, "entries": 1_234, "first_at": "2026-01-31T12:00:00.123456Z", "last_at": "2026-01-31T12:00:00.123456Z" }),
        };
        Reply::Json(200, json!({ "items": [item], "next_cursor": null, "counted_to": 1, "complete": true }))
    })
}

#[test]
fn no_table_is_wider_than_80_characters_unless_it_is_asked_for() {
    let vault = vault();
    for line in [
        "keys list",
        "wrapper list",
        "wrapper rotation list",
        "keys reseal-job list",
        "audit query --limit 1",
        "audit summary --by principal,operation",
    ] {
        let output = vault.run(line);
        assert_done(line, &output);
        let table = text(&output.stdout);
        assert_eq!(table.lines().count(), 2, "{line}:\n{table}");
        assert!(table.lines().all(|row| row.chars().count() <= 80), "{line}:\n{table}");
        let wide = vault.run(&format!("{line} --wide"));
        let wide = text(&wide.stdout);
        assert!(wide.lines().all(|row| !row.contains('…')) && wide.len() > table.len(), "{line}:\n{wide}");
    }
    let wide = vault.run("keys list --wide");
    for value in [PAIR, NAME, "namespace,protocol", "permanent"] {
        assert!(text(&wide.stdout).contains(value), "{}", text(&wide.stdout));
    }
    // JSON is never shortened.
    let list: Value = serde_json::from_slice(&vault.run("keys list --output json").stdout).unwrap();
    assert_eq!((&list["items"][0]["id"], &list["items"][0]["name"]), (&json!(PAIR), &json!(NAME)));
}

#[test]
fn the_id_in_a_table_is_taken_back() {
    let vault = vault();
    for line in ["keys list", "audit query --limit 1"] {
        let output = vault.run(line);
        let shown = text(&output.stdout).split_whitespace().find(|word| word.starts_with("1220")).unwrap().to_owned();
        assert!(shown.len() < PAIR.len(), "{shown}");
        vault.take_seen();
        assert_done(&shown, &vault.run(&format!("keys disable {shown}")));
        let seen = vault.take_seen();
        assert_eq!(seen[0].target, format!("/v1/keys?key={shown}"));
        assert_eq!(seen[1].target, format!("/v1/keys/{PAIR}/disable"));
    }
}
