use std::path::{Path, PathBuf};

use crate::base::Secret;
use crate::config::{Executor, Overrides, Report, Sidecar, Source, embedded, load_executor, load_sidecar};

/// Which files are read; what is absent comes from the program itself.
#[derive(Clone, Debug, Default)]
pub struct Files {
    pub sidecar: Option<PathBuf>,
    pub executor: Option<PathBuf>,
    pub policy: Option<PathBuf>,
}

/// Everything that a process is started with.
pub struct Plan {
    pub files: Files,
    pub overrides: Overrides,
    /// Keys that are used when the environment names none (`up`).
    pub extra_secrets: Vec<Secret>,
    /// Where the last good policy is kept.
    pub data: PathBuf,
    /// The proxy, when this process runs one.
    pub sidecar: Option<Sidecar>,
    /// The executor, when this process runs one.
    pub executor: Option<Executor>,
    /// Start from the last good policy when the file is bad.
    pub last_good: bool,
}

impl Files {
    /// The text of sidecar.toml.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn sidecar_source(&self, base: &Path) -> Result<Source, Report> {
        source(self.sidecar.as_deref(), "embedded sidecar.toml", embedded::SIDECAR, base)
    }

    /// The text of executor.toml.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn executor_source(&self, base: &Path) -> Result<Source, Report> {
        source(self.executor.as_deref(), "embedded executor.toml", embedded::EXECUTOR, base)
    }

    /// The text of policy.toml, as it is now.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn policy_source(&self, base: &Path) -> Result<Source, Report> {
        source(self.policy.as_deref(), "embedded policy.toml", embedded::POLICY, base)
    }
}

impl Plan {
    /// Loads sidecar.toml.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn load_sidecar(files: &Files, overrides: &Overrides, base: &Path) -> Result<Sidecar, Report> {
        load_sidecar(&files.sidecar_source(base)?, overrides)
    }

    /// Loads executor.toml.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn load_executor(files: &Files, overrides: &Overrides, base: &Path) -> Result<Executor, Report> {
        load_executor(&files.executor_source(base)?, overrides)
    }
}

fn source(path: Option<&Path>, name: &str, embedded: &str, base: &Path) -> Result<Source, Report> {
    match path {
        Some(path) => Source::read(path),
        None => Ok(Source::embedded(name, embedded, base)),
    }
}
