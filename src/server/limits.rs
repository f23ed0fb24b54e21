//! Every limit on what callers and clients can consume, in one table. `docs/limits.md` is made from this table and from the table of routes.
//!
//! The values are those that the code uses: the constants of each limit, and the defaults of `[limits]` and `[connections]`.

use std::fmt::Write as _;

use crate::{
    api::{BODY_LIMIT, CIPHERTEXT_LIMIT, CODES, MAX_LIMIT, MESSAGE_LIMIT, routes},
    crypto::canton::MAX_PASSWORD,
    domain::WorkKind,
    mtls::{CONNECTION_WINDOW, ConnectionLimits, HEADER_BUFFER, HEADERS, OPS_STREAMS, SOCKET_BUFFER, STREAM_WINDOW, TLS_BUFFER},
    traces::CALLER_SHARE,
    vault::{
        BODIES, BODIES_TOTAL, CONCURRENT_INCIDENT, Code, DERIVATIONS, EXPORT_TIME, EXPORTS, EXPORTS_TOTAL, LONG_ANSWERS,
        LONG_ANSWERS_TOTAL, LimitsConfig, MAX_TRANSACTIONS, PATIENCE, REPEATED_FREEZES_PER_MINUTE, RESERVED_REQUESTS, SMALL_BODY,
        limits_of,
    },
};

/// A limit.
pub struct Limit {
    /// Its name.
    pub name: &'static str,
    /// What it counts.
    pub counts: &'static str,
    /// For whom it counts.
    pub scope: Scope,
    /// Its value without a configuration.
    pub value: fn(&LimitsConfig, &ConnectionLimits) -> String,
    /// The option that changes it. `None` if it is fixed.
    pub option: Option<&'static str>,
    /// What happens beyond it.
    pub beyond: Beyond,
}

/// For whom a limit counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// Each principal.
    Principal,
    /// All callers together.
    Process,
    /// Each connection.
    Connection,
    /// Each request.
    Request,
}

/// What happens beyond a limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Beyond {
    /// The call is refused with this code.
    Refused(Code),
    /// The call waits for its turn.
    Waits,
    /// The call waits at most [`PATIENCE`], then it is refused.
    WaitsThenRefused,
    /// Something else, in words.
    Other(&'static str),
}

const TOO_MANY: Beyond = Beyond::Refused(Code::TooManyRequests);
const CLOSED: Beyond = Beyond::Other("the connection is closed");

/// Every limit, once.
pub const LIMITS: &[Limit] = &[
    limit(
        "requests",
        "requests in progress, each until its answer was sent",
        Scope::Principal,
        |l, _| l.concurrent.to_string(),
        Some("[limits] concurrent"),
        TOO_MANY,
    ),
    limit(
        "requests of all",
        "the same; a quarter is for principals with few in progress",
        Scope::Process,
        |l, _| format!("{}, few: {RESERVED_REQUESTS}", l.concurrent_total),
        Some("[limits] concurrent_total"),
        TOO_MANY,
    ),
    limit(
        "freezes and disables",
        "of these in progress: they have places of their own",
        Scope::Principal,
        |_, _| CONCURRENT_INCIDENT.to_string(),
        None,
        TOO_MANY,
    ),
    limit(
        "repeated freezes",
        "freezes of a vault that is frozen already; others are not counted",
        Scope::Principal,
        |_, _| per_minute(REPEATED_FREEZES_PER_MINUTE),
        None,
        TOO_MANY,
    ),
    limit(
        "creations",
        "calls that create, import, rotate or re-seal a key",
        Scope::Principal,
        |l, _| per_minute(l.creations_per_minute),
        Some("[limits] creations_per_minute"),
        TOO_MANY,
    ),
    limit(
        "changes",
        "other calls that change state, except freeze and disable",
        Scope::Principal,
        |l, _| per_minute(l.changes_per_minute),
        Some("[limits] changes_per_minute"),
        TOO_MANY,
    ),
    limit(
        "information",
        "calls that need no grant",
        Scope::Principal,
        |l, _| format!("{} a second, at once {}", l.information_per_second, l.information_per_second.saturating_mul(60)),
        Some("[limits] information_per_second"),
        TOO_MANY,
    ),
    limit(
        "keys opened",
        "uses of keys that are not in memory",
        Scope::Principal,
        |l, _| format!("{} a second, at once {}", l.cache_misses_per_second, l.cache_misses_per_second.saturating_mul(10)),
        Some("[limits] cache_misses_per_second"),
        TOO_MANY,
    ),
    limit(
        "heavy work",
        "RSA key generations and decryptions, key files, exports and long topology transactions that run or wait",
        Scope::Principal,
        |l, _| l.concurrent_heavy.to_string(),
        Some("[limits] concurrent_heavy"),
        TOO_MANY,
    ),
    limit(
        "heavy work in parallel",
        "of these, at the same time: all principals one for each core but one, and at least 1",
        Scope::Principal,
        |_, _| "half of those".into(),
        None,
        Beyond::Waits,
    ),
    limit(
        "derivations",
        "derivations of keys from passwords; one for each principal",
        Scope::Process,
        |_, _| DERIVATIONS.to_string(),
        None,
        Beyond::Waits,
    ),
    limit(
        "queries",
        "queries of the audit log, and calls that look for uses of a key in it (`withdraw`)",
        Scope::Principal,
        |l, _| l.concurrent_queries.to_string(),
        Some("[limits] concurrent_queries"),
        TOO_MANY,
    ),
    limit(
        "long answers",
        "lists and decoded topology transactions, each until its answer was sent",
        Scope::Principal,
        |_, _| LONG_ANSWERS.to_string(),
        None,
        Beyond::WaitsThenRefused,
    ),
    limit(
        "long answers of all",
        "the same, and queries",
        Scope::Process,
        |_, _| LONG_ANSWERS_TOTAL.to_string(),
        None,
        Beyond::WaitsThenRefused,
    ),
    limit("exports", "exports of the audit log, each until its end was sent", Scope::Principal, |_, _| EXPORTS.to_string(), None, TOO_MANY),
    limit("exports of all", "the same", Scope::Process, |_, _| EXPORTS_TOTAL.to_string(), None, TOO_MANY),
    limit(
        "export",
        "time of one export of the audit log",
        Scope::Request,
        |_, _| time(EXPORT_TIME),
        None,
        Beyond::Other("it ends without its last line, and is resumed with `after`"),
    ),
    limit("body", "bytes of a body", Scope::Request, |_, _| kib(BODY_LIMIT), None, Beyond::Refused(Code::TooLarge)),
    limit(
        "bodies",
        "bytes of bodies, each until its answer was sent; the first bytes of each do not count",
        Scope::Principal,
        |_, _| format!("{}, first {}", kib(BODIES), kib(SMALL_BODY)),
        None,
        TOO_MANY,
    ),
    limit("bodies of all", "the same", Scope::Process, |_, _| kib(BODIES_TOTAL), None, Beyond::WaitsThenRefused),
    limit(
        "message",
        "bytes to sign or to encrypt",
        Scope::Request,
        |_, _| MESSAGE_LIMIT.to_string(),
        None,
        Beyond::Refused(Code::TooLarge),
    ),
    limit("ciphertext", "bytes to decrypt", Scope::Request, |_, _| CIPHERTEXT_LIMIT.to_string(), None, Beyond::Refused(Code::TooLarge)),
    limit(
        "transactions",
        "topology transactions under one signature",
        Scope::Request,
        |_, _| MAX_TRANSACTIONS.to_string(),
        None,
        Beyond::Refused(Code::InvalidRequest),
    ),
    limit(
        "password",
        "bytes of the password of a key file",
        Scope::Request,
        |_, _| MAX_PASSWORD.to_string(),
        None,
        Beyond::Refused(Code::InvalidMaterial),
    ),
    limit("page", "items of a page", Scope::Request, |_, _| MAX_LIMIT.to_string(), None, Beyond::Refused(Code::InvalidRequest)),
    limit(
        "refusals",
        "refusals with an entry of their own",
        Scope::Principal,
        |l, _| format!("{} a second", l.refusals_per_second),
        Some("[limits] refusals_per_second"),
        Beyond::Other("one entry counts the others"),
    ),
    limit(
        "spans",
        "spans that wait for the collector of `[traces]`; background work of the vault counts as one principal",
        Scope::Principal,
        |_, _| format!("1/{CALLER_SHARE} of `[traces] queue`"),
        None,
        Beyond::Other("the span is dropped and counted; the call goes on"),
    ),
    limit(
        "connections",
        "connections of admitted clients to the API",
        Scope::Process,
        |_, c| c.total.to_string(),
        Some("[connections] total"),
        Beyond::Other("the new one is closed, unless its principal can freeze"),
    ),
    limit(
        "reserved connections",
        "of these, for principals that can freeze; one gets at most a quarter",
        Scope::Process,
        |_, c| c.reserved.to_string(),
        Some("[connections] reserved"),
        Beyond::Other("the new one is closed"),
    ),
    limit(
        "connections of one",
        "connections to the API; a warning names the principal, at most once a minute",
        Scope::Principal,
        |_, c| c.per_principal.to_string(),
        Some("[connections] per_principal"),
        Beyond::Other("the new one is closed"),
    ),
    limit(
        "handshakes",
        "connections to the API whose client is not admitted",
        Scope::Process,
        |_, c| c.handshakes.to_string(),
        Some("[connections] handshakes"),
        Beyond::Other(
            "the new one gets in. One of the address (IPv6: /64) that has most of them is closed: the oldest in the stage (silent, speaking) in which most of these are",
        ),
    ),
    limit(
        "operations",
        "connections to the operations listener",
        Scope::Process,
        |_, c| c.ops.to_string(),
        Some("[connections] ops"),
        Beyond::Other("the same, so that a health probe gets in"),
    ),
    limit(
        "streams",
        "HTTP/2: requests at the same time",
        Scope::Connection,
        |_, c| format!("{}, operations {OPS_STREAMS}", c.streams),
        Some("[connections] streams"),
        Beyond::Other("the client must wait"),
    ),
    limit(
        "handshake time",
        "until the client is admitted, or has its 401. A client that is not admitted never gets a place under `total`",
        Scope::Connection,
        |_, c| time(c.handshake_timeout),
        Some("[connections] handshake_timeout"),
        CLOSED,
    ),
    limit(
        "header time",
        "HTTP/1.1: from the first byte to the end of the headers",
        Scope::Request,
        |_, c| time(c.header_timeout),
        Some("[connections] header_timeout"),
        CLOSED,
    ),
    limit(
        "headers",
        "bytes and number of headers (number: HTTP/1.1)",
        Scope::Request,
        |_, _| format!("{}, {HEADERS}", kib(HEADER_BUFFER as usize)),
        None,
        Beyond::Other("the status is 431, or the stream is reset"),
    ),
    limit(
        "body time",
        "from the headers to the end of the body",
        Scope::Request,
        |_, c| time(c.body_timeout),
        Some("[connections] body_timeout"),
        Beyond::Refused(Code::RequestTimeout),
    ),
    limit(
        "answer time",
        "from the answer until the client has read it (HTTP/1.1 and HTTP/2)",
        Scope::Request,
        |_, c| time(c.answer_timeout),
        Some("[connections] answer_timeout"),
        CLOSED,
    ),
    limit(
        "idle time",
        "without a request in progress (HTTP/1.1 and HTTP/2; pings do not count)",
        Scope::Connection,
        |_, c| time(c.idle_timeout),
        Some("[connections] idle_timeout"),
        Beyond::Other("the connection is ended: GOAWAY, or closed"),
    ),
    limit(
        "age",
        "of a connection",
        Scope::Connection,
        |_, c| time(c.max_age),
        Some("[connections] max_age"),
        Beyond::Other("the connection is ended after the requests in progress"),
    ),
    limit(
        "drain time",
        "for requests in progress when a connection is ended",
        Scope::Connection,
        |_, c| time(c.drain_timeout),
        Some("[connections] drain_timeout"),
        CLOSED,
    ),
    limit(
        "received bytes",
        "HTTP/2: bytes of bodies that are not read yet, of one request and of all",
        Scope::Connection,
        |_, _| format!("{} and {}", kib(STREAM_WINDOW as usize), kib(CONNECTION_WINDOW as usize + 1)),
        None,
        Beyond::Other("the client must wait"),
    ),
    limit("unsent bytes", "bytes of answers in the buffer of TLS", Scope::Connection, |_, _| kib(TLS_BUFFER), None, Beyond::Waits),
    limit(
        "socket buffers",
        "bytes in the kernel, in each direction; Linux takes up to twice as many",
        Scope::Connection,
        |_, _| kib(SOCKET_BUFFER as usize),
        None,
        Beyond::Other("the sender must wait"),
    ),
];

const fn limit(
    name: &'static str,
    counts: &'static str,
    scope: Scope,
    value: fn(&LimitsConfig, &ConnectionLimits) -> String,
    option: Option<&'static str>,
    beyond: Beyond,
) -> Limit {
    Limit { name, counts, scope, value, option, beyond }
}

/// A rate, and what is allowed at once: a minute's worth.
fn per_minute(number: u32) -> String {
    format!("{number} a minute, also at once")
}

fn kib(bytes: usize) -> String {
    format!("{} KiB", bytes / 1024)
}

fn time(duration: std::time::Duration) -> String {
    humantime::format_duration(duration).to_string()
}

impl Scope {
    const fn described(self) -> &'static str {
        match self {
            Self::Principal => "principal",
            Self::Process => "process",
            Self::Connection => "connection",
            Self::Request => "request",
        }
    }
}

impl Beyond {
    /// What happens, and the header `Retry-After`.
    fn described(self) -> (String, &'static str) {
        let refused = |code: Code| {
            let status = CODES.iter().find(|known| known.code == code).map_or(500, |known| known.status);
            format!("{status} `{code}`")
        };
        match self {
            Self::Refused(Code::TooManyRequests) => (refused(Code::TooManyRequests), "yes"),
            Self::Refused(Code::RequestTimeout) => (refused(Code::RequestTimeout), "yes"),
            Self::Refused(code) => (refused(code), "no"),
            Self::Waits => ("it waits".into(), "–"),
            Self::WaitsThenRefused => (format!("it waits, at most {}, then {}", time(PATIENCE), refused(Code::TooManyRequests)), "yes"),
            Self::Other(what) => (what.into(), "–"),
        }
    }
}

const HEAD: &str = "# Limits\n\nMade from the table in `src/server/limits.rs` and the table of routes; a test compares. Every resource that a caller or a client can use has
a limit. What one principal uses up is not refused to another one. `freeze` and `disable` are not refused for any other work, also not of the
same caller.\n\n`Retry-After` is the time until one more call is allowed: at a rate, until the next one; otherwise 1 second. Refused calls have an audit entry.\n\n";

/// The tables as a Markdown page.
pub fn documentation() -> String {
    let mut page = String::from(HEAD);
    page.push_str("| limit | counts | for each | default | option | beyond it | `Retry-After` |\n|---|---|---|---|---|---|---|\n");
    let (limits, connections) = (LimitsConfig::default(), ConnectionLimits::default());
    for Limit { name, counts, scope, value, option, beyond } in LIMITS {
        let option = option.map_or_else(|| "fixed".to_owned(), |option| format!("`{option}`"));
        let (beyond, retry_after) = beyond.described();
        let value = value(&limits, &connections);
        let _ = writeln!(page, "| {name} | {counts} | {} | {value} | {option} | {beyond} | {retry_after} |", scope.described());
    }
    page.push_str("\n## Kinds of work\n\nEach call has a kind of work, which decides its limits. The limits of connections and requests hold for all.\n\n| kind | calls | limits |\n|---|---|---|\n");
    for kind in WorkKind::ALL {
        let calls = routes().into_iter().filter(|(_, operation)| operation.and_then(crate::domain::Operation::work_kind) == Some(*kind));
        let calls: Vec<String> = calls.map(|(route, _)| format!("`{route}`")).collect();
        let calls = if calls.is_empty() { "every other path or method".into() } else { calls.join(", ") };
        let _ = writeln!(page, "| {kind} | {calls} | {} |", limits_of(*kind).join(", "));
    }
    page
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn the_page_of_limits_is_the_table() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/limits.md");
        if std::env::var_os("KEYVAULT_WRITE_DOCUMENTS").is_some() {
            std::fs::write(path, documentation()).unwrap();
        }
        let page = std::fs::read_to_string(path).unwrap_or_default();
        assert!(page == documentation(), "renew it: KEYVAULT_WRITE_DOCUMENTS=1 cargo test --lib");
    }

    #[test]
    fn every_route_has_a_kind_of_work_and_every_limit_of_it_is_in_the_table() {
        let names: BTreeSet<&str> = LIMITS.iter().map(|limit| limit.name).collect();
        assert_eq!(names.len(), LIMITS.len(), "a name is there twice");
        let routes = routes();
        assert!(routes.len() >= 35, "{}", routes.len());
        for (route, operation) in routes {
            let kind = operation.and_then(crate::domain::Operation::work_kind);
            let kind = kind.unwrap_or_else(|| panic!("{route} has no kind of work: see Operation::work_kind"));
            assert_ne!(kind, WorkKind::NoRoute, "{route}");
            for name in limits_of(kind) {
                assert!(names.contains(name), "{route}: {name} is not in the table");
            }
        }
    }

    /// An option that is added to `[limits]` or `[connections]` needs a row.
    #[test]
    fn every_option_has_a_row() {
        let example = include_str!("../../deploy/keyvault.toml");
        let mut section = "";
        let mut found = BTreeSet::new();
        for line in example.lines() {
            if line.starts_with('[') {
                section = line;
            } else if let Some((option, _)) = line.trim_start_matches("# ").split_once(" = ")
                && ["[limits]", "[connections]"].contains(&section)
                && !option.contains(' ')
            {
                found.insert(format!("{section} {option}"));
            }
        }
        let rows: BTreeSet<String> = LIMITS.iter().filter_map(|limit| limit.option.map(str::to_owned)).collect();
        assert_eq!(found, rows);
    }
}
