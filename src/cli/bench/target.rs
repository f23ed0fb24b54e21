//! What the generator has to know of a service. To measure another one: a file with its `impl Target` and a variant of `TargetKind`.

use http::{Request, StatusCode};
use http_body_util::Full;
use hyper::body::Bytes;
use serde_json::{Map, Value};

use super::BenchArgs;
use crate::cli::Failure;

/// A request, ready to be sent as often as wanted.
pub(super) type Prepared = Request<Full<Bytes>>;

/// Names the reason in an answer that is not a success. A plain function, so that it can run on any thread.
pub(super) type CodeOf = fn(StatusCode, &[u8]) -> String;

/// What to send, and what to say of it in the report.
pub(super) struct Work {
    /// Sent in turn.
    pub(super) requests: Vec<Prepared>,
    /// Facts for the report.
    pub(super) attributes: Map<String, Value>,
}

/// A service that load can be put on.
pub(super) trait Target {
    /// Makes ready what the requests need (keys, ciphertexts), and the requests.
    async fn prepare(&self, args: &BenchArgs) -> Result<Work, Failure>;

    /// How its refusals are named.
    fn code_of(&self) -> CodeOf;
}
