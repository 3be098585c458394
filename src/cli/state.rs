//! What the configuration's files say at one moment, to be told from what they said before.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use pgbraid::config::{Config, ConfigErrors};

use super::load;

/// All that a reload reads: the file itself with the secrets that it names, and the certificates.
#[derive(PartialEq)]
pub struct State {
    config: Result<Config, ConfigErrors>,
    /// As they are; `None` where they cannot be read.
    certificates: Vec<Option<Vec<u8>>>,
}

impl State {
    /// Reads the file and those it names.
    pub fn read(path: &Path) -> Self {
        Self::of(load(path))
    }

    /// What `config` has been read from.
    pub fn now(config: Arc<Config>) -> Self {
        Self::of(Ok(Arc::unwrap_or_clone(config)))
    }

    /// The configuration, or its mistakes.
    pub fn config(&self) -> Result<&Config, &ConfigErrors> {
        self.config.as_ref()
    }

    fn of(config: Result<Config, ConfigErrors>) -> Self {
        let files: Vec<&PathBuf> = match &config {
            Ok(config) => config.tls.cert.iter().chain(&config.tls.key).collect(),
            Err(_) => Vec::new(),
        };
        let certificates = files.iter().map(|file| std::fs::read(file).ok()).collect();
        Self {
            config,
            certificates,
        }
    }
}
