//! `canton config`: prints the configuration of a Canton node whose keys are in the vault. It needs no vault, and prints no secret.

mod environment;
mod hocon;
mod settings;
mod splice;
mod values;

use std::io::Write as _;

use clap::Args;
use serde_json::json;

use self::{
    environment::Quotes,
    settings::Settings,
    splice::Secrets,
    values::{CantonName, FilePath, JarPath, NodeKind, Schemes, SecretName, VaultUrl},
};
use crate::{
    cli::{ConnectionArgs, Failure, Format},
    domain::NodeName,
};

/// The options of `canton config`.
#[derive(Debug, Args)]
#[expect(clippy::struct_excessive_bools, reason = "one flag for each form; `ConfigArgs::form` makes them one value")]
pub struct ConfigArgs {
    /// The node in the vault that the keys belong to
    #[arg(long)]
    node: NodeName,
    /// What the node is in Canton
    #[arg(long, value_enum, default_value = "participant")]
    kind: NodeKind,
    /// The name of the node in the configuration of Canton; default: the same as in the vault
    #[arg(long, value_name = "NAME", conflicts_with_all = ["splice", "splice_patch"])]
    canton_name: Option<CantonName>,
    /// URL of a vault as the node reaches it, https://host:port. Repeat it for several, in the order to try; default: the values of --url
    #[arg(long = "vault", value_name = "URL")]
    vaults: Vec<VaultUrl>,
    /// PEM file with the CA of the vault, on the machine of the node; default: the value of --ca, or tls/vault-ca.pem
    #[arg(long, value_name = "FILE")]
    trust_collection_file: Option<FilePath>,
    // --cert and --key are those of the caller, who may be an administrator. They are no default for the node.
    /// PEM file with the client certificate of the node; default: tls/NODE.pem
    #[arg(long, value_name = "FILE")]
    cert_chain_file: Option<FilePath>,
    /// PEM file with its private key; default: tls/NODE.key
    #[arg(long, value_name = "FILE")]
    private_key_file: Option<FilePath>,
    /// The schemes of the keys that Canton creates from now on
    #[arg(long, value_enum, default_value = "ed25519-ecies")]
    schemes: Schemes,
    /// Print environment variables, quoted for a shell, systemd and Docker Compose
    #[arg(long, group = "form")]
    env: bool,
    /// Print environment variables without quotes, for `docker run --env-file` and `kubectl create configmap --from-env-file`
    #[arg(long, group = "form")]
    env_file: bool,
    /// Print values for the Helm chart of Splice: splice-participant, or splice-global-domain for a sequencer or mediator
    #[arg(long, group = "form")]
    splice: bool,
    /// Print the volumes that splice-global-domain does not take as values, as a kustomization for `helm --post-renderer`
    #[arg(long, group = "form")]
    splice_patch: bool,
    /// The jar of the driver in the container, for --env and --env-file
    #[arg(long, value_name = "FILE", default_value = "/keyvault/driver/canton-keyvault-driver.jar")]
    driver_jar: JarPath,
    /// The Kubernetes secret with the jar of the driver, for Splice
    #[arg(long, value_name = "NAME", default_value = "canton-keyvault-driver")]
    driver_secret: SecretName,
    /// The Kubernetes secret with ca.crt, tls.crt and tls.key of the node, for Splice; default: NODE-keyvault-tls
    #[arg(long, value_name = "NAME")]
    tls_secret: Option<SecretName>,
}

/// What is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    /// A configuration file of Canton.
    File,
    /// Environment variables.
    Environment(Quotes),
    /// Values of a chart of Splice.
    SpliceValues,
    /// A kustomization for a chart of Splice.
    SplicePatch,
}

/// Prints the configuration.
pub(super) fn run(args: &ConfigArgs, connection: &ConnectionArgs) -> Result<(), Failure> {
    let settings = args.settings(connection)?;
    let text = match args.form() {
        Form::File => file(&settings),
        Form::Environment(quotes) => environment::lines(&settings, &args.driver_jar, quotes),
        Form::SpliceValues => splice::values(&settings, &args.secrets()?),
        Form::SplicePatch if settings.kind == NodeKind::Participant => {
            return Err(Failure::Usage("the chart of a participant takes its volumes as values: use --splice alone".into()));
        }
        Form::SplicePatch => splice::patch(&settings, &args.secrets()?),
    };
    let mut out = std::io::stdout().lock();
    match connection.output {
        Format::Text => out.write_all(text.as_bytes())?,
        Format::Json => writeln!(out, "{}", json!({ "configuration": text }))?,
    }
    Ok(out.flush()?)
}

/// A configuration file of Canton.
fn file(settings: &Settings) -> String {
    format!(
        "# The Canton {kind} {name}, with its keys in Canton Key Vault. Canton takes this file beside its own, with a further option -c.\n\
         # The jar of the driver must be on the class path: EXTRA_CLASSPATH=canton-keyvault-driver-<version>.jar bin/canton -c … -c …\n{document}",
        kind = settings.kind.as_str(),
        name = settings.canton_name,
        document = hocon::document(&settings.path(), &settings.crypto()),
    )
}

impl ConfigArgs {
    const fn form(&self) -> Form {
        match (self.env, self.env_file, self.splice, self.splice_patch) {
            (true, ..) => Form::Environment(Quotes::Shell),
            (_, true, ..) => Form::Environment(Quotes::None),
            (_, _, true, _) => Form::SpliceValues,
            (.., true) => Form::SplicePatch,
            _ => Form::File,
        }
    }

    fn settings(&self, connection: &ConnectionArgs) -> Result<Settings, Failure> {
        let in_splice = matches!(self.form(), Form::SpliceValues | Form::SplicePatch);
        let in_container = self.form() != Form::File;
        let canton_name = match &self.canton_name {
            Some(name) => name.clone(),
            None if in_splice => valid("--kind", self.kind.as_str())?,
            None => self
                .node
                .as_str()
                .parse()
                .map_err(|error| Failure::Usage(format!("--node {}: {error}, or add --canton-name", self.node)))?,
        };
        let urls = if self.vaults.is_empty() {
            connection.urls.iter().map(|url| valid("--url", url.trim())).collect::<Result<_, _>>()?
        } else {
            self.vaults.clone()
        };
        if let Some(url) = urls.iter().find(|url| in_splice && url.is_loopback()) {
            return Err(Failure::Usage(format!(
                "a pod does not reach a vault at {url}: say --vault https://host:port as the pod reaches it"
            )));
        }
        let default = |given: &Option<FilePath>, mounted: &str, relative: String| match given {
            Some(path) => Ok(path.clone()),
            None => valid("--node", if in_container { mounted } else { &relative }),
        };
        let caller_ca = connection.ca.as_ref().filter(|_| !in_container);
        let trust = match (&self.trust_collection_file, caller_ca) {
            (None, Some(ca)) => valid("--ca", &ca.to_string_lossy())?,
            (given, _) => default(given, splice::TRUST_FILE, "tls/vault-ca.pem".into())?,
        };
        Ok(Settings {
            kind: self.kind,
            canton_name,
            node: self.node.clone(),
            urls,
            trust,
            certificate: default(&self.cert_chain_file, splice::CERTIFICATE_FILE, format!("tls/{}.pem", self.node))?,
            key: default(&self.private_key_file, splice::KEY_FILE, format!("tls/{}.key", self.node))?,
            schemes: self.schemes,
        })
    }

    fn secrets(&self) -> Result<Secrets, Failure> {
        let tls = if let Some(name) = &self.tls_secret {
            name.clone()
        } else {
            let name = format!("{}-keyvault-tls", self.node.as_str().to_ascii_lowercase().replace('_', "-"));
            name.parse().map_err(|error| Failure::Usage(format!("secret {name}: {error}. Say --tls-secret")))?
        };
        Ok(Secrets { driver: self.driver_secret.clone(), tls })
    }
}

fn valid<T: std::str::FromStr<Err = values::ValueError>>(option: &str, text: &str) -> Result<T, Failure> {
    text.parse().map_err(|error| Failure::Usage(format!("{option} {text}: {error}")))
}
