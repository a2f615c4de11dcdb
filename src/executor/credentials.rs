//! Answers the sidecar's question whether a name and a password are those of a user who may have a token.
//!
//! Hashing is dear on purpose: it runs on the blocking pool, few at a time, and those who wait give up in time. A name
//! that is unknown costs what a wrong password costs.

use std::time::Duration;

use axum::body::Body;
use axum::extract::State;
use axum::response::Response;
use http::{Request, StatusCode};
use std::sync::Arc;
use tokio::sync::Semaphore;

use crate::executor::Executor;
use crate::executor::http::{json, refused};
use crate::executor::observation::Observation;
use crate::executor::password::{self, Comparison};
use crate::policy::{Reason, TokenPolicy};
use crate::protocol::{CREDENTIALS_CONTEXT, Credentials, CredentialsVerdict};
use crate::store::{Error, account};
use crate::telemetry::ExecutorOutcome;

/// Passwords that are hashed at the same time. Argon2 takes 64 MiB for each.
const HASHES: usize = 2;
/// How long one may wait for its turn.
const TURN: Duration = Duration::from_secs(2);
/// The longest question, in bytes.
const MAX_BODY: usize = 64 * 1024;

/// Whose turn it is to hash.
pub(in crate::executor) struct Hashing {
    places: Arc<Semaphore>,
    patience: Duration,
}

impl Default for Hashing {
    fn default() -> Self {
        Self { places: Arc::new(Semaphore::new(HASHES)), patience: TURN }
    }
}

impl Hashing {
    /// Runs `work` on the blocking pool when it is its turn; `None` when that took too long. Work that was begun keeps
    /// its turn to its end, also when nobody waits for it any more.
    async fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
        let turn = tokio::time::timeout(self.patience, Arc::clone(&self.places).acquire_owned()).await.ok()?.ok()?;
        tokio::task::spawn_blocking(move || {
            let value = work();
            drop(turn);
            value
        })
        .await
        .ok()
    }
}

/// `POST /credentials`.
pub(in crate::executor) async fn judge(State(executor): State<Arc<Executor>>, request: Request<Body>) -> Response {
    let mut observation = Observation::begin(&executor.metrics);
    let (response, outcome) = answer(&executor, request).await;
    observation.outcome = outcome;
    response
}

async fn answer(executor: &Executor, request: Request<Body>) -> (Response, ExecutorOutcome) {
    let policy = executor.policy.load_full();
    let (head, body) = request.into_parts();
    let Ok(body) = axum::body::to_bytes(body, MAX_BODY).await else {
        return (refused(Reason::PayloadTooLarge, ""), ExecutorOutcome::Refused);
    };
    let asked = executor.identity(&head.headers, &body);
    let Some(identity) = asked.filter(|asked| asked.context == CREDENTIALS_CONTEXT && asked.server.is_empty()) else {
        return (refused(Reason::Unauthenticated, ""), ExecutorOutcome::Unauthenticated);
    };
    if !policy.auth.token.enabled {
        return (refused(Reason::RouteNotFound, &identity.trace_id), ExecutorOutcome::Denied);
    }
    let Ok(credentials) = serde_json::from_slice::<Credentials>(&body) else {
        return (refused(Reason::BadRequest, &identity.trace_id), ExecutorOutcome::Refused);
    };
    match executor.check(credentials, &policy.auth.token).await {
        Ok(Some(verdict)) => {
            let outcome = match verdict {
                CredentialsVerdict::Granted { .. } => ExecutorOutcome::Ok,
                _ => ExecutorOutcome::Denied,
            };
            let body = serde_json::to_vec(&verdict).expect("a verdict holds words and numbers");
            (json(StatusCode::OK, body), outcome)
        }
        Ok(None) => (refused(Reason::Overloaded, &identity.trace_id), ExecutorOutcome::Refused),
        Err(error) => {
            tracing::error!(%error, request.id = identity.request_id, "executor: a user could not be looked up");
            (refused(Reason::InternalError, &identity.trace_id), ExecutorOutcome::Failed)
        }
    }
}

impl Executor {
    /// The verdict; `None` when too many passwords wait to be hashed.
    async fn check(&self, asked: Credentials, policy: &TokenPolicy) -> Result<Option<CredentialsVerdict>, Error> {
        let mut reader = self.pool.reader().await?;
        let account = account::find(&mut reader, &asked.username).await?;
        // Asked for known names, too: the number of statements tells nothing.
        let specimen = account::specimen(&mut reader).await?;
        drop(reader);
        let legacy = policy.legacy_md5;
        let Some(account) = account else {
            let wasted =
                self.hashing.run(move || password::waste(asked.password.as_bytes(), specimen.expose(), legacy));
            return Ok(wasted.await.map(|()| CredentialsVerdict::UnknownUser));
        };
        let hash = account.password_hash.clone();
        let compared = self.hashing.run(move || {
            let compared = password::compare(asked.password.as_bytes(), hash.expose(), legacy);
            if compared == Comparison::Unreadable {
                password::waste(asked.password.as_bytes(), specimen.expose(), legacy);
            }
            compared
        });
        let now_s = self.clock.now_ms() / 1000;
        let permitted = policy.roles.contains(&account.role) && !account.is_blocked(now_s);
        Ok(compared.await.map(|compared| match compared {
            Comparison::Match if permitted => CredentialsVerdict::Granted { user_id: account.id },
            Comparison::Match => CredentialsVerdict::NotPermitted,
            Comparison::Mismatch => CredentialsVerdict::WrongPassword,
            Comparison::Unreadable => {
                tracing::warn!(user.id = account.id, "executor: the user's password is stored in a form not read here");
                CredentialsVerdict::WrongPassword
            }
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn who_waits_too_long_gives_up_and_begun_work_keeps_its_place() {
        let hashing = Arc::new(Hashing { patience: Duration::from_millis(20), ..Hashing::default() });
        let (release, gate) = std::sync::mpsc::channel::<()>();
        let gate = Arc::new(parking_lot::Mutex::new(gate));
        let (begun, mut beginning) = tokio::sync::mpsc::unbounded_channel();
        for _ in 0..HASHES {
            let (hashing, gate, begun) = (Arc::clone(&hashing), Arc::clone(&gate), begun.clone());
            let task = tokio::spawn(async move {
                let work = move || {
                    let _ = begun.send(());
                    let _ = gate.lock().recv();
                };
                hashing.run(work).await
            });
            beginning.recv().await.expect("the work begins");
            // Nobody waits for it any more, and it still counts.
            task.abort();
        }
        assert_eq!(hashing.run(|| 1).await, None);
        drop(release);
        let patient = Hashing { places: Arc::clone(&hashing.places), patience: Duration::from_secs(30) };
        assert_eq!(patient.run(|| 2).await, Some(2));
    }
}
