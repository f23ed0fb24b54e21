//! Checks of `[tls]`, `nodes`, `[[grants]]` and `[audit]`: settings that have no effect, or with which nobody can connect. They are valid, so that the
//! vault starts with them.

use std::{fs, path::Path};

use crate::{
    config::Config,
    mtls::{Expiry, ExpiryKind, Trust, identity::Identity},
};

/// What clients would refuse of the server certificate.
pub(super) fn server_certificate(_: &Config, trust: &Trust) -> Vec<String> {
    trust.server_certificate_faults()
}

/// Revocation lists that are not used, and deny entries that deny nobody.
pub(super) fn revocation(_: &Config, trust: &Trust) -> Vec<String> {
    trust.warnings()
}

/// Grants that nobody can use.
pub(super) fn grants(config: &Config, trust: &Trust) -> Vec<String> {
    if config.grants.is_empty() {
        return vec!["there are no [[grants]], so that every call is refused".to_owned()];
    }
    let principals = config.grants.iter().filter_map(|grant| Some((grant, grant.principal.parse::<Identity>().ok()?)));
    let useless = principals.filter(|(_, identity)| !trust.vouches(identity));
    let fault = |grant: &crate::config::GrantConfig| {
        format!(
            "the grant of the role {} to {} has no effect: no entry of client_cas may issue certificates for this name",
            grant.role, grant.principal
        )
    };
    useless.map(|(grant, _)| fault(grant)).collect()
}

/// Names of client CAs that no grant uses.
pub(super) fn client_cas(config: &Config, _: &Trust) -> Vec<String> {
    let principals = config.grants.iter().filter_map(|grant| grant.principal.parse().ok()).collect::<Vec<Identity>>();
    let fault = |file: &std::path::Path, name: &str| {
        format!("the entry of client_cas with {} may issue certificates for {name}, but no grant names a principal there", file.display())
    };
    let cas = config.tls.client_cas.iter();
    cas.flat_map(|ca| ca.names_without(&principals).into_iter().map(|name| fault(&ca.file, &name))).collect()
}

/// A high-water mark that does not do its work.
pub(super) fn high_water_mark(config: &Config, _: &Trust) -> Vec<String> {
    let Some(mark) = &config.audit.high_water_mark else { return Vec::new() };
    let folder = |file: &Path| file.parent().and_then(|folder| fs::canonicalize(folder).ok());
    let mut faults = Vec::new();
    let Some(path) = &config.storage.path else { return faults };
    if folder(mark).is_some_and(|of_mark| Some(of_mark) == folder(path)) {
        faults.push(format!("[audit] high_water_mark {} is in the folder of the database, so that one copy restores both", mark.display()));
    }
    if path.exists() && !mark.exists() {
        faults.push(format!("{} does not exist, so that the database is compared with nothing outside of it", mark.display()));
    }
    faults
}

/// What expires soon or has expired. Revocation lists are valid for days, so that only their end is a fault.
pub(super) fn expiry_fault(expiry: &Expiry) -> Option<String> {
    let what = match expiry.kind {
        ExpiryKind::Server => "the server certificate, or an intermediate of it,",
        ExpiryKind::ClientCa => "a client CA",
        ExpiryKind::Crl if expiry.seconds <= 0 => {
            return Some("a revocation list has passed its next update, so that clients of its CA are refused".to_owned());
        }
        ExpiryKind::Crl => return None,
    };
    match expiry.seconds {
        ..=0 => Some(format!("{what} has expired")),
        // What lives for hours or days is renewed by a program, which is late in the last third.
        seconds if seconds < SOON.min(expiry.lifetime / 3) => Some(format!("{what} expires in {}", time_left(seconds))),
        _ => None,
    }
}

/// A time in the greatest unit of which there are at least two.
pub(crate) fn time_left(seconds: i64) -> String {
    const UNITS: [(i64, &str); 3] = [(DAY, "days"), (3600, "hours"), (60, "minutes")];
    let unit = UNITS.into_iter().find(|(unit, _)| seconds.abs() >= 2 * unit);
    let (unit, name) = unit.unwrap_or((1, "seconds"));
    format!("{} {name}", seconds / unit)
}

const DAY: i64 = 24 * 3600;
const SOON: i64 = 30 * DAY;
