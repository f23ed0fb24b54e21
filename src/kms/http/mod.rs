//! The HTTP/1.1 client of the providers: one server, kept connections, answers of limited size that are wiped.

mod address;
#[cfg(any(feature = "openbao-transit", feature = "gcp-kms", feature = "azure-key-vault"))]
mod connection;
#[cfg(any(feature = "openbao-transit", feature = "gcp-kms", feature = "azure-key-vault"))]
mod server;

pub(super) use self::address::{Address, NotAnAddress};
#[cfg(any(feature = "openbao-transit", feature = "gcp-kms", feature = "azure-key-vault"))]
pub(super) use self::{
    connection::ServerAddress,
    server::{HttpRequest, HttpResponse, HttpServer, Recording},
};
