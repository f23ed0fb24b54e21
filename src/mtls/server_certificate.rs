//! What clients would refuse of the server certificate, although the vault can serve it: missing names and uses.

use std::path::Path;

use x509_parser::{certificate::X509Certificate, prelude::FromDer as _};

/// The faults of the server certificate (DER) in `file`. Empty if it cannot be parsed: reading it reports that.
pub(super) fn faults(file: &Path, der: &[u8]) -> Vec<String> {
    let Ok((_, certificate)) = X509Certificate::from_der(der) else { return Vec::new() };
    let names = certificate.subject_alternative_name().ok().flatten().map_or(0, |extension| extension.value.general_names.len());
    let uses = certificate.extended_key_usage().ok().flatten().map(|extension| extension.value);
    let name = |what: &str| format!("the server certificate {} {what}", file.display());
    [
        (names == 0, "has no subject alternative name, so that clients refuse it"),
        (
            uses.is_some_and(|uses| !(uses.server_auth || uses.any)),
            "may not be used by a server (extended key usage), so that clients refuse it",
        ),
        (certificate.is_ca(), "is the certificate of a CA, so that clients may refuse it"),
    ]
    .into_iter()
    .filter(|(wrong, _)| *wrong)
    .map(|(_, what)| name(what))
    .collect()
}
