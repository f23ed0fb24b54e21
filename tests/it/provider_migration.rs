//! One database through every provider: AWS, OpenBao, a key in a file, and AWS again. Each former wrapper key is retired and disabled.

use canton_keyvault::{crypto::SystemRandom, kms::create_key_file};
use serde_json::{Value, json};

use crate::support::{
    aws_vault::{AwsVault, Setup},
    jobs::{active, rotated, wrapper_key, wraps},
    openbao::Openbao,
    vault::TestVault,
    wrapper::CENTRAL,
};

async fn register(vault: &TestVault, provider: &str, reference: &str) -> String {
    let body = json!({ "provider": provider, "reference": reference });
    vault.client("wrapper-admin").create("/v1/wrapper-keys", &body).await.unwrap()["id"].as_str().unwrap().to_owned()
}

async fn retire(vault: &TestVault, id: &str) {
    let retired = vault.client("wrapper-admin").post(&format!("/v1/wrapper-keys/{id}/retire"), &json!({})).await.unwrap();
    assert_eq!(retired["state"], "retired", "{retired}");
}

async fn create(vault: &TestVault, purpose: &str, spec: &str) -> String {
    let new = json!({ "node": "participant1", "purpose": purpose, "spec": spec });
    vault.client("participant1").create("/v1/keys", &new).await.unwrap()["id"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn keys_move_from_aws_to_openbao_to_a_file_and_back_and_all_live() {
    let (bao, folder) = (Openbao::shared().await, tempfile::tempdir().unwrap());
    let (token, file) = (bao.token_file().await, folder.path().join("wrapper.key"));
    create_key_file(&file, &SystemRandom::default()).unwrap();
    let mut aws = AwsVault::start(Setup {
        allowed: vec![format!("{}/transit/keys/*", bao.address()), file.display().to_string()],
        sections: format!(
            "[[wrapper.openbao]]\naddresses = [{:?}]\nca = {:?}\ntoken_file = {:?}\n[jobs]\nkeys_per_second = 1000\nretry_backoff = \"100ms\"",
            bao.address(),
            bao.file("ca.pem"),
            token.path()
        ),
        ..Setup::default()
    })
    .await;
    let first = active(&aws.vault).await;
    let mut signing = vec![create(&aws.vault, "signing", "ec-curve25519").await];
    let symmetric = create(&aws.vault, "symmetric", "aes-256").await;
    let path = format!("/v1/keys/{symmetric}");
    let sealed: Value =
        aws.vault.client("participant1").post(&format!("{path}/encrypt"), &json!({ "plaintext": "aGVsbG8=" })).await.unwrap();

    let transit = bao.create_key(json!({})).await;
    let openbao = register(&aws.vault, "openbao-transit", &bao.url(&transit)).await;
    let local = register(&aws.vault, "local", file.to_str().unwrap()).await;
    let second = aws.kms.create_key(CENTRAL, false).await;
    let back = register(&aws.vault, "aws-kms", &second).await;
    let mut before = first;
    for (number, to) in [&openbao, &local, &back].into_iter().enumerate() {
        rotated(&aws.vault, to).await;
        signing.push(create(&aws.vault, "signing", "ec-curve25519").await);
        retire(&aws.vault, &before).await;
        before.clone_from(to);
        match number {
            0 => drop(aws.kms.call(CENTRAL, "ScheduleKeyDeletion", json!({ "KeyId": aws.arn, "PendingWindowInDays": 7 })).await),
            1 => bao.delete_key(&transit).await,
            _ => std::fs::remove_file(&file).unwrap(),
        }
        // Nothing in memory: what opens, opens through what is left.
        aws.vault.restart();
        assert_eq!(active(&aws.vault).await, *to);
        for key in &signing {
            aws.sign(key).await.unwrap();
            assert!(wraps(&aws.vault, key).await.contains(to));
        }
        let ask = json!({ "algorithm": "aes-256-gcm", "ciphertext": sealed["ciphertext"] });
        let opened = aws.vault.client("participant1").post(&format!("{path}/decrypt"), &ask).await.unwrap();
        assert_eq!(opened["plaintext"], "aGVsbG8=");
    }
    for key in &signing {
        assert_eq!(wraps(&aws.vault, key).await, std::slice::from_ref(&back), "one wrap is left of the whole way");
    }
    assert_eq!(wrapper_key(&aws.vault, &back).await["keys"], signing.len() + 1);
}
