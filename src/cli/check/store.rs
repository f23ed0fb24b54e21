//! The store that `check` looks at: a file or a database, whether a vault uses it or not. Nothing is created and nothing is locked.

use tokio::runtime::Runtime;

use crate::{
    config::Config,
    storage::{StoreFacts, facts, is_in_use},
};

/// What was found of the store.
pub(super) struct FoundStore {
    /// What the checks of a start look at. `None` if there is no store that can be read.
    pub(super) facts: Option<StoreFacts>,
    /// Whether a vault uses it now.
    pub(super) in_use: bool,
    /// The line about a database. A file is read by its own step.
    pub(super) database: Result<String, String>,
}

impl Default for FoundStore {
    fn default() -> Self {
        Self { facts: None, in_use: false, database: Err("no store is configured".into()) }
    }
}

impl FoundStore {
    /// Looks at the store of a configuration.
    pub(super) fn of(config: &Config, runtime: &Runtime) -> Self {
        match &config.storage.path {
            Some(path) => {
                let facts = Some(path).filter(|path| path.exists()).and_then(|path| facts(path).ok());
                Self { facts, in_use: is_in_use(path), ..Self::default() }
            }
            None => Self::of_database(config, runtime),
        }
    }

    #[cfg(feature = "postgresql")]
    fn of_database(config: &Config, runtime: &Runtime) -> Self {
        let Some(options) = crate::server::store::postgres_config(config, crate::storage::Mode::Production) else { return Self::default() };
        match runtime.block_on(crate::storage::inspect_postgres(&options, &config.vault.id)) {
            Ok(Some(found)) => {
                let database = format!("{} keys in PostgreSQL; {} replicas use it now", found.keys, found.live);
                Self { facts: Some(found.facts), in_use: found.live > 0, database: Ok(database) }
            }
            Ok(None) => {
                Self { database: Ok("the tables will be created in the empty database at the first start".into()), ..Self::default() }
            }
            Err(error) => Self { database: Err(error.to_string()), ..Self::default() },
        }
    }

    #[cfg(not(feature = "postgresql"))]
    fn of_database(_: &Config, _: &Runtime) -> Self {
        Self::default()
    }
}
