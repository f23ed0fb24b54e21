//! Errors of people are corrected: a key gets another name.

use serde_json::{Value, json};

use crate::support::{
    api::{Caller, id},
    vault::TestVault,
};

struct Cast {
    vault: TestVault,
    node: Caller,
    admin: Caller,
    auditor: Caller,
}

impl Cast {
    fn start() -> Self {
        Self::of(TestVault::start())
    }

    fn of(vault: TestVault) -> Self {
        let caller = |who| Caller::new(&vault, who);
        Self { node: caller("participant1"), admin: caller("key-admin"), auditor: caller("auditor"), vault }
    }

    /// kill -9, and start again.
    fn restart(self) -> Self {
        let Self { mut vault, .. } = self;
        vault.restart();
        Self::of(vault)
    }

    async fn show(&self, key: &str) -> Value {
        self.admin.get(&format!("/v1/keys/{key}")).await.success()
    }
}

#[tokio::test]
async fn a_key_gets_another_name_and_the_entry_has_both() {
    let mut cast = Cast::start();
    let new = json!({ "node": "participant1", "purpose": "signing", "spec": "ec-curve25519", "name": "participant2-namespace" });
    let before = cast.node.post("/v1/keys", &new).await.success();
    let (key, path) = (id(&before), format!("/v1/keys/{}/name", id(&before)));
    cast.node.sign(&key).await.success();
    for (name, entry) in [
        (json!("participant1-namespace"), r#""participant1-namespace" instead of "participant2-namespace""#),
        (json!(null), r#"no name instead of "participant1-namespace""#),
        (json!("back"), r#""back" instead of no name"#),
    ] {
        let renamed = cast.admin.post(&path, &json!({ "name": name })).await.success();
        assert_eq!(renamed["name"], name);
        let log = cast.auditor.log(&format!("&key_id={key}&operation=keys.rename")).await;
        let newest = log.last().unwrap();
        assert_eq!((&newest["subject"], &newest["outcome"]), (&json!(entry), &json!("ok")));
        assert!(newest["previous"].is_string(), "it is in the chain of state changes: {newest}");
        cast.node.sign(&key).await.success();
        // The chain is verified at the start.
        cast = cast.restart();
        assert_eq!(cast.show(&key).await["name"], name);
        cast.node.sign(&key).await.success();
    }
    // Nothing else changed: the usages that followed from the first name stay.
    let after = cast.show(&key).await;
    for fact in ["id", "node", "usage", "class", "state", "revision", "generation", "created_at"] {
        assert_eq!(after[fact], before[fact], "{fact}");
    }
    // The same name again is no state change.
    cast.admin.post(&path, &json!({ "name": "back" })).await.success();
    let newest = cast.auditor.log(&format!("&key_id={key}&operation=keys.rename")).await.pop().unwrap();
    assert_eq!(newest["previous"], Value::Null);
    // Neither an empty body nor a bad name removes a name, and two keys can have one name, as at their creation.
    for body in [json!({}), json!({ "name": "" }), json!({ "name": "a\nb" }), json!({ "name": 7 })] {
        cast.admin.post(&path, &body).await.refused(400, "invalid_request");
    }
    assert_eq!(cast.show(&key).await["name"], "back");
    let other = cast.node.signing_key("participant1").await;
    assert_eq!(cast.admin.post(&format!("/v1/keys/{other}/name"), &json!({ "name": "back" })).await.success()["name"], "back");
    cast.node.post(&path, &json!({ "name": "mine" })).await.refused(403, "forbidden");
}
