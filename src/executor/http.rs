use std::future::Future;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use arc_swap::ArcSwap;
use axum::Router;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::response::Response;
use http::header::{ALLOW, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use http::{Request, StatusCode};

use crate::base::{Clock, Secret, SystemClock};
use crate::executor::dispatch::{self, Dispatch};
use crate::executor::listener::OwnUid;
use crate::executor::observation::Observation;
use crate::executor::registry::{self, Catalog};
use crate::executor::rpc::{Answer, Desk};
use crate::executor::{Listen, Listener, Sessions, Settings, credentials, manager, stream};
use crate::policy::{Reason, ServerKind, Snapshot};
use crate::protocol::{self, CREDENTIALS_PATH, IDENTITY_HEADER, Identity, SIGNATURE_HEADER};
use crate::redis::settings::InvalidUrl;
use crate::store::Pool;
use crate::telemetry::{ExecutorMetrics, ExecutorOutcome};

/// Shorter keys are refused.
const KEY_BYTES: usize = 32;
pub(in crate::executor) const SESSION_HEADER: HeaderName = HeaderName::from_static("mcp-session-id");

/// The tool executor: what answers, apart from where it listens.
pub struct Executor {
    pub(in crate::executor) pool: Pool,
    pub(in crate::executor) policy: Arc<ArcSwap<Snapshot>>,
    key: Option<Secret>,
    pub(in crate::executor) clock: Arc<dyn Clock>,
    /// The database did not answer when it was last asked.
    database_away: AtomicBool,
    pub(in crate::executor) metrics: Arc<ExecutorMetrics>,
    pub(in crate::executor) hashing: credentials::Hashing,
    manager: manager::Desk,
    /// Who takes calls that are to be run later; without it they are refused.
    pub(in crate::executor) desk: OnceLock<Arc<dyn Dispatch>>,
    pub(in crate::executor) catalog: Catalog,
}

impl Executor {
    /// An executor over a site's database. It judges by whatever `policy` holds when a call comes in.
    #[must_use]
    pub fn new(pool: Pool, policy: Arc<ArcSwap<Snapshot>>, settings: &Settings, metrics: Arc<ExecutorMetrics>) -> Self {
        let key = match &settings.listen {
            Listen::Unix(_) => None,
            Listen::Tcp { key, .. } => Some(key.clone()),
        };
        Self {
            pool,
            policy,
            key,
            clock: Arc::new(SystemClock),
            database_away: AtomicBool::new(false),
            metrics,
            hashing: credentials::Hashing::default(),
            manager: manager::Desk::default(),
            desk: OnceLock::new(),
            catalog: registry::SHIPPED,
        }
    }

    /// The same, which also finds out who uses the CMS's manager.
    ///
    /// # Errors
    /// When the URL of Redis cannot be used.
    pub fn with_sessions(self, sessions: Sessions) -> Result<Self, InvalidUrl> {
        Ok(Self { manager: manager::Desk::new(sessions)?, ..self })
    }

    #[cfg(test)]
    pub(in crate::executor) fn with_catalog(self, catalog: Catalog) -> Self {
        Self { catalog, ..self }
    }

    pub(in crate::executor) const fn manager(&self) -> &manager::Desk {
        &self.manager
    }

    pub(in crate::executor) const fn policy(&self) -> &Arc<ArcSwap<Snapshot>> {
        &self.policy
    }

    pub(in crate::executor) fn policy_differs(&self) {
        self.metrics.policy_mismatch();
    }

    pub(in crate::executor) fn clock(&self) -> &dyn Clock {
        &*self.clock
    }

    /// Has calls taken that are to be run later. The first desk stays.
    pub fn take_calls(&self, desk: Arc<dyn Dispatch>) {
        let _ = self.desk.set(desk);
    }

    /// Brings the gauges of the database up to date; called when somebody scrapes.
    pub fn observe(&self) {
        self.metrics.observe_pool(&self.pool.reading());
    }

    /// Whether calls can be answered now.
    ///
    /// # Errors
    /// Why not, in words fit for an operator.
    pub async fn ready(&self) -> Result<(), String> {
        match self.pool.ready().await {
            Ok(()) => {
                if self.database_away.swap(false, Ordering::Relaxed) {
                    tracing::info!("executor: the database answers again");
                }
                Ok(())
            }
            Err(error) => {
                // Asked each second: what has been said is not said again.
                if !self.database_away.swap(true, Ordering::Relaxed) {
                    tracing::warn!(%error, "executor: the database does not answer");
                }
                Err(error.reason().to_owned())
            }
        }
    }
}

/// Serves until `shutdown` resolves and the calls at work have ended.
///
/// # Errors
/// On TCP without a key of at least 32 bytes; when the listener fails.
pub async fn serve(
    listener: Listener,
    executor: Arc<Executor>,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> io::Result<()> {
    match listener {
        Listener::Unix(listener) => {
            axum::serve(OwnUid(listener), router(executor)).with_graceful_shutdown(shutdown).await
        }
        Listener::Tcp(listener) => {
            if executor.key.as_ref().is_none_or(|key| key.len() < KEY_BYTES) {
                return Err(io::Error::new(io::ErrorKind::InvalidInput, "executor.key must have at least 32 bytes"));
            }
            axum::serve(listener, router(executor)).with_graceful_shutdown(shutdown).await
        }
    }
}

/// `POST /mcp/{server}` and `…/dispatch`, `POST /credentials`, and plain errors elsewhere.
pub fn router(executor: Arc<Executor>) -> Router {
    Router::new()
        .route("/mcp/@manager", axum::routing::post(manager::answer).fallback(method_not_allowed))
        .route("/mcp/{server}", axum::routing::post(call).fallback(method_not_allowed))
        .route(CREDENTIALS_PATH, axum::routing::post(credentials::judge).fallback(method_not_allowed))
        .route("/mcp/{server}/dispatch", axum::routing::post(dispatch::take).fallback(method_not_allowed))
        .fallback(async || refused(Reason::RouteNotFound, ""))
        .with_state(executor)
}

async fn method_not_allowed() -> Response {
    let mut response = refused(Reason::MethodNotAllowed, "");
    response.headers_mut().insert(ALLOW, HeaderValue::from_static("POST"));
    response
}

/// One call: who asks, whom, what.
async fn call(State(executor): State<Arc<Executor>>, Path(handle): Path<String>, request: Request<Body>) -> Response {
    let mut observation = Observation::begin(&executor.metrics);
    let response = judge(&executor, &handle, request, &mut observation).await;
    match response {
        Ok(response) => response,
        Err(call) => stream::respond(*call, observation),
    }
}

/// The answer, or the call that is to be streamed.
async fn judge(
    executor: &Executor,
    handle: &str,
    request: Request<Body>,
    observation: &mut Observation,
) -> Result<Response, Box<stream::Call>> {
    let policy = executor.policy.load_full();
    let (head, body) = request.into_parts();
    let server = policy.server(handle).filter(|server| server.kind == ServerKind::Content);
    let most = server.map_or(policy.limits.max_payload_bytes, |server| server.limits.max_payload_bytes);
    let Ok(body) = axum::body::to_bytes(body, most).await else {
        observation.outcome = ExecutorOutcome::Refused;
        return Ok(refused(Reason::PayloadTooLarge, ""));
    };
    let identity = match executor.identity(&head.headers, &body) {
        Some(identity) if identity.server == handle => identity,
        _ => {
            observation.outcome = ExecutorOutcome::Unauthenticated;
            return Ok(refused(Reason::Unauthenticated, ""));
        }
    };
    if identity.policy_digest != policy.digest {
        executor.policy_differs();
    }
    let Some(server) = server else {
        observation.outcome = ExecutorOutcome::Refused;
        return Ok(refused(Reason::ServerNotFound, &identity.trace_id));
    };
    let desk = Desk { executor, policy: &policy, server, caller: &identity };
    Ok(match desk.answer(&body, observation).await {
        Answer::Nothing => json(StatusCode::ACCEPTED, Vec::new()),
        Answer::Json(body) => json(StatusCode::OK, body),
        Answer::Session(body) => {
            let mut response = json(StatusCode::OK, body);
            let session = uuid::Uuid::new_v4().to_string();
            let session = HeaderValue::from_str(&session).expect("a uuid is made of hex digits and dashes");
            response.headers_mut().insert(SESSION_HEADER, session);
            response
        }
        Answer::Denied(reason) => refused(reason, &identity.trace_id),
        Answer::Stream(call) => return Err(call),
    })
}

impl Executor {
    pub(in crate::executor) fn identity(&self, headers: &HeaderMap, body: &[u8]) -> Option<Identity> {
        // Twice is as good as never: two readers might take different ones.
        let single = |name: &str| -> Result<Option<&str>, ()> {
            let mut values = headers.get_all(name).iter();
            let first = values.next().map(|value| value.to_str().map_err(drop)).transpose()?;
            if values.next().is_some() { Err(()) } else { Ok(first) }
        };
        let (identity, signature) = (single(IDENTITY_HEADER).ok()?, single(SIGNATURE_HEADER).ok()?);
        let now_s = self.clock.now_ms() / 1000;
        protocol::verify_identity(identity, signature, body, self.key.as_ref(), now_s)
            .inspect_err(|error| tracing::warn!(%error, "executor: identity refused"))
            .ok()
    }
}

pub(in crate::executor) fn refused(reason: Reason, trace_id: &str) -> Response {
    let status = StatusCode::from_u16(reason.status()).expect("reasons have HTTP statuses");
    json(status, protocol::transport_error(reason.code(), reason.message(), trace_id))
}

pub(in crate::executor) fn json(status: StatusCode, body: Vec<u8>) -> Response {
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}
