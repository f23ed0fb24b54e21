//! Access tokens of OAuth 2.0 for providers in a cloud: requested by one task at a time, renewed before they expire, and never shown; and requests with
//! them.

mod authorized_server;
mod secret_file;
mod token_cache;
mod token_request;

#[cfg(feature = "gcp-kms")]
pub(super) use self::token_request::{NewToken, request_token_in};
pub(super) use self::{
    authorized_server::{Answered, Api, AuthorizedServer, Failed, Refusal},
    secret_file::{one_line, secret_in, token_in},
    token_cache::{AccessToken, TokenCache, TokenSource},
    token_request::{form, request_token},
};
