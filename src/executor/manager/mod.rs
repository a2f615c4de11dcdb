//! Who uses the CMS's manager, for the sidecar, which has no database (decisions T4).
//!
//! Invariants: nobody is told but to the sidecar, over the channel of calls and signed like them; the sources that the
//! policy names are asked in its order, and the first that knows the caller counts; whoever it is, the database says
//! now whether the user is blocked and what the role permits; what fails is logged and never counts as somebody.

mod ask;
mod file;
mod php;

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::response::Response;
use http::{Request, StatusCode};

use crate::executor::Executor;
use crate::executor::http::{json, refused};
use crate::executor::settings::Sessions;
use crate::policy::{IdentitySource, ManagerPolicy, Reason};
use crate::protocol::{
    MANAGER_HANDLE, ManagerAnswer, ManagerQuestion, ManagerUser, csrf_digest, is_access_token, is_session_id,
};
use crate::redis::Connection;
use crate::redis::settings::InvalidUrl;
use crate::store::identity::User;
use crate::store::{Error, Pool};
use crate::telemetry::Throttle;

/// A question holds a cookie or a token, each of which is short.
const MAX_QUESTION_BYTES: usize = 4096;
/// Lines about sources that fail, each second.
const LINES: u32 = 5;

/// Where sessions are found.
pub(in crate::executor) struct Desk {
    sessions: Sessions,
    redis: Option<Connection>,
    /// Whoever sends cookies makes a source that is away be asked.
    lines: Throttle,
}

impl Default for Desk {
    fn default() -> Self {
        Self { sessions: Sessions::default(), redis: None, lines: Throttle::new(LINES) }
    }
}

impl Desk {
    /// # Errors
    /// When the URL of Redis cannot be used.
    pub(in crate::executor) fn new(sessions: Sessions) -> Result<Self, InvalidUrl> {
        let redis = sessions.redis.as_ref().map(Connection::open).transpose()?;
        Ok(Self { sessions, redis, ..Self::default() })
    }
}

/// A source could not be asked; the text is for the log.
#[derive(Debug, thiserror::Error)]
pub(in crate::executor) enum Failed {
    #[error("executor.manager has no {0}")]
    NotConfigured(&'static str),
    #[error("{0}")]
    Store(#[from] crate::store::Error),
    #[error("session file: {0}")]
    File(std::io::Error),
    #[error("{0}")]
    Redis(#[from] crate::redis::Unavailable),
    #[error("auth_request: {0}")]
    Request(&'static str),
}

impl Executor {
    /// What a user of the CMS's manager may do now; `None`: there is no such user, the user is blocked, or may not use
    /// the manager.
    ///
    /// # Errors
    /// When the database does not say.
    pub async fn manager_permissions(&self, policy: &ManagerPolicy, user: u64) -> Result<Option<Vec<String>>, Error> {
        let user = standing(&self.pool, policy, user, self.clock().now_ms() / 1000).await?;
        Ok(user.map(|user| user.permissions))
    }
}

/// The user as the database has it now, if the user may use the manager.
async fn standing(pool: &Pool, policy: &ManagerPolicy, user: u64, now_s: u64) -> Result<Option<User>, Error> {
    let access = &policy.access_permission;
    let user = pool.user(user, now_s).await?;
    Ok(user.filter(|user| access.is_empty() || user.permissions.contains(access)))
}

/// Answers `POST …/@manager`.
pub(in crate::executor) async fn answer(State(executor): State<Arc<Executor>>, request: Request<Body>) -> Response {
    let (head, body) = request.into_parts();
    let Ok(body) = axum::body::to_bytes(body, MAX_QUESTION_BYTES).await else {
        return refused(Reason::PayloadTooLarge, "");
    };
    let told = match executor.identity(&head.headers, &body) {
        Some(identity) if identity.server == MANAGER_HANDLE => identity.policy_digest,
        _ => return refused(Reason::Unauthenticated, ""),
    };
    let Ok(question) = serde_json::from_slice::<ManagerQuestion>(&body) else {
        return refused(Reason::BadRequest, "");
    };
    let policy = executor.policy().load_full();
    if told != policy.digest {
        executor.policy_differs();
    }
    let asked = Asked {
        pool: &executor.pool,
        desk: executor.manager(),
        policy: &policy.manager,
        now_s: executor.clock().now_ms() / 1000,
    };
    match asked.whose(&question).await {
        Ok(user) => {
            let answer = serde_json::to_vec(&ManagerAnswer { user }).expect("an answer holds texts and numbers");
            json(StatusCode::OK, answer)
        }
        Err(()) => refused(Reason::InternalError, ""),
    }
}

/// What one question is answered from.
struct Asked<'a> {
    pool: &'a Pool,
    desk: &'a Desk,
    policy: &'a ManagerPolicy,
    now_s: u64,
}

impl Asked<'_> {
    /// Whose credential it is. Fails when nobody was found and some source could not be asked.
    async fn whose(&self, question: &ManagerQuestion) -> Result<Option<ManagerUser>, ()> {
        let mut failed = false;
        for source in &self.policy.sources {
            let login = match (source, question) {
                (IdentitySource::AccessToken, ManagerQuestion { session: None, token: Some(token) })
                    if is_access_token(token) =>
                {
                    self.by_token(token).await
                }
                (IdentitySource::AccessToken, _) => Ok(None),
                (_, ManagerQuestion { session: Some(session), token: None }) if is_session_id(session) => {
                    self.by_session(*source, session).await
                }
                _ => Ok(None),
            };
            match login {
                Ok(None) => {}
                Ok(Some(login)) => return self.admitted(login).await,
                Err(error) => {
                    if self.desk.lines.admit() {
                        tracing::warn!(%error, manager.source = source.as_str(), "executor: an identity source failed");
                    }
                    failed = true;
                }
            }
        }
        if failed { Err(()) } else { Ok(None) }
    }

    async fn by_token(&self, token: &str) -> Result<Option<php::Login>, Failed> {
        let local_s = i64::try_from(self.now_s).unwrap_or(i64::MAX).saturating_add(self.desk.sessions.utc_offset_s);
        let Ok(local) = jiff::Timestamp::from_second(local_s) else { return Ok(None) };
        let now = local.strftime("%Y-%m-%d %H:%M:%S").to_string();
        let user = self.pool.token_user(token, &now).await?;
        Ok(user.map(|user| php::Login { user, csrf: None }))
    }

    async fn by_session(&self, source: IdentitySource, session: &str) -> Result<Option<php::Login>, Failed> {
        let since_s = self.now_s.saturating_sub(self.policy.session_seconds);
        let sessions = &self.desk.sessions;
        match source {
            IdentitySource::Database => {
                let user = self.pool.session_user(session, since_s).await?;
                Ok(user.map(|user| php::Login { user, csrf: None }))
            }
            IdentitySource::SessionFile => {
                let directory = sessions.directory.as_deref().ok_or(Failed::NotConfigured("session_dir"))?;
                file::login(directory, &sessions.file_prefix, session, since_s).await.map_err(Failed::File)
            }
            IdentitySource::RedisSession => {
                let missing = Failed::NotConfigured("redis_url_env or redis_url_file");
                let (Some(redis), Some(settings)) = (&self.desk.redis, &sessions.redis) else { return Err(missing) };
                let found = redis.get(&format!("{}{session}", settings.prefix)).await?;
                Ok(found.and_then(|session| php::login(&session)))
            }
            IdentitySource::AuthRequest => {
                let page = sessions.auth_request.as_ref().ok_or(Failed::NotConfigured("auth_request_url"))?;
                let user = ask::user(page, &self.policy.cookie, session).await.map_err(Failed::Request)?;
                Ok(user.map(|user| php::Login { user, csrf: None }))
            }
            IdentitySource::AccessToken => Ok(None),
        }
    }

    /// The user as the database has it now.
    async fn admitted(&self, login: php::Login) -> Result<Option<ManagerUser>, ()> {
        let found = standing(self.pool, self.policy, login.user, self.now_s).await;
        let user = found.map_err(|error| {
            if self.desk.lines.admit() {
                tracing::warn!(%error, "executor: a manager's user could not be read");
            }
        })?;
        Ok(user.map(|user| ManagerUser {
            id: user.id,
            role: user.role,
            permissions: user.permissions,
            csrf: login.csrf.as_deref().map(csrf_digest),
        }))
    }
}
