//! Reads lines of the file of an OpenBao audit device. A request and its response have one id and are one call. Values are hashed there, so that a
//! call has no encryption context.

use serde_json::Value;

use crate::domain::Timestamp;

use super::{
    call::{ActionKind, KmsCall},
    calls::{CallSet, TooManyCalls},
    wrapper_keys::WrapperKeySet,
};

/// Adds the call of one line to `calls`. `Ok(false)` if the line is none of an audit device.
///
/// # Errors
/// [`TooManyCalls`].
pub fn read_openbao_line(line: &[u8], keys: &WrapperKeySet, calls: &mut CallSet) -> Result<bool, TooManyCalls> {
    let Ok(entry) = serde_json::from_slice::<Value>(line) else { return Ok(false) };
    let text = |path: &str| entry.pointer(path).and_then(Value::as_str).unwrap_or_default();
    let (id, at) = (text("/request/id"), Timestamp::parse(text("/time")));
    let (Some(at), false) = (at, id.is_empty()) else { return Ok(false) };
    calls.saw(at);
    let error = Some(text("/error")).filter(|error| !error.is_empty());
    if let Some(call) = calls.get_mut(id) {
        // The response of a request that was read before, or a second audit device.
        if let Some(error) = error {
            call.error.get_or_insert_with(|| first_line(error).into());
        }
        return Ok(true);
    }
    let path = format!("{}{}", text("/request/namespace/path"), text("/request/path"));
    let operation = text("/request/operation");
    let Some((key, engine)) = keys.openbao_key(&path) else {
        if !calls.has_other(id) {
            calls.add_other(Some(id))?;
        }
        return Ok(true);
    };
    let kind = match (engine, operation) {
        ("keys", "read" | "list") => ActionKind::Read,
        ("keys" | "restore", _) => ActionKind::Change,
        _ => ActionKind::Use,
    };
    let display = ["/auth/display_name", "/auth/entity_id", "/auth/token_type"].into_iter().map(text).find(|name| !name.is_empty());
    let interner = &mut calls.interner;
    let call = KmsCall {
        at,
        action: interner.text(operation),
        place: interner.text(&path),
        kind,
        keys: vec![interner.text(&key)],
        principal: interner.text(display.unwrap_or("unknown")),
        source: interner.text(text("/request/remote_address")),
        error: error.map(|error| interner.text(first_line(error))),
        context: None,
    };
    calls.add(Some(id), call)?;
    Ok(true)
}

fn first_line(text: &str) -> &str {
    text.lines().next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    const REQUEST: &str = r#"{"time":"2026-11-27T15:10:15.825673Z","type":"request","auth":{"client_token":"hmac-sha256:1","accessor":"hmac-sha256:2","display_name":"cert-vault","policies":["default"],"token_type":"service"},"request":{"id":"3d1fcd51-9f3d-7a70-b0e4-0d9d2a1a0001","client_id":"c","operation":"update","mount_point":"transit/","mount_type":"transit","client_token":"hmac-sha256:1","namespace":{"id":"root"},"path":"transit/decrypt/canton","data":{"associated_data":"hmac-sha256:3","ciphertext":"hmac-sha256:4"},"remote_address":"127.0.0.1","remote_port":40000}}"#;

    fn read(lines: &[&str]) -> CallSet {
        let (mut keys, mut calls) = (WrapperKeySet::default(), CallSet::new(10));
        keys.add("openbao:81cbc3cc-3cf2-f57a-fee8-ef210c6ad65e:transit:canton:1").unwrap();
        for line in lines {
            assert!(read_openbao_line(line.as_bytes(), &keys, &mut calls).unwrap(), "{line}");
        }
        calls
    }

    #[test]
    fn a_request_and_its_response_are_one_call() {
        let response =
            REQUEST.replace("\"type\":\"request\"", "\"type\":\"response\",\"error\":\"1 error occurred:\\n\\t* permission denied\"");
        let calls = read(&[REQUEST, &response]);
        assert_eq!(calls.len(), 1);
        let call = &calls.slots[0].call;
        assert_eq!((&*call.action, &*call.place, call.kind), ("update", "transit/decrypt/canton", ActionKind::Use));
        assert_eq!((&*call.principal, &*call.source, call.error.as_deref()), ("cert-vault", "127.0.0.1", Some("1 error occurred:")));
        assert_eq!(calls.places("3d1fcd51-9f3d-7a70-b0e4-0d9d2a1a0001"), [0]);
    }

    #[test]
    fn a_path_decides_what_a_call_does() {
        for (path, operation, kind) in [
            ("transit/keys/canton", "read", ActionKind::Read),
            ("transit/keys/canton/config", "update", ActionKind::Change),
            ("transit/keys/canton", "delete", ActionKind::Change),
            ("transit/export/encryption-key/canton", "read", ActionKind::Use),
            ("transit/backup/canton", "read", ActionKind::Use),
        ] {
            let line = REQUEST.replace("transit/decrypt/canton", path).replace("\"update\"", &format!("{operation:?}"));
            assert_eq!(read(&[&line]).slots[0].call.kind, kind, "{path}");
        }
        let other = read(&[&REQUEST.replace("transit/decrypt/canton", "auth/cert/login")]);
        assert_eq!((other.len(), other.other_keys), (0, 1));
        assert!(other.has_other("3d1fcd51-9f3d-7a70-b0e4-0d9d2a1a0001"));
    }

    #[test]
    fn what_is_no_line_of_an_audit_device_is_reported() {
        let (keys, mut calls) = (WrapperKeySet::default(), CallSet::new(10));
        for line in ["", "7", "{}", "not json", r#"{"time":"yesterday","request":{"id":"a"}}"#] {
            assert!(!read_openbao_line(line.as_bytes(), &keys, &mut calls).unwrap(), "{line}");
        }
    }
}
