use std::path::PathBuf;

use anyhow::Context as _;

use crate::app::Files;
use crate::base::{Clock, Secret, SystemClock};
use crate::config::{Overrides, PolicyContext, embedded, load_policy, parse_set};
use crate::policy::Snapshot;

/// Values that override the files, from the command line.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct SetArgs {
    /// Override one key of a configuration file; the value is TOML, a bare word is a string (repeatable)
    #[arg(long = "set", value_name = "KEY.PATH=VALUE", value_parser = parse_set, global = true)]
    pub set: Vec<(String, String)>,
}

impl SetArgs {
    /// These values and the process's environment.
    #[must_use]
    pub fn overrides(&self) -> Overrides {
        Overrides::from_process(self.set.clone())
    }
}

/// Which policy a command looks at.
#[derive(Clone, Debug, clap::Args)]
pub struct PolicyArgs {
    /// The policy file [default: conf/policy.toml; with --data, what `up` has]
    #[arg(long, value_name = "FILE")]
    pub policy: Option<PathBuf>,
    /// The data directory of an `up`, whose key signs where no variable holds a secret
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,
    #[command(flatten)]
    pub set: SetArgs,
}

impl PolicyArgs {
    /// The file that is read; `None` where it is the program's own.
    #[must_use]
    pub fn file(&self) -> Option<PathBuf> {
        self.policy.clone().or_else(|| self.data.is_none().then(|| PathBuf::from("conf/policy.toml")))
    }

    /// Loads the policy as the services would.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn load(&self) -> anyhow::Result<Snapshot> {
        let mut overrides = self.set.overrides();
        let (mut secrets, mut base) = (Vec::<Secret>::new(), PathBuf::from("."));
        if let Some(data) = &self.data {
            base = std::fs::canonicalize(data).with_context(|| format!("cannot use {}", data.display()))?;
            // An `up` that finds a secret in its environment makes no key.
            secrets.extend(super::up::read_key(&base)?);
            if self.policy.is_none() {
                overrides = overrides.with_builtin(embedded::UP_OVERRIDES);
            }
        }
        let files = Files { policy: self.file(), ..Files::default() };
        let source = files.policy_source(&base).map_err(|report| anyhow::anyhow!("{}", report.render()))?;
        // Which upstreams exist is the business of sidecar.toml: a decision does not depend on it.
        let context =
            PolicyContext { revision: 1, now_ms: SystemClock.now_ms(), upstreams: None, extra_secrets: &secrets };
        load_policy(&source, &overrides, context).map_err(|report| anyhow::anyhow!("{}", report.render()))
    }
}
