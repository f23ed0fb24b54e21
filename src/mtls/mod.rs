//! Connections and who stands behind them: TLS, identity, live trust, and the two listeners.
//!
//! ```text
//! TcpListener → TLS (client certificate) → Peer, once a connection → admit, each request → Principal → routes
//! ```
//! Nothing else names a caller: headers that claim an identity are never read.

mod admission;
mod config;
mod connection;
mod crl;
mod deny_list;
pub mod identity;
mod ops;
mod peer;
mod server;
mod tls;
mod trust;
mod trust_anchors;

pub use self::admission::{Admission, NotAdmitted, admit};
pub use self::config::{ClientCaConfig, DenyConfig, FileError, Files, ListenConfig, TlsConfig, TlsVersion};
pub use self::connection::ConnectionLimits;
pub use self::ops::serve_ops;
pub use self::peer::Peer;
pub use self::server::serve;
pub use self::tls::Material;
pub use self::trust::{ExpiryKind, Trust};
