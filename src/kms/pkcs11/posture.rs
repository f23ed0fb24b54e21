//! The posture of a key in a token, from its attributes. PKCS#11 has no policies: who knows the PIN may use the key.

use cryptoki::object::AttributeType;

use super::key_attributes::KeyAttributes;
use crate::domain::{PostureLine, PostureSubject};

/// The remedy for a key that cannot be corrected.
const ANOTHER: &str = "Make a key in the token as in deploy/pkcs11, and rotate to it.";

impl KeyAttributes {
    /// The posture of the key.
    pub(super) fn posture(&self) -> Vec<PostureLine> {
        vec![self.spec(), self.origin(), self.state(), self.deletion(), self.export(), self.usage(), rotation(), policy()]
    }

    fn spec(&self) -> PostureLine {
        if self.is_aes_256() {
            PostureLine::ok(PostureSubject::Spec, "an AES key of 256 bits, which binds a wrap to its context")
        } else {
            PostureLine::fail(PostureSubject::Spec, "no AES key of 256 bits", ANOTHER)
        }
    }

    fn origin(&self) -> PostureLine {
        if self.has(AttributeType::Local) == Some(true) {
            return PostureLine::ok(PostureSubject::Origin, "the token made the key (CKA_LOCAL)");
        }
        let detail = "the token does not say that it made the key (CKA_LOCAL): copies may exist outside of it";
        PostureLine::warning(PostureSubject::Origin, detail, ANOTHER)
    }

    fn state(&self) -> PostureLine {
        if self.is_usable() {
            return PostureLine::ok(PostureSubject::State, "the key can be used");
        }
        PostureLine::fail(
            PostureSubject::State,
            "the key wraps nothing: it lacks CKA_ENCRYPT or CKA_DECRYPT, or its attributes are refused",
            "Set CKA_ENCRYPT and CKA_DECRYPT, or rotate to another key.",
        )
    }

    fn deletion(&self) -> PostureLine {
        if self.has(AttributeType::Destroyable) == Some(false) {
            return PostureLine::ok(PostureSubject::Deletion, "the key cannot be deleted (CKA_DESTROYABLE is false)");
        }
        PostureLine::warning(
            PostureSubject::Deletion,
            "every user of the token can delete the key (CKA_DESTROYABLE)",
            "Keep a backup of the token as its vendor describes, or a second wrapper key on standby.",
        )
    }

    fn export(&self) -> PostureLine {
        const SUBJECT: PostureSubject = PostureSubject::Export;
        if self.is_exportable() {
            return PostureLine::fail(SUBJECT, "the key can leave the token: it is not sensitive, or it is extractable", ANOTHER);
        }
        let always = [AttributeType::AlwaysSensitive, AttributeType::NeverExtractable];
        if always.iter().all(|attribute| self.has(*attribute) == Some(true)) {
            return PostureLine::ok(SUBJECT, "the key never could leave the token (CKA_ALWAYS_SENSITIVE, CKA_NEVER_EXTRACTABLE)");
        }
        let detail = "the key cannot leave the token now, but the token does not say that it never could (CKA_ALWAYS_SENSITIVE, CKA_NEVER_EXTRACTABLE)";
        PostureLine::warning(SUBJECT, detail, ANOTHER)
    }

    /// A key that wraps other keys of the token takes them out of it; one that derives others gives a part of itself away.
    fn usage(&self) -> PostureLine {
        const SUBJECT: PostureSubject = PostureSubject::Usage;
        let others = [
            (AttributeType::Wrap, "CKA_WRAP"),
            (AttributeType::Unwrap, "CKA_UNWRAP"),
            (AttributeType::Derive, "CKA_DERIVE"),
            (AttributeType::Modifiable, "CKA_MODIFIABLE"),
        ];
        let set: Vec<&str> = others.iter().filter(|(attribute, _)| self.has(*attribute) != Some(false)).map(|(_, name)| *name).collect();
        if self.has(AttributeType::Private) == Some(false) {
            let remedy = "Make a key with CKA_PRIVATE as in deploy/pkcs11, and rotate to it.";
            return PostureLine::fail(SUBJECT, "the key can be used without a login (CKA_PRIVATE is false)", remedy);
        }
        if set.is_empty() {
            return PostureLine::ok(SUBJECT, "the key encrypts and decrypts, and its attributes cannot be changed");
        }
        PostureLine::warning(SUBJECT, format!("the key permits more than encryption and decryption: {}", set.join(", ")), ANOTHER)
    }
}

fn rotation() -> PostureLine {
    PostureLine::warning(
        PostureSubject::Rotation,
        "a token does not rotate key material",
        "Make a new key, register it, and rotate to it (wrapper rotation start) as often as your rules demand.",
    )
}

fn policy() -> PostureLine {
    PostureLine::warning(
        PostureSubject::Policy,
        "not assessed: PKCS#11 has no policies, so that everybody who knows the PIN may use the key, with any encryption context",
        "Give the vault a token or partition of its own, and the PIN to nobody else. Check the rules of the HSM by the tools of its vendor.",
    )
}

#[cfg(test)]
mod tests {
    use super::{super::key_attributes::tests::key, *};
    use crate::domain::PostureStatus::{Fail, Ok as Good, Warning};

    #[test]
    fn each_attribute_of_a_key_is_assessed() {
        for (changes, subject, status, says) in [
            (&[][..], PostureSubject::Spec, Good, "256 bits"),
            (&[], PostureSubject::Origin, Good, "CKA_LOCAL"),
            (&[(AttributeType::Local, Some(false))], PostureSubject::Origin, Warning, "copies may exist"),
            (&[(AttributeType::Local, None)], PostureSubject::Origin, Warning, "copies may exist"),
            (&[], PostureSubject::State, Good, "can be used"),
            (&[(AttributeType::Decrypt, Some(false))], PostureSubject::State, Fail, "CKA_DECRYPT"),
            (&[], PostureSubject::Deletion, Good, "cannot be deleted"),
            (&[(AttributeType::Destroyable, None)], PostureSubject::Deletion, Warning, "can delete"),
            (&[], PostureSubject::Export, Good, "never could"),
            (&[(AttributeType::Extractable, Some(true))], PostureSubject::Export, Fail, "extractable"),
            (&[(AttributeType::Sensitive, Some(false))], PostureSubject::Export, Fail, "not sensitive"),
            (&[(AttributeType::NeverExtractable, Some(false))], PostureSubject::Export, Warning, "does not say"),
            (&[(AttributeType::AlwaysSensitive, None)], PostureSubject::Export, Warning, "does not say"),
            (&[], PostureSubject::Usage, Good, "cannot be changed"),
            (&[(AttributeType::Wrap, Some(true)), (AttributeType::Derive, None)], PostureSubject::Usage, Warning, "CKA_WRAP, CKA_DERIVE"),
            (&[(AttributeType::Private, Some(false))], PostureSubject::Usage, Fail, "without a login"),
            (&[], PostureSubject::Rotation, Warning, "does not rotate"),
            (&[], PostureSubject::Policy, Warning, "PIN"),
        ] {
            let lines = key(changes).posture();
            let line = lines.iter().find(|line| line.subject == subject).unwrap();
            assert!(line.status == status && line.detail.contains(says), "{changes:?}: {line:?}");
            assert_eq!(line.remedy.is_none(), status == Good, "{line:?}");
        }
    }
}
