//! Resolving, connecting and creating transit keys: what the configuration does not allow is neither used nor made.

use std::sync::Arc;

use serde::Serialize;

use crate::domain::{Hex, WrapperKey};

use super::{
    Cluster,
    connection::why_not,
    error::{Kind, done},
    http_client::{Ask, Server},
};
use crate::kms::{
    CreateOptions, Description, Providers, Wrapper, WrapperError,
    openbao_key::{Address, KeyPath, OpenbaoKey, from_reference},
    providers::{misconfigured, unfit},
};

impl Providers {
    /// Finds the key behind `https://host:port/<mount>/keys/<name>`. The reference that is kept names the first server of the cluster.
    pub(in crate::kms) async fn resolve_openbao(&self, reference: &str, regions: &[String]) -> Result<Description, WrapperError> {
        if !regions.is_empty() {
            return Err(unfit(reference, "a transit key has no regions"));
        }
        let (address, path) = from_reference(reference).map_err(|_| unfit(reference, NOT_A_REFERENCE))?;
        let Some(cluster) = self.openbao.iter().find(|cluster| cluster.is_at(&address)) else {
            return Err(unfit(reference, "no [[wrapper.openbao]] of the configuration has this address"));
        };
        // Where only identities are allowed, the key must be looked at to know.
        if !self.allows_path(cluster, &path) && !self.allowed.names_openbao_identities() {
            return Err(WrapperError::NotAllowed { reference: reference.to_owned() });
        }
        let canonical = canonical(cluster, &path);
        let guard = self.guard(&canonical, cluster.regional_wrappers(&path, &canonical, None), Arc::clone(&cluster.rate_limit));
        let found = guard.describe().await?;
        self.check_openbao(cluster, &path, &found.identity)?;
        Ok(found)
    }

    /// The guarded key, on every server of its cluster. Speaks to nobody.
    pub(in crate::kms) fn connect_openbao(&self, registered: &WrapperKey) -> Result<Arc<dyn Wrapper>, WrapperError> {
        let wrong = |what: &str| misconfigured(&registered.reference, what);
        let key: OpenbaoKey = registered.identity.parse().map_err(|_| wrong("the registered identity is not that of a transit key"))?;
        let (address, path) = from_reference(&registered.reference).map_err(|_| wrong(NOT_A_REFERENCE))?;
        if path != key.path {
            return Err(wrong(&format!("the registered identity, {key}, is that of another key")));
        }
        let cluster = self.cluster_of(&address).ok_or_else(|| wrong("no [[wrapper.openbao]] of the configuration has this address"))?;
        self.check_openbao(cluster, &path, &registered.identity)?;
        let regional_wrappers = cluster.regional_wrappers(&path, &registered.reference, Some(&key));
        Ok(Arc::new(self.guard(&registered.reference, regional_wrappers, Arc::clone(&cluster.rate_limit))))
    }

    /// Creates a key of a random name on the mount of the first cluster.
    pub(in crate::kms) async fn create_openbao(&self, options: &CreateOptions) -> Result<Description, WrapperError> {
        let reference = "a new transit key";
        if options.multi_region || !options.regions.is_empty() {
            return Err(unfit(reference, "a transit key has no regions"));
        }
        if !self.config.may_create {
            return Err(unfit(reference, "this vault may not create wrapper keys; set may_create under [wrapper], or create it yourself"));
        }
        let cluster = self.openbao.first().ok_or_else(|| unfit(reference, "no [[wrapper.openbao]] is configured"))?;
        let mut random = [0; 8];
        self.random.fill(&mut random).map_err(|_| misconfigured(reference, "the system gives no randomness"))?;
        let name = format!("canton-keyvault-{}", Hex(&random));
        let path = KeyPath::new(&cluster.mount, &name).map_err(|_| misconfigured(reference, "mount is no path"))?;
        let reference = canonical(cluster, &path);
        if !self.allows_path(cluster, &path) {
            // Its second is known once it is made; whether it will be allowed can be told before by any other second.
            let id = cluster.first(|server| async move { server.cluster_id().await }).await.map_err(|kind| kind.about(&reference))?;
            if !self.allowed.openbao(&OpenbaoKey { cluster: id, path: path.clone(), created: 0 }.to_string()) {
                return Err(WrapperError::NotAllowed { reference });
            }
        }
        self.make(cluster, &path).await.map_err(|kind| kind.about(&reference))?;
        self.resolve_openbao(&reference, &[]).await
    }

    /// Asks the servers in order. A name of 64 random bits is nobody else's, so that asking twice makes one key.
    async fn make(&self, cluster: &Arc<Cluster>, path: &KeyPath) -> Result<(), Kind> {
        #[derive(Serialize)]
        struct Body {
            r#type: &'static str,
            exportable: bool,
            allow_plaintext_backup: bool,
        }
        let ask = Ask::post(path.api("keys"), &Body { r#type: "aes256-gcm96", exportable: false, allow_plaintext_backup: false });
        let made = cluster.first(|server| {
            let ask = &ask;
            async move { cluster.ask(&server, ask).await.and_then(done) }
        });
        made.await.map(drop)
    }

    /// Every configured server of OpenBao, and what is so or what to do about it: for `check`.
    pub async fn openbao_servers(&self) -> Vec<Result<String, String>> {
        let mut found = Vec::new();
        for (cluster, server) in self.openbao.iter().flat_map(|cluster| cluster.servers().map(move |server| (cluster, server))) {
            let address = &server.address;
            let state = match why_not(server).await {
                Some(why) => Err(why),
                None => match server.cluster_id().await {
                    Ok(id) => cluster.session(server).await.map(|_| id).map_err(|kind| format!("no login: {}", kind.about("OpenBao"))),
                    Err(_) => Err("it is sealed, or no OpenBao: ask `bao status`".to_owned()),
                },
            };
            found.push(state.map(|id| format!("{address} is open, cluster {id}")).map_err(|why| format!("{address}: {why}")));
        }
        found
    }

    /// By the address of the reference. Where there is one cluster, it is that one: servers get other names, and the identity decides.
    fn cluster_of(&self, address: &Address) -> Option<&Arc<Cluster>> {
        match self.openbao.as_slice() {
            [only] => Some(only),
            all => all.iter().find(|cluster| cluster.is_at(address)),
        }
    }

    fn check_openbao(&self, cluster: &Cluster, path: &KeyPath, identity: &str) -> Result<(), WrapperError> {
        if self.allows_path(cluster, path) || self.allowed.openbao(identity) {
            return Ok(());
        }
        Err(WrapperError::NotAllowed { reference: canonical(cluster, path) })
    }

    /// Whether the key may be used whatever it is, by its URL on one of the servers.
    fn allows_path(&self, cluster: &Cluster, path: &KeyPath) -> bool {
        cluster.servers().any(|server| self.allowed.openbao(&server.address.reference(path)))
    }
}

fn canonical(cluster: &Cluster, path: &KeyPath) -> String {
    let first = cluster.servers().next().map(|server: &Arc<Server>| server.address.reference(path));
    first.unwrap_or_else(|| path.to_string())
}

const NOT_A_REFERENCE: &str = "write https://host:port/<mount>/keys/<name>; namespaces stand in front of the mount";
