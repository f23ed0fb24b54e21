//! Access tokens of OAuth 2.0 for providers in a cloud: requested by one task at a time, renewed before they expire, and never shown; and requests with
//! them.

mod authorized_server;
mod secret_file;
mod token_cache;
mod token_request;

pub(super) use self::{
    authorized_server::{Answered, Api, AuthorizedServer, Failed, Refusal},
    secret_file::secret_in,
    token_cache::{AccessToken, TokenCache, TokenSource},
    token_request::{form, request_token},
};
