//! Connections and who stands behind them: TLS, identity, live trust, and the two listeners.
//!
//! ```text
//! TcpListener → TLS (client certificate) → Peer, once a connection → admit, each request → Principal → routes
//! ```
//! Nothing else names a caller: headers that claim an identity are never read.

mod admission;
mod anchors;
mod config;
mod connection;
mod crl;
mod deny;
pub mod identity;
mod ops;
mod peer;
mod server;
mod tls;
mod trust;

pub use admission::{Admission, NotAdmitted, admit};
pub use config::{ClientCaConfig, DenyConfig, FileError, Files, ListenConfig, TlsConfig, TlsVersion};
pub use connection::ConnectionLimits;
pub use ops::serve_ops;
pub use peer::Peer;
pub use server::serve;
pub use tls::Material;
pub use trust::{ExpiryKind, Trust};
