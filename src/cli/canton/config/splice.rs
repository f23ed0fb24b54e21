//! Values for the Helm charts of Splice, and the volumes that one chart does not take as values.
//!
//! `splice-participant` writes the values `kms` into `crypto.kms`: names become kebab case, and values are written as they are, so that a
//! text has the quotes of HOCON inside. It takes environment variables and volumes as values. `splice-global-domain` takes environment
//! variables only.

use std::fmt::Write as _;

use super::{
    hocon::{self, Field, Value},
    settings::Settings,
    values::{NodeKind, SecretName, quoted},
};

/// Where the secret with the jar is mounted.
const DRIVER_FOLDER: &str = "/keyvault/driver";
/// Where the secret with the certificate is mounted.
const TLS_FOLDER: &str = "/keyvault/tls";
/// The name of the jar in its secret.
const JAR: &str = "canton-keyvault-driver.jar";

/// The names of the files in the secret of the certificate: those of a secret of the type `kubernetes.io/tls`.
pub(super) const TRUST_FILE: &str = "/keyvault/tls/ca.crt";
/// See [`TRUST_FILE`].
pub(super) const CERTIFICATE_FILE: &str = "/keyvault/tls/tls.crt";
/// See [`TRUST_FILE`].
pub(super) const KEY_FILE: &str = "/keyvault/tls/tls.key";

/// The secrets that are mounted.
pub(super) struct Secrets {
    /// Holds the jar of the driver.
    pub(super) driver: SecretName,
    /// Holds the client certificate of the node, its private key, and the CA of the vault.
    pub(super) tls: SecretName,
}

/// The values of the chart.
pub(super) fn values(settings: &Settings, secrets: &Secrets) -> String {
    match settings.kind {
        NodeKind::Participant => participant(settings, secrets),
        NodeKind::Sequencer | NodeKind::Mediator => member(settings, secrets),
    }
}

fn participant(settings: &Settings, secrets: &Secrets) -> String {
    let mut out = head(settings, secrets, "splice-participant", &["additionalEnvVars", "extraVolumes", "extraVolumeMounts"]);
    out.push_str("kms:\n  # The chart writes these values into crypto.kms as they are. Keep the quotes inside the quotes.\n");
    chart_values(&mut out, &settings.kms(), 1);
    let schemes = hocon::line(&settings.path(), &settings.schemes());
    out.push_str("additionalEnvVars:\n");
    variables(&mut out, "  ", &[("ADDITIONAL_CONFIG_KEYVAULT_SCHEMES", &schemes)]);
    let _ = write!(out, "extraVolumes:\n{}extraVolumeMounts:\n{}", volumes("  ", secrets), mounts("  "));
    out
}

fn member(settings: &Settings, secrets: &Secrets) -> String {
    let kind = settings.kind.as_str();
    let mut out = head(settings, secrets, "splice-global-domain", &["additionalEnvVars"]);
    let _ = writeln!(
        out,
        "# This chart mounts no further volumes. Add them with `--post-renderer`: `canton-keyvault canton config --splice-patch` prints how."
    );
    let crypto = hocon::line(&settings.path(), &settings.crypto());
    let _ = writeln!(out, "{kind}:\n  additionalEnvVars:");
    variables(&mut out, "    ", &[("ADDITIONAL_CONFIG_KEYVAULT", &crypto)]);
    out
}

/// A kustomization that adds the volumes to what the chart made.
pub(super) fn patch(settings: &Settings, secrets: &Secrets) -> String {
    let kind = settings.kind.as_str();
    format!(
        "# Adds the jar of the driver and the certificate of node {node} to the {kind} of the Splice chart splice-global-domain.
# Save this as kustomization.yaml, and beside it an executable file `render` with these two lines:
#   #!/bin/sh
#   cd \"$(dirname \"$0\")\" && cat > all.yaml && kubectl kustomize .
# Then add `--post-renderer …/render` to every `helm install` and `helm upgrade` of the chart.
apiVersion: kustomize.config.k8s.io/v1beta1
kind: Kustomization
resources:
  - all.yaml
patches:
  - target:
      kind: Deployment
      labelSelector: splice-component={kind}
    patch: |
      apiVersion: apps/v1
      kind: Deployment
      metadata:
        name: every-match
      spec:
        template:
          spec:
            volumes:
{volumes}            containers:
              - name: {kind}
                volumeMounts:
{mounts}",
        node = settings.node,
        volumes = volumes("              ", secrets),
        mounts = mounts("                  "),
    )
}

/// What the reader of the file must know and do.
fn head(settings: &Settings, secrets: &Secrets, chart: &str, lists: &[&str]) -> String {
    let (kind, node, Secrets { driver, tls }) = (settings.kind.as_str(), &settings.node, secrets);
    let support = match settings.kind {
        NodeKind::Participant => "Splice itself supports new participants only.",
        NodeKind::Sequencer | NodeKind::Mediator => "Splice itself does not support a KMS for them yet.",
    };
    format!(
        "# Values of the Splice chart {chart}: the keys of this {kind} are in Canton Key Vault, as node {node}.
# Give this file to every `helm install` and `helm upgrade` of this release, after its other values.
# Helm replaces lists: if another file of the release has {lists}, join the lists in one file.
# A new {kind} needs nothing else. One that has keys in its database must not start with these values before
# `canton-keyvault canton import` has moved them (docs/canton.md). {support}
# The secrets, in the namespace of the release:
#   kubectl create secret generic {driver} --from-file={JAR}=canton-keyvault-driver-<version>.jar
#   kubectl create secret generic {tls} --from-file=ca.crt=<CA of the vault> --from-file=tls.crt=<certificate> --from-file=tls.key=<key, PKCS#8>
",
        lists = lists.join(" or "),
    )
}

/// The tree as values of the chart: names in camel case, and each value as a text that is HOCON.
fn chart_values(out: &mut String, fields: &[Field], depth: usize) {
    for field in fields {
        let (indent, key) = ("  ".repeat(depth), camel_case(field.key));
        match &field.value {
            Value::Section(inner) => {
                let _ = writeln!(out, "{indent}{key}:");
                chart_values(out, inner, depth + 1);
            }
            value => {
                let _ = writeln!(out, "{indent}{key}: {}", quoted(&container_value(&hocon::scalar(value))));
            }
        }
    }
}

fn variables(out: &mut String, indent: &str, further: &[(&str, &str)]) {
    let jar = format!("{DRIVER_FOLDER}/{JAR}");
    for (name, value) in std::iter::once(&("EXTRA_CLASSPATH", jar.as_str())).chain(further) {
        let _ = writeln!(out, "{indent}- name: {name}\n{indent}  value: {}", quoted(&container_value(value)));
    }
}

fn volumes(indent: &str, secrets: &Secrets) -> String {
    [("keyvault-driver", &secrets.driver), ("keyvault-tls", &secrets.tls)]
        .map(|(name, secret)| format!("{indent}- name: {name}\n{indent}  secret:\n{indent}    secretName: {}\n", quoted(secret.as_str())))
        .concat()
}

fn mounts(indent: &str) -> String {
    [("keyvault-driver", DRIVER_FOLDER), ("keyvault-tls", TLS_FOLDER)]
        .map(|(name, folder)| format!("{indent}- name: {name}\n{indent}  mountPath: {folder}\n{indent}  readOnly: true\n"))
        .concat()
}

/// Kubernetes expands `$(NAME)` in the values of variables, and reads `$$` as `$`.
fn container_value(text: &str) -> String {
    text.replace('$', "$$")
}

fn camel_case(key: &str) -> String {
    let mut words = key.split('-');
    let mut out = words.next().unwrap_or_default().to_owned();
    for word in words {
        let (first, rest) = word.split_at_checked(1).unwrap_or((word, ""));
        out.push_str(&first.to_ascii_uppercase());
        out.push_str(rest);
    }
    out
}
