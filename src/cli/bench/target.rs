//! The interface of a measured service. To measure another one, add a file with its `impl BenchTarget` and a variant of `TargetKind`.

use http::{Request, StatusCode};
use http_body_util::Full;
use hyper::body::Bytes;
use serde_json::{Map, Value};

use super::BenchArgs;
use crate::cli::Failure;

/// A request, ready to be sent any number of times.
pub(super) type Prepared = Request<Full<Bytes>>;

/// Names the reason of an unsuccessful answer. A plain function, so that it can run on any thread.
pub(super) type CodeOf = fn(StatusCode, &[u8]) -> String;

/// The requests, and the attributes for the report.
pub(super) struct Workload {
    /// Sent in turn.
    pub(super) requests: Vec<Prepared>,
    /// Attributes for the report.
    pub(super) attributes: Map<String, Value>,
}

/// A service that can be measured.
pub(super) trait BenchTarget {
    /// Prepares the requests and what they need (keys, ciphertexts).
    async fn prepare(&self, args: &BenchArgs) -> Result<Workload, Failure>;

    /// How its refusals are named.
    fn code_of(&self) -> CodeOf;
}
