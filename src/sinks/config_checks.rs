//! The checks of `[[audit.sinks]]`: the first wrong option, with its remedy.

use std::{collections::HashSet, path::PathBuf, time::Duration};

use super::{
    FileSinkConfig, HttpSinkConfig, MAX_SINKS, SinkConfig, SinkMode, SinkOptions, SinkTarget, SyslogSinkConfig,
    endpoint::{HttpUrl, SyslogAddress},
};

/// The first wrong option of the sinks, with its remedy.
pub fn problem(sinks: &[SinkConfig]) -> Option<(String, String)> {
    if sinks.len() > MAX_SINKS {
        return Some(("[[audit.sinks]]".into(), format!("has {} sinks; at most {MAX_SINKS} are possible", sinks.len())));
    }
    let (mut names, mut paths, mut stdout) = (HashSet::new(), HashSet::new(), false);
    for sink in sinks {
        let name = &sink.options.name;
        let option = |option: &str| format!("[[audit.sinks]] {name}: {option}");
        if let Some((of, problem)) = sink.problem() {
            return Some((option(of), problem));
        }
        if !names.insert(name) {
            return Some((option("name"), "is the name of two sinks; give each a name of its own".into()));
        }
        match &sink.target {
            SinkTarget::File(file) if !paths.insert(&file.path) => {
                return Some((option("path"), "is the file of two sinks; give each a file of its own".into()));
            }
            SinkTarget::Stdout if std::mem::replace(&mut stdout, true) => {
                return Some((option("kind"), "is the second sink on standard output; remove one".into()));
            }
            _ => {}
        }
    }
    None
}

impl SinkConfig {
    /// A wrong option and its remedy.
    fn problem(&self) -> Option<(&'static str, String)> {
        let SinkOptions { name, mode, from: _, timeout, max_lag } = &self.options;
        let valid = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-';
        let range = |option, range: &str| Some((option, format!("is not between {range}")));
        if !(1..=32).contains(&name.len()) || !name.bytes().all(valid) {
            return Some(("name", "is not 1 to 32 lower case letters, digits and hyphens".into()));
        }
        if !(Duration::from_millis(100)..=Duration::from_mins(1)).contains(timeout) {
            return range("timeout", "100ms and 1m");
        }
        if max_lag.is_some_and(|lag| lag < 100) {
            return Some(("max_lag", "is below 100; give a number of entries, or remove it".into()));
        }
        if max_lag.is_some() && *mode == SinkMode::Required {
            return Some(("max_lag", "belongs to a best-effort sink: a required sink gets every entry; remove it".into()));
        }
        match &self.target {
            SinkTarget::Stdout => None,
            SinkTarget::File(FileSinkConfig { path, rotate_bytes, kept_files }) => match () {
                () if path.file_name().is_none() => Some(("path", "names no file".into())),
                () if *rotate_bytes < 65536 => Some(("rotate_bytes", "is below 65536; give a number of bytes such as 104857600".into())),
                () if !(1..=10_000).contains(kept_files) => range("kept_files", "1 and 10000"),
                () => None,
            },
            SinkTarget::Http(http) => http.problem(),
            SinkTarget::Syslog(syslog) => syslog.problem(),
        }
    }
}

impl HttpSinkConfig {
    fn problem(&self) -> Option<(&'static str, String)> {
        let Self { url, format: _, ca, certificate, key, token_file: _, plain_http } = self;
        let Some(url) = HttpUrl::parse(url) else {
            return Some(("url", "is not https://host[:port]/path, without a user name and a fragment".into()));
        };
        match () {
            () if !url.tls && !url.is_loopback() && !plain_http => Some((
                "url",
                "is plain http to another machine, where the network can read and change the entries; write https, or set plain_http = true".into(),
            )),
            () if url.tls && ca.is_none() => Some(("ca", "is missing: name the PEM file of the CA that vouches for the server".into())),
            () if !url.tls && (ca.is_some() || certificate.is_some()) => {
                Some(("url", "is plain http, which uses neither ca nor certificate; write https, or remove them".into()))
            }
            () => pair(certificate.as_ref(), key.as_ref()),
        }
    }
}

impl SyslogSinkConfig {
    fn problem(&self) -> Option<(&'static str, String)> {
        let Self { address, ca: _, certificate, key, facility, hostname, structured_data } = self;
        // RFC 5424 §6: PRINTUSASCII, and in names of structured data neither =, ] nor ".
        let printable = |text: &str, most: usize| (1..=most).contains(&text.len()) && text.bytes().all(|c| c.is_ascii_graphic());
        let is_id = |text: &str| {
            printable(text, 32)
                && !text.contains(['=', ']', '"'])
                && text.split_once('@').is_some_and(|(name, number)| {
                    !name.is_empty() && !number.is_empty() && number.bytes().all(|c| c.is_ascii_digit() || c == b'.')
                })
        };
        match () {
            () if SyslogAddress::parse(address).is_none() => {
                Some(("address", "is not host:port; write, for example, syslog.example.org:6514".into()))
            }
            () if *facility > 23 => Some(("facility", "is not between 0 and 23".into())),
            () if hostname.as_ref().is_some_and(|name| !printable(name, 255)) => {
                Some(("hostname", "is not 1 to 255 printable ASCII characters without spaces".into()))
            }
            () if !is_id(structured_data) => Some(("structured_data", "is not a name, @ and a number, such as keyvault@32473".into())),
            () => pair(certificate.as_ref(), key.as_ref()),
        }
    }
}

/// Certificate and key are given together or not at all.
fn pair(certificate: Option<&PathBuf>, key: Option<&PathBuf>) -> Option<(&'static str, String)> {
    match (certificate, key) {
        (Some(_), None) => Some(("key", "is missing: name the PEM file of the private key of certificate".into())),
        (None, Some(_)) => Some(("certificate", "is missing: name the PEM file of the certificate of key".into())),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Deserialize)]
    struct Audit {
        sinks: Vec<SinkConfig>,
    }

    fn fault(text: &str) -> String {
        match toml::from_str::<Audit>(text) {
            Ok(audit) => problem(&audit.sinks).map_or_else(String::new, |(option, problem)| format!("{option}: {problem}")),
            Err(error) => error.message().to_owned(),
        }
    }

    #[test]
    fn every_wrong_option_is_named_with_its_remedy() {
        const FILE: &str = "name = 'a'\nmode = 'best-effort'\nkind = 'file'\npath = 'x'";
        const HTTP: &str = "name = 'a'\nmode = 'required'\nkind = 'http'\nca = 'ca.pem'\nurl = 'https://siem:8443/in'";
        const SYSLOG: &str = "name = 'a'\nmode = 'required'\nkind = 'syslog'\nca = 'ca.pem'\naddress = 'siem:6514'";
        const STDOUT: &str = "name = 'a'\nmode = 'required'\nkind = 'stdout'";
        for valid in [FILE, HTTP, SYSLOG, STDOUT] {
            assert_eq!(fault(&format!("[[sinks]]\n{valid}")), "");
        }
        for (from, edit, says) in [
            (FILE, ("name = 'a'", "name = 'A b'"), "[[audit.sinks]] A b: name: is not 1 to 32"),
            (FILE, ("best-effort", "optional"), "[[audit.sinks]] a: unknown variant `optional`"),
            (FILE, ("mode = 'best-effort'", ""), "[[audit.sinks]] a: missing field `mode`"),
            (FILE, ("'file'", "'kafka'"), "[[audit.sinks]] a: kind is none of file, stdout, syslog, http"),
            (FILE, ("path = 'x'", ""), "missing field `path`"),
            (FILE, ("path = 'x'", "path = 'x'\nurl = 'y'"), "[[audit.sinks]] a: unknown field `url`"),
            (FILE, ("path = 'x'", "path = 'x'\ntimeout = '1h'"), "a: timeout: is not between 100ms and 1m"),
            (FILE, ("path = 'x'", "path = 'x'\nmax_lag = 1"), "a: max_lag: is below 100"),
            (FILE, ("path = 'x'", "path = 'x'\nrotate_bytes = 1"), "a: rotate_bytes: is below 65536"),
            (FILE, ("path = 'x'", "path = 'x'\nkept_files = 0"), "a: kept_files: is not between 1 and 10000"),
            (HTTP, ("url", "max_lag = 5000\nurl"), "a: max_lag: belongs to a best-effort sink"),
            (HTTP, ("https://siem:8443/in", "siem"), "a: url: is not https://host"),
            (HTTP, ("https://siem:8443/in", "https://u@siem/in"), "a: url: is not https://host"),
            (HTTP, ("ca = 'ca.pem'\nurl = 'https", "url = 'http"), "a: url: is plain http to another machine"),
            (HTTP, ("https://siem:8443", "http://127.0.0.1:1"), "a: url: is plain http, which uses neither ca nor certificate"),
            (HTTP, ("ca = 'ca.pem'\n", ""), "a: ca: is missing"),
            (HTTP, ("ca = ", "certificate = 'c'\nca = "), "a: key: is missing"),
            (HTTP, ("ca = ", "format = 'xml'\nca = "), "a: unknown variant `xml`"),
            (SYSLOG, ("siem:6514", "siem"), "a: address: is not host:port"),
            (SYSLOG, ("ca = 'ca.pem'\n", ""), "missing field `ca`"),
            (SYSLOG, ("ca = ", "key = 'c'\nca = "), "a: certificate: is missing"),
            (SYSLOG, ("ca = ", "facility = 24\nca = "), "a: facility: is not between 0 and 23"),
            (SYSLOG, ("ca = ", "structured_data = 'x'\nca = "), "a: structured_data: is not a name, @ and a number"),
            (SYSLOG, ("ca = ", "hostname = 'a b'\nca = "), "a: hostname: is not 1 to 255"),
            (STDOUT, ("'stdout'", "'stdout'\npath = 'x'"), "a: unknown field `path`"),
        ] {
            assert!(from.contains(edit.0), "{edit:?}");
            let text = fault(&format!("[[sinks]]\n{}", from.replace(edit.0, edit.1)));
            assert!(text.contains(says) && !says.is_empty(), "{edit:?}: {text}");
        }
        let two = |one: &str, other: &str| fault(&format!("[[sinks]]\n{one}\n[[sinks]]\n{other}"));
        assert!(two(FILE, STDOUT).contains("is the name of two sinks"));
        assert!(two(FILE, &FILE.replace("'a'", "'b'")).contains("b: path: is the file of two sinks"));
        assert!(two(STDOUT, &STDOUT.replace("'a'", "'b'")).contains("b: kind: is the second sink on standard output"));
        let many: Vec<_> = (0..9).map(|n| format!("[[sinks]]\n{}\n", HTTP.replace("'a'", &format!("'s{n}'")))).collect();
        let many = many.concat();
        assert!(fault(&many).contains("has 9 sinks; at most 8"));
    }

    #[test]
    fn plain_http_is_for_loopback_or_on_request() {
        let http =
            |url: &str, more: &str| fault(&format!("[[sinks]]\nname = 'a'\nmode = 'required'\nkind = 'http'\nurl = '{url}'\n{more}"));
        assert_eq!(http("http://127.0.0.1:9/x", ""), "");
        assert_eq!(http("http://siem:9/x", "plain_http = true"), "");
        assert_ne!(http("http://siem:9/x", ""), "");
    }
}
