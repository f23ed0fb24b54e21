//! `[connections]`: the limits of both listeners, with their defaults.

use std::time::Duration;

use serde::Deserialize;

/// `[connections]`. The defaults suit a vault with a few hundred clients.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ConnectionLimits {
    /// Connections of admitted clients to the API. Default 768.
    pub total: usize,
    /// How many of them only principals that can freeze may use. One principal gets at most a quarter of these. Default 64.
    pub reserved: usize,
    /// Connections of one principal to the API. Default 96.
    pub per_principal: usize,
    /// Connections to the API whose client is not admitted yet: handshakes, and clients that get their refusal. A further one closes one of
    /// the address that has most of them. Default 192.
    pub handshakes: usize,
    /// Connections to the operations listener. A further one closes one of the address that has most of them. Default 64.
    pub ops: usize,
    /// Time from the start of a connection until its client is admitted, or has got its refusal. Default `10s`.
    #[serde(with = "humantime_serde")]
    pub handshake_timeout: Duration,
    /// HTTP/1.1: time from the first byte of a request to the end of its headers. Default `10s`.
    #[serde(with = "humantime_serde")]
    pub header_timeout: Duration,
    /// Time from the headers of a request to the end of its body. Default `10s`.
    #[serde(with = "humantime_serde")]
    pub body_timeout: Duration,
    /// Time in which a client must read an answer. Then its connection is closed. Default `30s`.
    #[serde(with = "humantime_serde")]
    pub answer_timeout: Duration,
    /// Time without a request in progress after which a connection is ended. Default `75s`.
    #[serde(with = "humantime_serde")]
    pub idle_timeout: Duration,
    /// Age at which a connection is ended, after the requests in progress. Clients then see the current certificate. Default `1h`.
    #[serde(with = "humantime_serde")]
    pub max_age: Duration,
    /// Time for the requests in progress when a connection is ended. Default `20s`.
    #[serde(with = "humantime_serde")]
    pub drain_timeout: Duration,
    /// HTTP/2: concurrent requests of one connection to the API. Default 64.
    pub streams: u32,
}

impl Default for ConnectionLimits {
    fn default() -> Self {
        Self {
            total: 768,
            reserved: 64,
            per_principal: 96,
            handshakes: 192,
            ops: 64,
            handshake_timeout: Duration::from_secs(10),
            header_timeout: Duration::from_secs(10),
            body_timeout: Duration::from_secs(10),
            answer_timeout: Duration::from_secs(30),
            idle_timeout: Duration::from_secs(75),
            max_age: Duration::from_hours(1),
            drain_timeout: Duration::from_secs(20),
            streams: 64,
        }
    }
}

/// HTTP/2: concurrent requests of one connection to the operations listener.
pub const OPS_STREAMS: u32 = 2;
/// HTTP/1.1: the buffer for the headers of a request, in bytes. HTTP/2: the headers of one request.
pub const HEADER_BUFFER: u32 = 16 * 1024;
/// HTTP/1.1: the number of headers of a request.
pub const HEADERS: usize = 64;
/// HTTP/2: bytes of one body that a client may send before they are read.
pub const STREAM_WINDOW: u32 = 32 * 1024;
/// HTTP/2: bytes of all bodies of one connection that a client may send before they are read. The protocol has no smaller value (RFC 9113 §6.9.2).
pub const CONNECTION_WINDOW: u32 = 65_535;
/// Bytes of answers that wait in TLS for a client that does not read.
pub const TLS_BUFFER: usize = 16 * 1024;
/// The buffers of one socket in the kernel, in bytes: each direction, as requested. Linux doubles it for its own use (socket(7)).
pub const SOCKET_BUFFER: u32 = 32 * 1024;
/// How long a connection that ends stays open for bytes that the client sends before it reads its last answer or alert.
pub(super) const LINGER: Duration = Duration::from_secs(2);
/// How many such bytes are read and discarded.
pub(super) const LINGER_BYTES: u64 = 2 * 1024 * 1024;
