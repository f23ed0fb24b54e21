//! The provider of transit keys: only allowed keys are resolved, connected and created.

use crate::kms::call_error::CallError;
use std::sync::Arc;

use async_trait::async_trait;
use serde::Serialize;

use crate::domain::{Hex, ProviderKind, WrapperKey};
use crate::kms::http::Address;

use super::{
    cluster::{Cluster, clusters},
    http_client::{OpenbaoRequest, OpenbaoServer, done},
    key_reference::{KeyPath, OpenbaoKey, from_reference},
};
use crate::kms::{
    CreateOptions, Description, Wrapper, WrapperError,
    allowlist::Allowlist,
    provider::{Provider, ProviderEntry, Settings, misconfigured, unfit},
};

/// The entry in the table of providers.
pub(in crate::kms) const ENTRY: ProviderEntry = ProviderEntry {
    kind: ProviderKind::OpenbaoTransit,
    own_pattern,
    warning: |_| None,
    new: |settings| Box::new(OpenbaoProvider { clusters: clusters(&settings.config, &settings.calls), settings }),
};

fn own_pattern(reference: &str) -> Result<String, String> {
    match from_reference(reference) {
        Ok((address, path)) => Ok(path.url(&address)),
        Err(_) => Err("reference is not the URL of a transit key: https://host:port/<mount>/keys/<name>".to_owned()),
    }
}

/// Wrapper keys in the transit engines of the configured clusters.
struct OpenbaoProvider {
    settings: Arc<Settings>,
    clusters: Vec<Arc<Cluster>>,
}

#[async_trait]
impl Provider for OpenbaoProvider {
    async fn resolve(&self, reference: &str, regions: &[String]) -> Result<Description, WrapperError> {
        Box::pin(self.resolve_key(reference, regions)).await
    }

    async fn connect(&self, key: &WrapperKey) -> Result<Arc<dyn Wrapper>, WrapperError> {
        self.connect_key(key)
    }

    async fn create(&self, options: &CreateOptions) -> Result<Description, WrapperError> {
        Box::pin(self.create_key(options)).await
    }

    fn matches(&self, patterns: &Allowlist, key: &WrapperKey) -> bool {
        patterns.openbao(&key.identity) || patterns.openbao(&key.reference)
    }

    async fn check_servers(&self) -> Vec<Result<String, String>> {
        self.check_all_servers().await
    }
}

impl OpenbaoProvider {
    /// Finds the key behind `https://host:port/<mount>/keys/<name>`. The stored reference names the first server of the cluster.
    async fn resolve_key(&self, reference: &str, regions: &[String]) -> Result<Description, WrapperError> {
        if !regions.is_empty() {
            return Err(unfit(reference, "a transit key has no regions"));
        }
        let (address, path) = from_reference(reference).map_err(|_| unfit(reference, NOT_A_REFERENCE))?;
        let Some(cluster) = self.clusters.iter().find(|cluster| cluster.is_at(&address)) else {
            return Err(unfit(reference, "no [[wrapper.openbao]] of the configuration has this address"));
        };
        // Where only identities are allowed, the key must be read to decide.
        if !self.allows_path(cluster, &path) && !self.settings.allowed.names_openbao_identities() {
            return Err(WrapperError::NotAllowed { reference: reference.to_owned() });
        }
        let canonical = canonical(cluster, &path);
        let guard =
            self.settings.resilient(&canonical, cluster.regional_wrappers(&path, &canonical, None), Arc::clone(&cluster.rate_limit));
        let found = guard.describe().await?;
        self.check_openbao(cluster, &path, &found.identity)?;
        Ok(found)
    }

    /// The key on every server of its cluster, behind the guard. Calls no server.
    fn connect_key(&self, registered: &WrapperKey) -> Result<Arc<dyn Wrapper>, WrapperError> {
        let wrong = |what: &str| misconfigured(&registered.reference, what);
        let key: OpenbaoKey = registered.identity.parse().map_err(|_| wrong("the registered identity is not that of a transit key"))?;
        let (address, path) = from_reference(&registered.reference).map_err(|_| wrong(NOT_A_REFERENCE))?;
        if path != key.path {
            return Err(wrong(&format!("the registered identity, {key}, is that of another key")));
        }
        let cluster = self.cluster_of(&address).ok_or_else(|| wrong("no [[wrapper.openbao]] of the configuration has this address"))?;
        self.check_openbao(cluster, &path, &registered.identity)?;
        let regional_wrappers = cluster.regional_wrappers(&path, &registered.reference, Some(&key));
        Ok(Arc::new(self.settings.resilient(&registered.reference, regional_wrappers, Arc::clone(&cluster.rate_limit))))
    }

    /// Creates a key of a random name on the mount of the first cluster.
    async fn create_key(&self, options: &CreateOptions) -> Result<Description, WrapperError> {
        let reference = "a new transit key";
        if options.multi_region || !options.regions.is_empty() {
            return Err(unfit(reference, "a transit key has no regions"));
        }
        if !self.settings.config.may_create {
            return Err(unfit(reference, "this vault may not create wrapper keys; set may_create under [wrapper], or create it yourself"));
        }
        let cluster = self.clusters.first().ok_or_else(|| unfit(reference, "no [[wrapper.openbao]] is configured"))?;
        let mut random = [0; 8];
        self.settings.random.fill(&mut random).map_err(|_| misconfigured(reference, "the random number generator of the system failed"))?;
        let name = format!("canton-keyvault-{}", Hex(&random));
        let path = KeyPath::new(&cluster.mount, &name).map_err(|_| misconfigured(reference, "mount is not a valid path"))?;
        let reference = canonical(cluster, &path);
        if !self.allows_path(cluster, &path) {
            // The creation second is known only after the creation. Whether it will be allowed does not depend on the second.
            let id = cluster.first(|server| async move { server.cluster_id().await }).await.map_err(|kind| kind.about(&reference))?;
            if !self.settings.allowed.openbao(&OpenbaoKey { cluster: id, path: path.clone(), created: 0 }.to_string()) {
                return Err(WrapperError::NotAllowed { reference });
            }
        }
        self.make(cluster, &path).await.map_err(|kind| kind.about(&reference))?;
        self.resolve_key(&reference, &[]).await
    }

    /// Asks the servers in order. A name of 64 random bits is unique, so that asking twice creates one key.
    async fn make(&self, cluster: &Arc<Cluster>, path: &KeyPath) -> Result<(), CallError> {
        #[derive(Serialize)]
        struct CreateBody {
            r#type: &'static str,
            exportable: bool,
            allow_plaintext_backup: bool,
        }
        let ask = OpenbaoRequest::post(
            path.api("keys"),
            &CreateBody { r#type: "aes256-gcm96", exportable: false, allow_plaintext_backup: false },
        );
        let made =
            cluster.first(|server| {
                let ask = &ask;
                async move {
                    cluster.ask(&server, ask).await.and_then(done).map_err(|error| error.needing("update on keys/ of the transit mount"))
                }
            });
        made.await.map(drop)
    }

    /// The state of each configured server, for `check`.
    async fn check_all_servers(&self) -> Vec<Result<String, String>> {
        let mut found = Vec::new();
        for cluster in &self.clusters {
            for server in cluster.servers() {
                found.push(check_server(cluster, server).await);
            }
        }
        found
    }

    /// Finds the cluster by the address of the reference. With one cluster it is that one: servers may be renamed, and the identity is
    /// verified.
    fn cluster_of(&self, address: &Address) -> Option<&Arc<Cluster>> {
        match self.clusters.as_slice() {
            [only] => Some(only),
            all => all.iter().find(|cluster| cluster.is_at(address)),
        }
    }

    fn check_openbao(&self, cluster: &Cluster, path: &KeyPath, identity: &str) -> Result<(), WrapperError> {
        if self.allows_path(cluster, path) || self.settings.allowed.openbao(identity) {
            return Ok(());
        }
        Err(WrapperError::NotAllowed { reference: canonical(cluster, path) })
    }

    /// Whether the key may be used whatever its identity is, by its URL on one of the servers.
    fn allows_path(&self, cluster: &Cluster, path: &KeyPath) -> bool {
        cluster.servers().any(|server| self.settings.allowed.openbao(&path.url(server.address())))
    }
}

/// Connects, asks for the cluster id, and logs in.
async fn check_server(cluster: &Arc<Cluster>, server: &OpenbaoServer) -> Result<String, String> {
    let address = server.address();
    if let Some(reason) = server.server.fault().await {
        return Err(format!("{address}: {reason}"));
    }
    let failed = |what: &str, error: CallError| {
        let error = error.about("OpenBao");
        format!("{address}: {what}: {error}. Fix: {}", error.reason().remedy())
    };
    let id = server.cluster_id().await.map_err(|error| failed("it does not report its cluster", error))?;
    let checked = async {
        cluster.session(server).await?;
        cluster.check_token(server).await
    };
    checked.await.map(|()| format!("{address} is unsealed, cluster {id}")).map_err(|error| failed("the login failed", error))
}

fn canonical(cluster: &Cluster, path: &KeyPath) -> String {
    let first = cluster.servers().next().map(|server: &Arc<OpenbaoServer>| path.url(server.address()));
    first.unwrap_or_else(|| path.to_string())
}

const NOT_A_REFERENCE: &str = "write https://host:port/<mount>/keys/<name>; namespaces stand in front of the mount";
