//! A call of a KMS as its log has it. Texts from outside have a bounded length, and equal texts are stored once.

use std::{
    collections::{BTreeMap, HashSet},
    sync::Arc,
};

use crate::domain::{KeyId, Timestamp};

/// Bytes of a text that are kept.
const MAX_TEXT: usize = 512;
/// Pairs of an encryption context that are kept. The vault sends at most ten.
const MAX_PAIRS: usize = 16;

/// What a call does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ActionKind {
    /// It uses the key: encrypts, decrypts, or gives the key away.
    Use,
    /// It reads attributes of the key.
    Read,
    /// It changes the key, its policy or who may use it.
    Change,
}

/// A call of a KMS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KmsCall {
    /// When the KMS received it.
    pub at: Timestamp,
    /// As the KMS names it: `Decrypt`, or `update` of OpenBao.
    pub action: Arc<str>,
    /// Where: the region of AWS, or the path of OpenBao.
    pub place: Arc<str>,
    /// What it does.
    pub kind: ActionKind,
    /// The wrapper keys, as the log names them.
    pub keys: Vec<Arc<str>>,
    /// Who called.
    pub principal: Arc<str>,
    /// The address of the caller.
    pub source: Arc<str>,
    /// Why it was refused.
    pub error: Option<Arc<str>>,
    /// The encryption context. OpenBao does not show it.
    pub context: Option<Arc<BTreeMap<String, String>>>,
}

impl KmsCall {
    /// A value of the encryption context.
    pub fn context_value(&self, name: &str) -> Option<&str> {
        self.context.as_ref()?.get(name).map(String::as_str)
    }

    /// The key of the vault in the encryption context.
    pub fn key_id(&self) -> Option<KeyId> {
        self.context_value("key_id")?.parse().ok()
    }

    /// Whether its context is that of a canary of this vault, which holds no key.
    pub fn is_canary_of(&self, vault: &str) -> bool {
        self.context_value("canary").is_some() && self.context_value("key_id").is_none() && self.context_value("vault") == Some(vault)
    }

    /// Who called, without the name of the session, which changes with each login.
    pub fn identity(&self) -> &str {
        match self.principal.split_once(":assumed-role/") {
            Some((_, role)) => role.find('/').map_or(&*self.principal, |session| {
                let end = self.principal.len() - (role.len() - session);
                self.principal.get(..end).unwrap_or(&self.principal)
            }),
            None => &self.principal,
        }
    }
}

/// Keeps equal texts and contexts once.
#[derive(Debug, Default)]
pub(super) struct Interner {
    texts: HashSet<Arc<str>>,
    contexts: HashSet<Arc<BTreeMap<String, String>>>,
}

impl Interner {
    /// The text, cut at its bound.
    pub(super) fn text(&mut self, text: &str) -> Arc<str> {
        let text = cut(text);
        if let Some(known) = self.texts.get(text) {
            return Arc::clone(known);
        }
        let new: Arc<str> = text.into();
        self.texts.insert(Arc::clone(&new));
        new
    }

    /// The encryption context, with a bounded number of pairs.
    pub(super) fn context<'a>(&mut self, pairs: impl Iterator<Item = (&'a str, &'a str)>) -> Arc<BTreeMap<String, String>> {
        let context: BTreeMap<String, String> =
            pairs.take(MAX_PAIRS).map(|(name, value)| (cut(name).to_owned(), cut(value).to_owned())).collect();
        if let Some(known) = self.contexts.get(&context) {
            return Arc::clone(known);
        }
        let new = Arc::new(context);
        self.contexts.insert(Arc::clone(&new));
        new
    }
}

fn cut(text: &str) -> &str {
    text.get(..text.floor_char_boundary(MAX_TEXT)).unwrap_or(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_is_no_part_of_the_identity() {
        let call = |principal: &str| KmsCall {
            at: Timestamp::from_micros(0),
            action: "Decrypt".into(),
            place: "eu-central-1".into(),
            kind: ActionKind::Use,
            keys: Vec::new(),
            principal: principal.into(),
            source: "".into(),
            error: None,
            context: None,
        };
        let role = "arn:aws:sts::111122223333:assumed-role/keyvault";
        for (principal, identity) in
            [(&*format!("{role}/i-1"), role), (role, role), ("arn:aws:iam::1:user/a/b", "arn:aws:iam::1:user/a/b"), ("", "")]
        {
            assert_eq!(call(principal).identity(), identity);
        }
    }

    #[test]
    fn a_text_from_outside_is_bounded() {
        let long = "ä".repeat(1000);
        let mut interner = Interner::default();
        assert_eq!(interner.text(&long).len(), 512);
        let names: Vec<String> = (0..100).map(|number| number.to_string()).collect();
        assert_eq!(interner.context(names.iter().map(|name| (&**name, &*long))).len(), 16);
    }
}
