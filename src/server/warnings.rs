//! Parts of the configuration that match nothing. Each is allowed, and a sign of a mistake: a deny entry that denies nobody, a grant that
//! nobody can use. A start, a reload and `check` show them.

use crate::{
    config::Config,
    domain::WrapperKey,
    kms::Providers,
    mtls::{Trust, identity::Identity},
};

/// The warnings about `[tls]`, `nodes` and `[[grants]]`, which are reloaded.
pub(crate) fn of_trust_and_grants(config: &Config, trust: &Trust) -> Vec<String> {
    let mut all = trust.warnings();
    let mut principals = Vec::new();
    for grant in &config.grants {
        let Ok(identity) = grant.principal.parse::<Identity>() else { continue };
        if !trust.vouches(&identity) {
            all.push(format!(
                "the grant of the role {} to {} has no effect: no entry of client_cas may issue certificates for this name. Add it to \
                 trust_domains or dns of the entry of its CA, or correct the principal",
                grant.role, grant.principal
            ));
        }
        principals.push(identity);
    }
    for ca in &config.tls.client_cas {
        for name in ca.names_without(&principals) {
            all.push(format!(
                "the entry of client_cas with {} may issue certificates for {name}, but no grant names a principal there. Remove the name, or \
                 add a grant",
                ca.file.display()
            ));
        }
    }
    all
}

/// The warnings about `[wrapper] allowed` and `prefer`: patterns that match no registered wrapper key. Empty if none is registered yet.
pub(crate) fn of_wrapper_keys(providers: &Providers, registered: &[WrapperKey]) -> Vec<String> {
    if registered.is_empty() {
        return Vec::new();
    }
    let unmatched = providers.unmatched(registered).into_iter();
    let warning = |(option, pattern)| {
        format!(
            "the pattern {pattern:?} of [wrapper] {option} matches no registered wrapper key. Correct it, or remove it if no such key is to be registered"
        )
    };
    unmatched.map(warning).collect()
}
