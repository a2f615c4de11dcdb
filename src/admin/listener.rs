use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode, Uri, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Json, Response};
use axum::routing::get;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::json;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tower_service::Service as _;

use super::Control;

/// Connections at once.
const CONNECTIONS: usize = 64;
/// For the whole header of a request.
const HEADER_TIMEOUT: Duration = Duration::from_secs(5);
/// A connection's whole life; a scraper comes back.
const CONNECTION_LIFE: Duration = Duration::from_secs(300);

/// Serves the read-only listener until `shutdown`. `hosts` are accepted `Host` names beside loopback literals and
/// `localhost`.
///
/// # Errors
/// When the listener cannot be used.
pub async fn serve(
    listener: std::net::TcpListener,
    hosts: Vec<String>,
    control: Arc<dyn Control>,
    shutdown: impl Future<Output = ()>,
) -> io::Result<()> {
    listener.set_nonblocking(true)?;
    let listener = tokio::net::TcpListener::from_std(listener)?;
    let routes = routes(hosts, control);
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    let mut connections = JoinSet::new();
    tokio::pin!(shutdown);
    loop {
        let accepted = tokio::select! {
            () = &mut shutdown => return Ok(()),
            Some(_) = connections.join_next() => continue,
            accepted = listener.accept() => accepted,
        };
        let Ok((stream, _)) = accepted else {
            // Out of descriptors, most likely: a busy loop would make it worse.
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        // Beyond the bound the connection is closed at once rather than queued.
        let Ok(place) = Arc::clone(&places).try_acquire_owned() else { continue };
        let routes = routes.clone();
        connections.spawn(async move {
            let service = service_fn(move |request: hyper::Request<hyper::body::Incoming>| {
                let mut routes = routes.clone();
                async move { Ok::<_, Infallible>(answered(routes.call(request.map(axum::body::Body::new)).await)) }
            });
            let connection = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEADER_TIMEOUT)
                .max_headers(64)
                .serve_connection(TokioIo::new(stream), service);
            // How a reader's connection ends is of no interest to anybody.
            let _ = tokio::time::timeout(CONNECTION_LIFE, connection).await;
            drop(place);
        });
    }
}

fn answered(result: Result<Response, Infallible>) -> Response {
    match result {
        Ok(response) => response,
        Err(never) => match never {},
    }
}

fn routes(hosts: Vec<String>, control: Arc<dyn Control>) -> Router {
    let hosts: Arc<[String]> = hosts.iter().map(|host| host.to_ascii_lowercase()).collect();
    Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .route("/status", get(|State(control): State<Arc<dyn Control>>| async move { Json(control.status()) }))
        .fallback(|| async { (StatusCode::NOT_FOUND, "not found\n") })
        .layer(middleware::from_fn(move |request: Request, next: Next| {
            let hosts = Arc::clone(&hosts);
            async move {
                if host_accepted(request.headers(), request.uri(), &hosts) {
                    let mut response = next.run(request).await;
                    response.headers_mut().insert(header::CACHE_CONTROL, header::HeaderValue::from_static("no-store"));
                    response
                } else {
                    (StatusCode::FORBIDDEN, "this host name is not accepted here, see admin.hosts\n").into_response()
                }
            }
        }))
        .with_state(control)
}

async fn readyz(State(control): State<Arc<dyn Control>>) -> Response {
    let reasons = control.readiness();
    let status = if reasons.is_empty() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(json!({ "ready": reasons.is_empty(), "reasons": reasons }))).into_response()
}

async fn metrics(State(control): State<Arc<dyn Control>>) -> Response {
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], control.metrics()).into_response()
}

/// Exactly one `Host`, and it, and the authority of an absolute target where there is one, names this machine.
fn host_accepted(headers: &HeaderMap, uri: &Uri, hosts: &[String]) -> bool {
    let mut values = headers.get_all(header::HOST).iter();
    let (Some(host), None) = (values.next(), values.next()) else { return false };
    let Ok(host) = host.to_str() else { return false };
    name_accepted(host, hosts) && uri.authority().is_none_or(|authority| name_accepted(authority.as_str(), hosts))
}

fn name_accepted(authority: &str, hosts: &[String]) -> bool {
    let (name, port) = match authority.strip_prefix('[') {
        Some(rest) => match rest.split_once(']') {
            Some((name, "")) => (name, None),
            Some((name, rest)) => match rest.strip_prefix(':') {
                Some(port) => (name, Some(port)),
                None => return false,
            },
            None => return false,
        },
        None => match authority.split_once(':') {
            Some((name, port)) => (name, Some(port)),
            None => (authority, None),
        },
    };
    if port.is_some_and(|port| port.parse::<u16>().is_err()) {
        return false;
    }
    if let Ok(address) = name.parse::<IpAddr>()
        && address.to_canonical().is_loopback()
    {
        return true;
    }
    name.eq_ignore_ascii_case("localhost") || hosts.iter().any(|host| host.eq_ignore_ascii_case(name))
}

#[cfg(test)]
mod host_tests {
    use super::name_accepted;

    #[test]
    fn only_names_of_this_machine_are_accepted() {
        let hosts = ["metrics.internal".to_owned()];
        for (name, expected) in [
            ("127.0.0.1:9087", true),
            ("127.8.9.1", true),
            ("[::1]:9087", true),
            ("[::ffff:127.0.0.1]", true),
            ("LOCALHOST:1", true),
            ("Metrics.Internal:9087", true),
            ("metrics.internal.evil.example", false),
            ("localhost.evil.example", false),
            ("10.0.0.1", false),
            ("evil.example", false),
            ("", false),
            ("localhost:port", false),
            ("localhost:", false),
            ("user@localhost", false),
            ("[::1", false),
            ("[::1]x", false),
            ("0177.0.0.1", false),
        ] {
            assert_eq!(name_accepted(name, &hosts), expected, "{name:?}");
        }
    }
}
