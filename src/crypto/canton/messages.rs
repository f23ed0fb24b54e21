//! Canton's protobuf messages for keys, written by hand (`crypto/v30/crypto.proto`, `version/v1/untyped_versioned_message.proto`).
//!
//! Secrets are [`Bytes`] that share the decoded allocation, which is wiped on drop. Decoding copies nothing. No message has `Debug`.

use prost::{Message, bytes::Bytes};

use crate::crypto::SecretBytes;

/// The protocol version of all that Canton 3.3 to 3.6 writes.
pub(super) const PROTO_VERSION: i32 = 30;

/// `CryptoKeyFormat`.
pub(super) const FORMAT_DER: i32 = 2;
pub(super) const FORMAT_RAW: i32 = 3;
pub(super) const FORMAT_SPKI: i32 = 4;
pub(super) const FORMAT_PKCS8: i32 = 5;

/// The wrapper of all stored messages.
#[derive(Clone, PartialEq, Message)]
#[prost(skip_debug)]
pub(super) struct UntypedVersionedMessage {
    #[prost(bytes = "bytes", tag = "1")]
    pub(super) data: Bytes,
    #[prost(int32, tag = "2")]
    pub(super) version: i32,
}

/// `oneof pair { signing_key_pair = 1, encryption_key_pair = 2 }`.
#[derive(Clone, PartialEq, Message)]
#[prost(skip_debug)]
pub(super) struct CryptoKeyPair {
    #[prost(message, optional, tag = "1")]
    pub(super) signing: Option<SigningKeyPair>,
    #[prost(message, optional, tag = "2")]
    pub(super) encryption: Option<EncryptionKeyPair>,
}

/// Only 3.3 writes field 1. Later versions skip it.
#[derive(Clone, PartialEq, Message)]
#[prost(skip_debug)]
pub(super) struct SigningKeyPair {
    #[prost(message, optional, tag = "1")]
    pub(super) public_key: Option<SigningPublicKey>,
    #[prost(message, optional, tag = "2")]
    pub(super) private_key: Option<SigningPrivateKey>,
}

/// As [`SigningKeyPair`].
#[derive(Clone, PartialEq, Message)]
#[prost(skip_debug)]
pub(super) struct EncryptionKeyPair {
    #[prost(message, optional, tag = "1")]
    pub(super) public_key: Option<EncryptionPublicKey>,
    #[prost(message, optional, tag = "2")]
    pub(super) private_key: Option<EncryptionPrivateKey>,
}

/// `scheme` is read only where `key_spec` is 0.
#[derive(Clone, PartialEq, Message)]
#[prost(skip_debug)]
pub(super) struct SigningPublicKey {
    #[prost(int32, tag = "2")]
    pub(super) format: i32,
    #[prost(bytes = "bytes", tag = "3")]
    pub(super) public_key: Bytes,
    #[prost(int32, tag = "4")]
    pub(super) scheme: i32,
    #[prost(int32, repeated, tag = "5")]
    pub(super) usage: Vec<i32>,
    #[prost(int32, tag = "6")]
    pub(super) key_spec: i32,
}

/// As [`SigningPublicKey`]; `id` is the fingerprint.
#[derive(Clone, PartialEq, Message)]
#[prost(skip_debug)]
pub(super) struct SigningPrivateKey {
    #[prost(string, tag = "1")]
    pub(super) id: String,
    #[prost(int32, tag = "2")]
    pub(super) format: i32,
    #[prost(bytes = "bytes", tag = "3")]
    pub(super) private_key: Bytes,
    #[prost(int32, tag = "4")]
    pub(super) scheme: i32,
    #[prost(int32, repeated, tag = "5")]
    pub(super) usage: Vec<i32>,
    #[prost(int32, tag = "6")]
    pub(super) key_spec: i32,
}

/// `key_spec` is field 5 here.
#[derive(Clone, PartialEq, Message)]
#[prost(skip_debug)]
pub(super) struct EncryptionPublicKey {
    #[prost(int32, tag = "2")]
    pub(super) format: i32,
    #[prost(bytes = "bytes", tag = "3")]
    pub(super) public_key: Bytes,
    #[prost(int32, tag = "4")]
    pub(super) scheme: i32,
    #[prost(int32, tag = "5")]
    pub(super) key_spec: i32,
}

/// As [`EncryptionPublicKey`].
#[derive(Clone, PartialEq, Message)]
#[prost(skip_debug)]
pub(super) struct EncryptionPrivateKey {
    #[prost(string, tag = "1")]
    pub(super) id: String,
    #[prost(int32, tag = "2")]
    pub(super) format: i32,
    #[prost(bytes = "bytes", tag = "3")]
    pub(super) private_key: Bytes,
    #[prost(int32, tag = "4")]
    pub(super) scheme: i32,
    #[prost(int32, tag = "5")]
    pub(super) key_spec: i32,
}

/// A message that a password protects.
#[derive(Clone, PartialEq, Message)]
#[prost(skip_debug)]
pub(super) struct PasswordBasedEncrypted {
    #[prost(bytes = "bytes", tag = "1")]
    pub(super) ciphertext: Bytes,
    #[prost(int32, tag = "2")]
    pub(super) symmetric_key_scheme: i32,
    #[prost(int32, tag = "3")]
    pub(super) pbkdf_scheme: i32,
    #[prost(bytes = "bytes", tag = "4")]
    pub(super) salt: Bytes,
}

/// Shared bytes that are wiped when the last message that shares them is dropped.
pub(super) fn share(secret: SecretBytes) -> Bytes {
    struct Owner(SecretBytes);
    impl AsRef<[u8]> for Owner {
        fn as_ref(&self) -> &[u8] {
            self.0.expose()
        }
    }
    Bytes::from_owner(Owner(secret))
}

/// The encoded message, in one allocation of the right size that is wiped on drop.
pub(super) fn encode(message: &impl Message) -> SecretBytes {
    SecretBytes::from(message.encode_to_vec())
}
