//! The configuration as environment variables. The images of Canton append the value of each variable `ADDITIONAL_CONFIG…` to the configuration,
//! and `bin/canton` appends `EXTRA_CLASSPATH` to the class path (`entrypoint.sh` and `bin/canton` of Canton).

use super::{hocon, settings::Settings, values::JarPath};

/// How a value is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Quotes {
    /// In single quotes: for a shell, systemd, and Docker Compose.
    Shell,
    /// None, because `docker run --env-file` and `kubectl create configmap --from-env-file` take all that follows the first `=`.
    None,
}

/// The lines.
pub(super) fn lines(settings: &Settings, jar: &JarPath, quotes: Quotes) -> String {
    let line = |name: &str, value: &str| match quotes {
        Quotes::Shell => format!("{name}='{}'\n", value.replace('\'', r"'\''")),
        Quotes::None => format!("{name}={value}\n"),
    };
    let name = format!("ADDITIONAL_CONFIG_KEYVAULT_{}", settings.canton_name.as_str().to_ascii_uppercase().replace('-', "_"));
    [
        format!("# Environment of the Canton node {}, with its keys in Canton Key Vault.\n", settings.canton_name),
        "# The images of Canton read both variables. Mount the jar of the driver and the certificate files at these paths.\n".into(),
        line("EXTRA_CLASSPATH", jar.as_str()),
        line(&name, &hocon::line(&settings.path(), &settings.crypto())),
    ]
    .concat()
}
