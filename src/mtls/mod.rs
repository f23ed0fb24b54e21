//! Mutual TLS: connections, the identity of clients, the trust that is reloaded while the vault serves, and the two listeners.
//!
//! ```text
//! TcpListener → TLS (client certificate) → Peer, once a connection → admit, each request → Principal → routes
//! ```
//! The client certificate is the only source of the identity. Headers that claim an identity are never read.

mod activity;
mod admission;
mod answer;
mod arrivals;
mod body;
mod certificate;
mod config;
mod connection;
mod crl;
mod deny_list;
mod expiry;
pub mod identity;
mod limits;
mod loopback;
mod name;
mod ops;
mod peer;
mod places;
mod refusal;
mod refusal_log;
mod revocation;
mod server;
mod server_certificate;
mod tls;
mod trust;
mod trust_anchors;

pub use self::admission::admit;
pub use self::answer::HeldByAnswer;
pub use self::body::BodyTimeout;
pub use self::config::{ClientCaConfig, DenyConfig, FileError, Files, ListenConfig, TlsConfig, TlsVersion};
pub use self::expiry::{Expiry, ExpiryKind};
pub use self::limits::{
    CONNECTION_WINDOW, ConnectionLimits, HEADER_BUFFER, HEADERS, OPS_STREAMS, SOCKET_BUFFER, STREAM_WINDOW, TLS_BUFFER,
};
pub use self::loopback::serve_loopback;
pub use self::ops::serve_ops;
pub use self::peer::Peer;
pub use self::refusal::NotAdmitted;
pub use self::refusal_log::{RefusalObserver, RefusedCertificate, RefusedClient};
pub use self::server::{MayFreeze, serve};
pub use self::tls::TlsMaterial;
pub use self::trust::Trust;
