//! Answers the sidecar's question whether a name and a password are those of a user who may have a token.
//!
//! Hashing is dear on purpose: it runs on the blocking pool, few at a time, and those who wait give up in time. A name
//! that is unknown costs a hash as well, and no refusal is told before the longest comparison so far would have ended.

use std::time::{Duration, Instant};

use axum::body::Body;
use axum::extract::State;
use axum::response::Response;
use http::{Request, StatusCode};
use parking_lot::Mutex;
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
/// For how long a refusal is held back at most.
const MAX_FLOOR: Duration = Duration::from_secs(2);
/// The longest question, in bytes.
const MAX_BODY: usize = 64 * 1024;

/// Whose turn it is to hash.
pub(in crate::executor) struct Hashing {
    places: Arc<Semaphore>,
    patience: Duration,
    /// How long the longest took.
    longest: Mutex<Duration>,
}

impl Default for Hashing {
    fn default() -> Self {
        Self { places: Arc::new(Semaphore::new(HASHES)), patience: TURN, longest: Mutex::default() }
    }
}

impl Hashing {
    /// Runs `work` on the blocking pool when it is its turn, and says when that began; `None` when that took too long.
    /// Work that was begun keeps its turn to its end, also when nobody waits for it any more.
    async fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Option<(T, Instant)> {
        let turn = tokio::time::timeout(self.patience, Arc::clone(&self.places).acquire_owned()).await.ok()?.ok()?;
        let began = Instant::now();
        let (value, took) = tokio::task::spawn_blocking(move || {
            let value = work();
            drop(turn);
            (value, began.elapsed())
        })
        .await
        .ok()?;
        self.floor(took);
        Some((value, began))
    }

    /// Remembers how long work took; how long refusals take from now on.
    fn floor(&self, took: Duration) -> Duration {
        let mut longest = self.longest.lock();
        *longest = took.min(MAX_FLOOR).max(*longest);
        *longest
    }

    /// Waits until the longest work so far would have ended, had it begun then. It takes up no place.
    async fn even(&self, began: Instant) {
        let longest = *self.longest.lock();
        tokio::time::sleep_until((began + longest).into()).await;
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
        let hash = account.as_ref().map(|account| account.password_hash.clone());
        let compared = self.hashing.run(move || {
            let password = asked.password.as_bytes();
            let compared =
                hash.map_or(Comparison::Unreadable, |hash| password::compare(password, hash.expose(), legacy));
            if compared == Comparison::Unreadable {
                password::waste(password, specimen.expose(), legacy);
            }
            compared
        });
        let Some((compared, began)) = compared.await else { return Ok(None) };
        let now_s = self.clock.now_ms() / 1000;
        let verdict = match (account, compared) {
            (None, _) => CredentialsVerdict::UnknownUser,
            (Some(account), Comparison::Match) => {
                if policy.roles.contains(&account.role) && !account.is_blocked(now_s) {
                    return Ok(Some(CredentialsVerdict::Granted { user_id: account.id }));
                }
                CredentialsVerdict::NotPermitted
            }
            (Some(_), Comparison::Mismatch) => CredentialsVerdict::WrongPassword,
            (Some(account), Comparison::Unreadable) => {
                tracing::warn!(user.id = account.id, "executor: the user's password is stored in a form not read here");
                CredentialsVerdict::WrongPassword
            }
        };
        // Passwords are stored in several forms: how long one takes to compare would tell whose it is.
        self.hashing.even(began).await;
        Ok(Some(verdict))
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
        let places = Arc::clone(&hashing.places);
        let patient = Hashing { places, patience: Duration::from_secs(30), ..Hashing::default() };
        assert_eq!(patient.run(|| 2).await.map(|(value, _)| value), Some(2));
    }

    #[tokio::test]
    async fn who_is_held_back_takes_up_no_place() {
        let hashing = Hashing::default();
        let (_, began) = hashing.run(|| ()).await.expect("its turn comes");
        *hashing.longest.lock() = Duration::from_secs(600);
        let held_back = Box::pin(hashing.even(began));
        assert!(tokio::time::timeout(Duration::from_millis(1), held_back).await.is_err());
        assert_eq!(hashing.places.available_permits(), HASHES);
    }

    #[tokio::test]
    async fn the_longest_work_is_remembered_and_bounded() {
        let hashing = Hashing::default();
        for (ms, expected) in [(30, 30), (1, 30), (60, 60)] {
            hashing.run(move || std::thread::sleep(Duration::from_millis(ms))).await.expect("its turn comes");
            assert!(*hashing.longest.lock() >= Duration::from_millis(expected));
        }
        assert_eq!(hashing.floor(Duration::from_secs(3600)), MAX_FLOOR);
    }
}
