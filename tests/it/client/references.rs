//! Keys by name and by the beginning of the id: which calls are made, what is ambiguous, and what the refusal says.

use serde_json::{Value, json};

use super::{
    PAIR, SYMMETRIC, agreeable, assert_done,
    fake::{FakeVault, Reply, Seen},
    problem, text,
};

const OTHER: &str = "1220a63d079a00000000000000000000000000000000000000000000000000000000";
const WRAPPER_KEYS: [&str; 2] = ["wk-001122334455", "wk-001133334455"];

fn key(id: &str, name: &str, state: &str) -> Value {
    json!({ "id": id, "node": "participant1", "name": name, "state": state })
}

/// A fake with two keys that have a name and 12 characters of the id in common, a destroyed key, and two wrapper keys, on pages of one item.
fn vault() -> FakeVault {
    FakeVault::start(|seen: &Seen| {
        let (path, query) = seen.target.split_once('?').unwrap_or((&seen.target, ""));
        let items: Vec<Value> = match (seen.method.as_str(), path) {
            ("GET", "/v1/keys") => {
                let all = [key(PAIR, "orders", "active"), key(OTHER, "twice", "active"), key(SYMMETRIC, "orders", "destroyed")];
                let gone = [key(SYMMETRIC, "twice", "active"), key(SYMMETRIC, "gone", "destroyed")];
                let of = |name: &str| query.split('&').find_map(|pair| pair.strip_prefix(name)).map(str::to_owned);
                let matches = |key: &Value| match (of("name="), of("key=")) {
                    (Some(name), _) => key["name"] == name.as_str(),
                    (_, Some(start)) => key["id"].as_str().unwrap().starts_with(&start) || key["name"] == start.as_str(),
                    _ => true,
                };
                all.into_iter().chain(gone).filter(matches).collect()
            }
            ("GET", "/v1/wrapper-keys") => WRAPPER_KEYS
                .map(|id| json!({ "id": id, "name": format!("of-{}", &id[7..9]), "state": "standby", "reference": "file" }))
                .into(),
            _ => return agreeable(seen),
        };
        let at: usize = query.split('&').find_map(|pair| pair.strip_prefix("cursor=")).map_or(0, |cursor| cursor.parse().unwrap());
        let next = (at + 1 < items.len()).then(|| (at + 1).to_string());
        Reply::Json(200, json!({ "items": items.get(at).into_iter().collect::<Vec<_>>(), "next_cursor": next }))
    })
}

/// The last call, after those that looked the key up.
fn last_call(vault: &FakeVault, line: &str) -> String {
    assert_done(line, &vault.run(line));
    let seen = vault.take_seen();
    let (last, before) = seen.split_last().unwrap();
    assert!(before.iter().all(|seen| seen.method == "GET" && seen.target.contains("keys")), "{line}: {before:?}");
    format!("{} {}", last.method, last.target)
}

#[test]
fn every_command_about_a_key_takes_its_name_and_the_beginning_of_its_id() {
    let vault = vault();
    std::fs::write(vault.file("messages"), "AQI=\n").unwrap();
    for (line, method, rest) in [
        ("keys show KEY", "GET", ""),
        ("keys sign KEY --algorithm ed25519 --message-text x", "POST", "/sign"),
        ("keys decrypt KEY --algorithm rsa-oaep-sha256 --ciphertext-hex 00 --out -", "POST", "/decrypt"),
        ("keys encrypt KEY --plaintext-file messages", "POST", "/encrypt"),
        ("keys export KEY --format pkcs8 --out -", "POST", "/export"),
        ("keys verify KEY", "POST", "/verify"),
        ("keys enable KEY", "POST", "/enable"),
        ("keys disable KEY", "POST", "/disable"),
        ("keys rotate KEY", "POST", "/rotate"),
        ("keys supersede KEY --yes", "POST", "/supersede"),
        ("keys restrict-signing KEY --lift", "POST", "/signing-restriction"),
        ("keys delete KEY --yes", "DELETE", ""),
        ("keys withdraw KEY --yes", "POST", "/withdraw"),
        ("keys cancel-deletion KEY", "POST", "/cancel-deletion"),
        ("keys rename KEY other", "POST", "/name"),
        ("keys reseal KEY", "POST", "/reseal"),
    ] {
        // The destroyed key with the same name does not count.
        for reference in ["orders", "1220a63d079ae", PAIR] {
            let line = line.replace("KEY", reference);
            assert_eq!(last_call(&vault, &line), format!("{method} /v1/keys/{PAIR}{rest}"), "{line}");
        }
    }
    assert_eq!(last_call(&vault, "keys show gone"), format!("GET /v1/keys/{SYMMETRIC}"), "nothing else has the name");
    assert_done("authorize", &vault.run("authorize --operation keys.sign --key-id orders"));
    assert_eq!(vault.take_seen().last().unwrap().body["key_id"], PAIR);
    for (line, call) in [
        ("wrapper show wk-0011223", "GET /v1/wrapper-keys/wk-001122334455"),
        ("wrapper show of-22", "GET /v1/wrapper-keys/wk-001122334455"),
        ("wrapper rename of-22 central", "POST /v1/wrapper-keys/wk-001122334455/name"),
        ("wrapper retire wk-0011223 --yes", "POST /v1/wrapper-keys/wk-001122334455/retire"),
        ("wrapper replicate wk-0011223 --region eu-west-1", "POST /v1/wrapper-keys/wk-001122334455/replicas"),
        ("audit query --wrapper-key wk-00113 --limit 1", "GET /v1/audit/entries?wrapper_key=wk-001133334455&limit=1"),
    ] {
        assert_eq!(last_call(&vault, line), call, "{line}");
    }
    assert_done("rotation", &vault.run("wrapper rotation start --to wk-00113"));
    assert_eq!(vault.take_seen().last().unwrap().body["to"], WRAPPER_KEYS[1]);
}

#[test]
fn what_is_not_clear_is_refused_with_the_candidates_and_nothing_is_done() {
    let vault = vault();
    for (line, code, told) in [
        ("keys delete twice --yes", "ambiguous", vec![OTHER, SYMMETRIC, "2 keys"]),
        ("keys sign 1220a63d079a --algorithm ed25519 --message-text x", "ambiguous", vec![PAIR, OTHER]),
        ("keys disable nobody", "not_found", vec!["nobody", "keys list"]),
        ("keys disable 1220a6", "not_found", vec!["12 characters"]),
        ("wrapper retire wk-0011 --yes", "ambiguous", vec![WRAPPER_KEYS[0], WRAPPER_KEYS[1], "2 wrapper keys"]),
        ("wrapper show of-12", "not_found", vec!["of-12", "wrapper list"]),
        ("wrapper show wk-9999", "not_found", vec!["wk-9999", "wrapper list"]),
    ] {
        let output = vault.run(&format!("{line} --output json"));
        assert_eq!(output.status.code(), Some(1), "{line}: {}", text(&output.stderr));
        let document: Value = serde_json::from_slice(&output.stderr).unwrap();
        assert_eq!(document["code"], code, "{line}");
        for part in told {
            assert!(document["detail"].as_str().unwrap().contains(part), "{line}: {document}");
        }
        assert!(vault.take_seen().iter().all(|seen| seen.method == "GET"), "{line}");
    }
}

#[test]
fn who_may_not_list_keys_is_told_to_write_the_whole_id() {
    let vault = FakeVault::start(|seen| if seen.method == "GET" { problem(403, "forbidden", false) } else { agreeable(seen) });
    let output = vault.run("keys export orders --format pkcs8 --out -");
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("write the full id"), "{}", text(&output.stderr));
    let line = format!("keys export {PAIR} --format pkcs8 --out -");
    assert_done(&line, &vault.run(&line));
}

#[test]
fn all_keys_are_verified_and_the_list_says_which_do_not_open() {
    let vault = FakeVault::start(|seen| match (seen.method.as_str(), seen.target.split('?').next().unwrap()) {
        ("GET", _) => Reply::Json(
            200,
            json!({ "items": [key(PAIR, "orders", "active"), key(OTHER, "bad", "active"), key(SYMMETRIC, "x", "destroyed")], "next_cursor": null }),
        ),
        ("POST", path) if path.contains(OTHER) => problem(409, "key_quarantined", false),
        _ => Reply::Json(200, json!({ "key_id": PAIR, "state": "disabled", "wrapper_key": WRAPPER_KEYS[0] })),
    });
    let output = vault.run("keys verify --all --node participant1 --output json");
    assert_eq!(output.status.code(), Some(1), "{}", text(&output.stderr));
    let list: Value = serde_json::from_slice(&output.stdout).unwrap();
    let items = list["items"].as_array().unwrap();
    assert_eq!(items.len(), 2, "a destroyed key has nothing to verify");
    assert_eq!((&items[0]["result"], &items[0]["state"]), (&json!("verified"), &json!("disabled")));
    assert_eq!((&items[1]["result"], &items[1]["key_id"]), (&json!("key_quarantined"), &json!(OTHER)));
    let told: Value = serde_json::from_slice(&output.stderr).unwrap();
    assert_eq!(told["code"], "keys_not_verified");
    assert!(vault.take_seen()[0].target.contains("node=participant1"));
}
