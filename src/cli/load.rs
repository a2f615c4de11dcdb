use std::path::{Path, PathBuf};

use crate::app::Files;
use crate::base::{Clock, Secret, SystemClock};
use crate::config::{Overrides, PolicyContext, load_policy, parse_set};
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
    /// The policy file
    #[arg(long, value_name = "FILE", default_value = "conf/policy.toml")]
    pub policy: PathBuf,
    /// Take secrets from this data directory, as `up` does
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,
    #[command(flatten)]
    pub set: SetArgs,
}

impl PolicyArgs {
    /// Loads the policy as the services would.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn load(&self) -> anyhow::Result<Snapshot> {
        let secrets: Vec<Secret> = match &self.data {
            Some(data) => vec![super::up::read_key(data)?],
            None => Vec::new(),
        };
        let files = Files { policy: Some(self.policy.clone()), ..Files::default() };
        let source = files.policy_source(Path::new(".")).map_err(|report| anyhow::anyhow!("{}", report.render()))?;
        // Which upstreams exist is the business of sidecar.toml: a decision does not depend on it.
        let context =
            PolicyContext { revision: 1, now_ms: SystemClock.now_ms(), upstreams: None, extra_secrets: &secrets };
        load_policy(&source, &self.set.overrides(), context).map_err(|report| anyhow::anyhow!("{}", report.render()))
    }
}
