//! Keys as people name them: by the id, by the beginning of the id, or by the name. A reference that is not clear is refused with the candidates, and never
//! guessed. A full id needs no call.

use std::{
    fmt::{self, Write as _},
    str::FromStr,
};

use clap::Args;
use serde::{Deserialize, de::DeserializeOwned};

use super::Failure;
use crate::{
    client::{Call, Client, ClientError},
    domain::{IdError, KeyId, KeyName, KeyState, NodeName, WrapperKeyId, WrapperKeyName},
};

/// The fewest characters of the beginning of a key id: 8 hex digits after `1220`, or after `sym-`.
const SHORTEST_KEY: usize = 12;
/// The fewest characters of the beginning of the id of a wrapper key: 4 hex digits after `wk-`. A vault has few.
const SHORTEST_WRAPPER_KEY: usize = 7;
/// How many candidates a refusal lists.
const CANDIDATES: usize = 10;

/// A key, as a command names it.
#[derive(Debug, Clone)]
pub(super) enum KeyReference {
    /// The whole id.
    Id(KeyId),
    /// The beginning of the id, or the name.
    Text(KeyName),
}

impl FromStr for KeyReference {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        text.parse().map(Self::Id).or_else(|_| text.parse().map(Self::Text))
    }
}

/// The key of a command.
#[derive(Debug, Clone, Args)]
pub struct KeyArg {
    /// The key: its id, the beginning of its id (12 characters or more), or its name
    // Not `key`: the connection has an option of this name.
    #[arg(value_name = "KEY")]
    key_reference: KeyReference,
}

impl KeyArg {
    /// The id of the key.
    ///
    /// # Errors
    /// As [`KeyReference::resolve`].
    pub(super) async fn id(&self, client: &Client) -> Result<KeyId, Failure> {
        self.key_reference.resolve(client).await
    }
}

/// A key that a reference may mean.
#[derive(Debug, Deserialize)]
struct KeyCandidate {
    id: KeyId,
    node: NodeName,
    name: Option<KeyName>,
    state: KeyState,
}

impl KeyReference {
    /// The id of the key. A destroyed key counts only if nothing else has the name.
    ///
    /// # Errors
    /// [`Failure::Reference`] if no key or more than one fits; the error of the list of keys.
    pub(super) async fn resolve(&self, client: &Client) -> Result<KeyId, Failure> {
        let text = match self {
            Self::Id(id) => return Ok(*id),
            Self::Text(text) => text,
        };
        let filter = if is_beginning(text.as_str()) { "key" } else { "name" };
        let found: Vec<KeyCandidate> = all(client, || Call::get("/v1/keys").query(filter, text.as_str())).await?;
        let (destroyed, usable): (Vec<_>, Vec<_>) = found.into_iter().partition(|key| key.state == KeyState::Destroyed);
        let found = if usable.is_empty() { destroyed } else { usable };
        match found.as_slice() {
            [key] => Ok(key.id),
            [] => {
                let hint = if is_short_beginning(text.as_str()) {
                    format!(" The beginning of an id needs {SHORTEST_KEY} characters or more.")
                } else {
                    String::new()
                };
                Err(unknown(format!(
                    "no key that you may see has the name {text}, or an id that begins so.{hint} canton-keyvault keys list shows the keys"
                )))
            }
            several => Err(ambiguous(
                "keys",
                text,
                several.iter().map(|KeyCandidate { id, node, name, state }| {
                    let name = name.as_ref().map_or("-", KeyName::as_str);
                    format!("{id}  {node}  {name}  {state}")
                }),
            )),
        }
    }
}

/// Whether a text can be the beginning of a key id, and is long enough to be one.
fn is_beginning(text: &str) -> bool {
    text.len() >= SHORTEST_KEY && is_short_beginning(text)
}

fn is_short_beginning(text: &str) -> bool {
    let digits = text.strip_prefix("1220").or_else(|| text.strip_prefix("sym-"));
    digits.is_some_and(|digits| digits.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte)))
}

/// A wrapper key, as a command names it.
#[derive(Debug, Clone)]
pub(super) enum WrapperKeyReference {
    /// The whole id.
    Id(WrapperKeyId),
    /// The beginning of the id.
    Beginning(String),
    /// The name.
    Name(WrapperKeyName),
}

impl fmt::Display for WrapperKeyReference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Id(id) => id.fmt(f),
            Self::Beginning(text) => f.write_str(text),
            Self::Name(name) => name.fmt(f),
        }
    }
}

impl FromStr for WrapperKeyReference {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let is_beginning = || {
            let digits = text.strip_prefix("wk-").filter(|_| text.len() >= SHORTEST_WRAPPER_KEY);
            digits.is_some_and(|digits| digits.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte)))
        };
        match text.parse() {
            Ok(id) => Ok(Self::Id(id)),
            Err(_) if is_beginning() => Ok(Self::Beginning(text.to_owned())),
            Err(_) => text
                .parse()
                .map(Self::Name)
                .map_err(|_| "write the id of a wrapper key, wk- and 12 hex digits, its beginning with 4 digits or more, or its name"),
        }
    }
}

/// A wrapper key that a reference may mean.
#[derive(Debug, Deserialize)]
struct WrapperKeyCandidate {
    id: WrapperKeyId,
    name: Option<WrapperKeyName>,
    state: String,
    reference: String,
}

impl WrapperKeyReference {
    /// The id of the wrapper key.
    ///
    /// # Errors
    /// [`Failure::Reference`] if no wrapper key or more than one fits; the error of the list of wrapper keys.
    pub(super) async fn resolve(&self, client: &Client) -> Result<WrapperKeyId, Failure> {
        if let Self::Id(id) = self {
            return Ok(*id);
        }
        let mut found: Vec<WrapperKeyCandidate> = all(client, || Call::get("/v1/wrapper-keys")).await?;
        found.retain(|key| match self {
            Self::Id(id) => key.id == *id,
            Self::Beginning(text) => key.id.to_string().starts_with(text),
            Self::Name(name) => key.name.as_ref() == Some(name),
        });
        match found.as_slice() {
            [key] => Ok(key.id),
            [] => Err(unknown(format!(
                "no wrapper key has the name {self}, or an id that begins so. canton-keyvault wrapper list shows the wrapper keys"
            ))),
            several => Err(ambiguous(
                "wrapper keys",
                self,
                several.iter().map(|WrapperKeyCandidate { id, name, state, reference }| {
                    format!("{id}  {}  {state}  {reference}", name.as_ref().map_or("-", WrapperKeyName::as_str))
                }),
            )),
        }
    }
}

#[derive(Deserialize)]
struct Page<T> {
    items: Vec<T>,
    next_cursor: Option<String>,
}

/// All items of a list.
///
/// # Errors
/// [`Failure::Reference`] if the caller may not list; [`ClientError`].
pub(super) async fn all<T: DeserializeOwned>(client: &Client, call: impl Fn() -> Call) -> Result<Vec<T>, Failure> {
    let (mut found, mut cursor) = (Vec::new(), None);
    loop {
        let answer = client.success(call().query_if("cursor", cursor.as_ref())).await.map_err(not_looked_up)?;
        let page: Page<T> = answer.parse()?;
        found.extend(page.items);
        if page.next_cursor.is_none() || page.next_cursor == cursor {
            return Ok(found);
        }
        cursor = page.next_cursor;
    }
}

/// A principal that may not list can still use full ids.
fn not_looked_up(error: ClientError) -> Failure {
    match &error {
        ClientError::Problem(problem) if problem.status == 403 => Failure::Reference {
            code: "forbidden",
            detail: format!("you may not list keys, which a name or the beginning of an id needs: write the full id. {}", problem.detail),
        },
        _ => error.into(),
    }
}

const fn unknown(detail: String) -> Failure {
    Failure::Reference { code: "not_found", detail }
}

fn ambiguous(what: &str, text: &impl fmt::Display, candidates: impl ExactSizeIterator<Item = String>) -> Failure {
    let number = candidates.len();
    let mut detail = format!("{number} {what} have the name {text}, or an id that begins so. Write the id of one:");
    for candidate in candidates.take(CANDIDATES) {
        let _ = write!(detail, "\n  {candidate}");
    }
    if number > CANDIDATES {
        let _ = write!(detail, "\n  and {} more", number - CANDIDATES);
    }
    Failure::Reference { code: "ambiguous", detail }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_beginning_of_an_id_has_its_form_and_enough_digits() {
        for text in ["1220a63d079a", "sym-00112233", "1220a63d079ae76ffba43d4a4be873afeb6ee14eaa2bb01b26a072a07d0cecadd80"] {
            assert!(is_beginning(text), "{text}");
        }
        for text in ["1220a63d079", "1220A63D079A", "sym-0011223", "orders", "1220a63d079x", "abcdef012345"] {
            assert!(!is_beginning(text), "{text}");
        }
        assert!(is_short_beginning("1220a6") && !is_short_beginning("orders"));
    }

    #[test]
    fn a_whole_id_is_one_and_other_texts_are_looked_up() {
        let id = "sym-00112233445566778899aabbccddeeff";
        assert!(matches!(id.parse(), Ok(KeyReference::Id(_))));
        assert!(matches!("orders".parse(), Ok(KeyReference::Text(_))));
        assert!("".parse::<KeyReference>().is_err());
        assert!(matches!("wk-001122334455".parse(), Ok(WrapperKeyReference::Id(_))));
        assert!(matches!("wk-0011".parse(), Ok(WrapperKeyReference::Beginning(_))));
        assert!(matches!("central-2026".parse(), Ok(WrapperKeyReference::Name(_))));
        for text in ["wk-001", "alias/x", "wk-001x", ""] {
            assert!(text.parse::<WrapperKeyReference>().is_err(), "{text}");
        }
    }
}
