//! The options of a PostgreSQL store, as a configuration file has them. The password is in a file of its own, never in the configuration.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use serde::Deserialize;

use crate::storage::Mode;

/// `[storage.postgresql]`: the options of a PostgreSQL store.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PostgresConfig {
    /// The file with the URL of the database, `postgresql://USER:PASSWORD@HOST:PORT/DATABASE`. Readable by the owner only. No default.
    pub url_file: PathBuf,
    /// PEM file of the certificate authority of the server. Required for a database on another host. Default: none.
    pub ca: Option<PathBuf>,
    /// Connections for reads, besides the one of the writer and the one for announcements. 1 to 100; default 6.
    #[serde(default = "readers")]
    pub readers: usize,
    /// The purpose of the database, fixed when it is created. The command decides it, not the configuration.
    #[serde(skip, default = "production")]
    pub mode: Mode,
    /// Timeout of a commit or a read. 5 s, unless `[storage]` says otherwise.
    #[serde(skip, default = "commit_timeout")]
    pub commit_timeout: Duration,
    /// Time of one query of the audit log. 500 ms, unless `[storage]` says otherwise.
    #[serde(skip, default = "query_time")]
    pub query_time: Duration,
    /// Whether the operator accepts a broken chain or log once. The command decides it, not the configuration.
    #[serde(skip)]
    pub accept_state: bool,
    /// Maximum number of commits that wait for the writer. Further ones are refused at once.
    #[serde(skip, default = "queue")]
    pub queue: usize,
}

impl PostgresConfig {
    /// The defaults for this database.
    pub fn new(url_file: impl Into<PathBuf>, mode: Mode) -> Self {
        Self {
            url_file: url_file.into(),
            ca: None,
            mode,
            commit_timeout: commit_timeout(),
            queue: queue(),
            accept_state: false,
            query_time: query_time(),
            readers: readers(),
        }
    }

    /// Makes the paths of files relative to the folder of the configuration file.
    pub fn resolve(&mut self, folder: &Path) {
        self.url_file = folder.join(&self.url_file);
        self.ca = self.ca.take().map(|ca| folder.join(ca));
    }

    /// The first option with a value out of its bounds, and the bounds.
    pub fn problem(&self) -> Option<(&'static str, &'static str)> {
        let readers = (1..=100).contains(&self.readers);
        (!readers).then_some(("[storage.postgresql] readers", "is not between 1 and 100"))
    }
}

const fn production() -> Mode {
    Mode::Production
}

const fn commit_timeout() -> Duration {
    Duration::from_secs(5)
}

const fn queue() -> usize {
    4096
}

const fn query_time() -> Duration {
    Duration::from_millis(500)
}

const fn readers() -> usize {
    6
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_file_of_the_url_has_no_default() {
        let mut config: PostgresConfig = toml::from_str("url_file = \"database.url\"").unwrap();
        assert_eq!(config, PostgresConfig::new("database.url", Mode::Production));
        assert_eq!(config.problem(), None);
        config.ca = Some("ca.pem".into());
        config.resolve(Path::new("/etc/keyvault"));
        assert_eq!((config.url_file, config.ca), ("/etc/keyvault/database.url".into(), Some("/etc/keyvault/ca.pem".into())));
        for wrong in ["", "url = \"postgresql://u:p@h/d\"", "url_file = \"f\"\nmode = \"dev\"", "url_file = \"f\"\npassword = \"x\""] {
            assert!(toml::from_str::<PostgresConfig>(wrong).is_err(), "{wrong}");
        }
        for readers in ["0", "101"] {
            let config: PostgresConfig = toml::from_str(&format!("url_file = \"f\"\nreaders = {readers}")).unwrap();
            assert_eq!(config.problem().map(|(named, _)| named), Some("[storage.postgresql] readers"));
        }
    }
}
