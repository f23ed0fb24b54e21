//! `[traces]`: where the spans of calls are sent, and of how many calls.

use std::{
    net::IpAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use serde::Deserialize;

/// `[traces]`
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TracesConfig {
    /// The base URL of a collector that takes OTLP/HTTP, `https://host[:port][/path]`. `/v1/traces` is appended. Required.
    pub endpoint: String,
    /// PEM: the CAs that may sign the certificate of the collector. The CAs of the system are not used. Required for https.
    pub ca: Option<PathBuf>,
    /// A file with request headers, one `name: value` on each line, such as an `Authorization`. It is read for every request. Default: none.
    pub headers_file: Option<PathBuf>,
    /// The share of the calls without a caller's decision, and of background work, that is traced, 0 to 1. Default 1.
    #[serde(default = "sample_ratio")]
    pub sample_ratio: f64,
    /// How many spans wait in memory for the collector, a quarter of them at most of one caller. Further ones are dropped and counted. 16 to 100000;
    /// default 1024.
    #[serde(default = "queue")]
    pub queue: usize,
    /// How long one request to the collector may take. 100 ms to 1 min; default `10s`.
    #[serde(default = "timeout", with = "humantime_serde")]
    pub timeout: Duration,
    /// Allows http to another machine, where the network can read the spans and the headers. Default `false`.
    #[serde(default)]
    pub plain_http: bool,
}

impl TracesConfig {
    /// Makes relative paths relative to the folder of the configuration.
    pub fn resolve(&mut self, folder: &Path) {
        for path in [&mut self.ca, &mut self.headers_file].into_iter().flatten() {
            *path = folder.join(&*path);
        }
    }

    /// The first wrong option and its remedy.
    pub fn problem(&self) -> Option<(&'static str, &'static str)> {
        let Self { endpoint, ca, headers_file: _, sample_ratio, queue, timeout, plain_http } = self;
        let uri = endpoint.parse::<http::Uri>().ok();
        let authority = uri.as_ref().and_then(http::Uri::authority).filter(|authority| !authority.as_str().contains('@'));
        let is_https = match (uri.as_ref().and_then(http::Uri::scheme_str), authority) {
            (Some("https"), Some(_)) => Some(true),
            (Some("http"), Some(_)) => Some(false),
            _ => None,
        };
        let has_query = endpoint.contains(['?', '#']);
        let wrong = |option, problem| Some((option, problem));
        match is_https {
            None => wrong("[traces] endpoint", "is not https://host[:port][/path], without a user name"),
            Some(_) if has_query => wrong("[traces] endpoint", "has a query or a fragment; /v1/traces is appended, so remove it"),
            Some(true) if ca.is_none() => {
                wrong("[traces] ca", "is missing: name the PEM file of the CA that vouches for the certificate of the collector")
            }
            Some(false) if ca.is_some() => wrong("[traces] ca", "has no effect on plain http; write https, or remove it"),
            Some(false) if !plain_http && !authority.is_some_and(|authority| is_loopback(authority.host())) => wrong(
                "[traces] endpoint",
                "is plain http to another machine, where the network can read the spans; write https, or set plain_http = true",
            ),
            Some(_) if !(0.0..=1.0).contains(sample_ratio) => wrong("[traces] sample_ratio", "is not between 0 and 1"),
            Some(_) if !(16..=100_000).contains(queue) => wrong("[traces] queue", "is not between 16 and 100000"),
            Some(_) if !(Duration::from_millis(100)..=Duration::from_mins(1)).contains(timeout) => {
                wrong("[traces] timeout", "is not between 100ms and 1m")
            }
            Some(_) => None,
        }
    }

    /// The URL that spans are posted to.
    pub(super) fn url(&self) -> String {
        format!("{}/v1/traces", self.endpoint.trim_end_matches('/'))
    }
}

fn is_loopback(host: &str) -> bool {
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    host == "localhost" || address.is_ok_and(|address| address.is_loopback())
}

const fn sample_ratio() -> f64 {
    1.0
}

const fn queue() -> usize {
    1024
}

const fn timeout() -> Duration {
    Duration::from_secs(10)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(text: &str) -> String {
        let config = toml::from_str::<TracesConfig>(text);
        config.map_or_else(
            |error| error.message().to_owned(),
            |config| config.problem().map_or_else(String::new, |(option, problem)| format!("{option}: {problem}")),
        )
    }

    #[test]
    fn every_wrong_option_is_named_with_its_remedy() {
        const HTTPS: &str = "endpoint = 'https://collector:4318/otlp/'\nca = 'ca.pem'\n";
        assert_eq!(problem(HTTPS), "");
        assert_eq!(toml::from_str::<TracesConfig>(HTTPS).unwrap().url(), "https://collector:4318/otlp/v1/traces");
        for local in ["http://127.0.0.1:4318", "http://localhost:4318", "http://[::1]:4318"] {
            assert_eq!(problem(&format!("endpoint = '{local}'")), "", "{local}");
        }
        assert_eq!(problem("endpoint = 'http://collector:4318'\nplain_http = true"), "");
        for (text, says) in [
            ("", "missing field `endpoint`"),
            ("endpoint = 'collector:4318'", "endpoint: is not https://host"),
            ("endpoint = 'https://u@collector'\nca = 'c'", "endpoint: is not https://host"),
            ("endpoint = 'https://collector/?a=b'\nca = 'c'", "endpoint: has a query"),
            ("endpoint = 'https://collector'", "ca: is missing"),
            ("endpoint = 'http://localhost'\nca = 'c'", "ca: has no effect on plain http"),
            ("endpoint = 'http://collector'", "endpoint: is plain http to another machine"),
            ("endpoint = 'http://localhost'\nsample_ratio = 1.5", "sample_ratio: is not between 0 and 1"),
            ("endpoint = 'http://localhost'\nsample_ratio = nan", "sample_ratio: is not between 0 and 1"),
            ("endpoint = 'http://localhost'\nqueue = 1", "queue: is not between"),
            ("endpoint = 'http://localhost'\ntimeout = '0s'", "timeout: is not between"),
            ("endpoint = 'http://localhost'\ntoken = 'x'", "unknown field `token`"),
        ] {
            let found = problem(text);
            assert!(found.contains(says), "{text}: {found}");
        }
    }
}
