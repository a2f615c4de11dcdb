use std::path::PathBuf;
use std::sync::Arc;

use arc_swap::ArcSwap;
use parking_lot::Mutex;

use crate::app::plan::Files;
use crate::base::{Clock, Secret};
use crate::config::{Overrides, PolicyContext, Report, last_good, load_policy, loosened};
use crate::policy::{AuthMode, Snapshot};
use crate::telemetry::{Metrics, event};

/// The policy in force, and how it is replaced: validated whole, swapped at once, or not at all.
pub struct PolicyStore {
    files: Files,
    overrides: Overrides,
    extra_secrets: Vec<Secret>,
    upstreams: Option<Vec<String>>,
    data: PathBuf,
    keeps: bool,
    current: Arc<ArcSwap<Snapshot>>,
    /// What the last refused load said; `None` after a good one.
    problem: Mutex<Option<String>>,
    /// One load at a time.
    loading: Mutex<()>,
    clock: Arc<dyn Clock>,
}

/// What a policy is loaded from.
pub struct PolicyInputs {
    pub files: Files,
    pub overrides: Overrides,
    pub extra_secrets: Vec<Secret>,
    /// Names of the configured upstreams, which servers may refer to; `None` where they are not known.
    pub upstreams: Option<Vec<String>>,
    pub data: PathBuf,
    /// Keep each good policy in the data directory.
    pub keeps: bool,
    /// Start from the last good policy when the file is bad.
    pub last_good: bool,
}

impl PolicyStore {
    /// Loads the first policy.
    ///
    /// # Errors
    /// Everything that is wrong with it (and, when asked for, with the last good one).
    pub fn start(inputs: PolicyInputs, clock: Arc<dyn Clock>) -> Result<Self, Report> {
        let PolicyInputs { files, overrides, extra_secrets, upstreams, data, keeps, last_good: fall_back } = inputs;
        let context = PolicyContext {
            revision: 1,
            now_ms: clock.now_ms(),
            upstreams: upstreams.as_deref(),
            extra_secrets: &extra_secrets,
        };
        let load = |source: &_| load_policy(source, &overrides, context);
        let first = files.policy_source(&data).and_then(|source| Ok((load(&source)?, source)));
        let (snapshot, problem) = match first {
            Ok((snapshot, source)) => {
                if keeps {
                    keep(&data, &source.text);
                }
                (snapshot, None)
            }
            Err(report) if fall_back => {
                let source = last_good::load(&data)?;
                tracing::error!(problems = report.problems.len(), "policy refused, starting from the last good one");
                (load(&source)?, Some(report.render()))
            }
            Err(report) => return Err(report),
        };
        Ok(Self {
            current: Arc::new(ArcSwap::from_pointee(snapshot)),
            problem: Mutex::new(problem),
            loading: Mutex::new(()),
            files,
            overrides,
            extra_secrets,
            upstreams,
            data,
            keeps,
            clock,
        })
    }

    /// The snapshot in force, for the services.
    #[must_use]
    pub const fn current(&self) -> &Arc<ArcSwap<Snapshot>> {
        &self.current
    }

    /// The policy file that is watched; `None` when it is embedded.
    #[must_use]
    pub fn path(&self) -> Option<&std::path::Path> {
        self.files.policy.as_deref()
    }

    /// What the last refused load said.
    #[must_use]
    pub fn problem(&self) -> Option<String> {
        self.problem.lock().clone()
    }

    /// Loads the policy anew.
    ///
    /// # Errors
    /// Everything that is wrong with it; the old one stays.
    pub fn reload(&self, metrics: &Metrics) -> Result<String, String> {
        let _one_at_a_time = self.loading.lock();
        let old = self.current.load_full();
        let now_ms = self.clock.now_ms();
        let revision = old.revision + 1;
        let loaded = self.files.policy_source(&self.data).and_then(|source| {
            let context = PolicyContext {
                revision,
                now_ms,
                upstreams: self.upstreams.as_deref(),
                extra_secrets: &self.extra_secrets,
            };
            let snapshot = load_policy(&source, &self.overrides, context)?;
            Ok((snapshot, source))
        });
        match loaded {
            Err(report) => {
                let text = report.render();
                event::policy_refused(metrics, old.revision, report.problems.len(), &text);
                *self.problem.lock() = Some(text.clone());
                Err(text)
            }
            // A secret in a file of its own may have changed while the policy's text did not.
            Ok((snapshot, _)) if snapshot.digest == old.digest && snapshot.auth.generation == old.auth.generation => {
                *self.problem.lock() = None;
                Ok(format!("unchanged: revision {}, digest {}", old.revision, old.digest))
            }
            Ok((snapshot, source)) => {
                let looser = loosened(&old, &snapshot);
                let handles = snapshot.labels();
                let digest = snapshot.digest.clone();
                metrics.set_servers(&handles);
                self.current.store(Arc::new(snapshot));
                event::policy_reloaded(metrics, revision, &digest, now_ms, &looser);
                *self.problem.lock() = None;
                if self.keeps {
                    keep(&self.data, &source.text);
                }
                Ok(format!("revision {revision}, digest {digest}"))
            }
        }
    }
}

/// What a proxy cannot do with this policy in this environment: the file is fine, so that it serves all the same.
pub(in crate::app) fn warn_of_gaps(policy: &Snapshot) {
    let auth = &policy.auth;
    if policy.routes.api && auth.mode == AuthMode::SapiJwt && auth.secrets.is_empty() {
        tracing::warn!(
            "no token can be verified, so every one is answered with 500: no variable of auth.secret_envs (in the shipped \
             policy SAPI_JWT_SECRET) and no file of auth.secret_files holds a secret; set one of at least 32 bytes \
             (openssl rand -hex 32), and start again"
        );
    }
}

fn keep(data: &std::path::Path, text: &str) {
    if let Err(error) = last_good::save(data, text) {
        tracing::warn!(%error, "the last good policy could not be kept");
    }
}
