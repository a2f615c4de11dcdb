//! Listeners and workers: accepted connections are counted, and their requests answered one after the other, here or,
//! those for the CMS, by Pingora.
//!
//! The accept loop is ours, so that a busy port is an error at once, connections are bounded before anything is
//! read, and a shutdown ends when its work is done. Each worker is one thread with a runtime of its own; upstream
//! connections stay on the worker that opened them.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use pingora::apps::HttpServerApp;
use pingora::protocols::http::ServerSession;
use pingora::proxy::HttpProxy;
use pingora::server::configuration::ServerConf;
use tokio::sync::watch;

use crate::proxy::connection::Connection;
use crate::proxy::exchange::Exchange;
use crate::proxy::front::Front;
use crate::proxy::gateway::{Answered, Gateway};
use crate::proxy::pool;
use crate::proxy::request::Request;
use crate::telemetry::event;

/// How long connections that the kernel has taken already are still accepted once we listen no more.
const LAST_ACCEPTS: Duration = Duration::from_millis(100);

/// Listens on an address, with address reuse, so that a restart does not wait.
///
/// # Errors
/// When the address is taken, at once.
pub fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let domain = socket2::Domain::for_address(address);
    let socket = socket2::Socket::new(domain, socket2::Type::STREAM, Some(socket2::Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(4096)?;
    Ok(socket.into())
}

/// What each worker serves.
#[derive(Clone)]
struct Service {
    gateway: Arc<Gateway>,
    proxy: Arc<HttpProxy<Front>>,
}

/// The running workers.
pub struct Workers {
    threads: Vec<JoinHandle<()>>,
    stop: watch::Sender<Phase>,
}

/// How far the shutdown has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Phase {
    Serving,
    /// No new connections; open ones finish.
    Closing,
    /// Whatever is left is dropped.
    Ended,
}

impl Workers {
    /// Starts `threads` workers that share the listeners.
    ///
    /// # Errors
    /// When a listener cannot be shared or a thread cannot start.
    pub fn start(gateway: &Arc<Gateway>, listeners: &[TcpListener]) -> io::Result<Self> {
        let threads = gateway.settings().threads.max(1);
        let configuration = ServerConf { threads, ..ServerConf::default() };
        let mut proxy = HttpProxy::new(Front(Arc::clone(gateway)), Arc::new(configuration));
        proxy.handle_init_modules();
        let proxy = Arc::new(proxy);
        let (stop, phase) = watch::channel(Phase::Serving);
        let mut handles = Vec::with_capacity(threads);
        for index in 0..threads {
            let listeners = listeners.iter().map(TcpListener::try_clone).collect::<io::Result<Vec<_>>>()?;
            let service = Service { gateway: Arc::clone(gateway), proxy: Arc::clone(&proxy) };
            let phase = phase.clone();
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            let worker = std::thread::Builder::new().name(format!("proxy-{index}"));
            handles.push(worker.spawn(move || runtime.block_on(work(service, listeners, phase)))?);
        }
        Ok(Self { threads: handles, stop })
    }

    /// Closes the listeners; open connections go on.
    pub fn close(&self) {
        self.stop.send_replace(Phase::Closing);
    }

    /// Ends whatever is left and waits for the workers.
    pub fn join(self) {
        self.stop.send_replace(Phase::Ended);
        for thread in self.threads {
            let _ = thread.join();
        }
    }
}

async fn work(service: Service, listeners: Vec<TcpListener>, mut phase: watch::Receiver<Phase>) {
    let (closing, closing_watch) = watch::channel(false);
    let limits = Arc::clone(&service.gateway.limits);
    tokio::spawn(async move { limits.connect().await });
    let mut accepting = Vec::new();
    for listener in listeners {
        let Ok(listener) = tokio::net::TcpListener::from_std(listener) else { continue };
        accepting.push(tokio::spawn(accept(service.clone(), listener, closing_watch.clone())));
    }
    let mut sweep = tokio::time::interval(pool::SWEEP);
    loop {
        tokio::select! {
            _ = sweep.tick() => pool::sweep(),
            changed = phase.changed() => {
                let now = *phase.borrow_and_update();
                if now >= Phase::Closing {
                    closing.send_replace(true);
                    for mut task in accepting.drain(..) {
                        if tokio::time::timeout(LAST_ACCEPTS, &mut task).await.is_err() {
                            task.abort();
                        }
                    }
                }
                if now == Phase::Ended || changed.is_err() {
                    return;
                }
            }
        }
    }
}

async fn accept(service: Service, listener: tokio::net::TcpListener, mut closing: watch::Receiver<bool>) {
    let gateway = &service.gateway;
    loop {
        let accepted = tokio::select! {
            // What the kernel has taken is served before listening ends: its client believes to be connected.
            biased;
            accepted = listener.accept() => accepted,
            _ = closing.wait_for(|closing| *closing) => return,
        };
        let (stream, address) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                // Out of descriptors, as a rule: what is open must end before more can come.
                event::accept_failed(gateway.metrics(), &error.to_string());
                tokio::time::sleep(Duration::from_millis(20)).await;
                continue;
            }
        };
        let peer = address.ip().to_canonical();
        let place = match gateway.gate().enter(peer) {
            Ok(place) => place,
            Err(why) => {
                event::connection_refused(gateway.metrics(), why, peer);
                continue;
            }
        };
        let _ = stream.set_nodelay(true);
        let connection = Connection::new(stream, address, &gateway.settings().timeouts, place);
        gateway.metrics().connection_accepted();
        let (service, closing) = (service.clone(), closing.clone());
        tokio::spawn(converse(service, connection, closing));
    }
}

/// Serves a connection's requests until it ends.
async fn converse(service: Service, mut connection: Connection, closing: watch::Receiver<bool>) {
    let gateway = &service.gateway;
    loop {
        let head = connection.header(|| gateway.longest_header()).await;
        let request = match head.map_err(Option::from).and_then(|head| Request::parse(head).map_err(Some)) {
            Ok(request) => request,
            Err(Some(reason)) => return Box::pin(gateway.refuse_unread(connection, reason)).await,
            Err(None) => return,
        };
        // Over both ways, so that a drain does not take a request for ended while it changes hands.
        let _flight = gateway.flight();
        let mut exchange = Exchange::new(connection, request);
        let next = match gateway.serve(&mut exchange).await {
            Answered::Here => exchange.finish().await,
            Answered::ByCms => Box::pin(by_cms(&service, exchange, &closing)).await,
        };
        match next {
            Some(next) => connection = next,
            None => return,
        }
    }
}

/// Lends the connection to Pingora for one request.
async fn by_cms(service: &Service, exchange: Exchange, closing: &watch::Receiver<bool>) -> Option<Connection> {
    let session = ServerSession::new_http1(Box::new(exchange.lend()));
    let (stream, _) = service.proxy.process_new_http(session, closing).await?.consume();
    let mut connection = *stream.into_any().downcast::<Connection>().ok()?;
    connection.taken_back().then_some(connection)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of the future that such a function returns.
    fn size<A, B, C, F: Future>(_: impl Fn(A, B, C) -> F) -> usize {
        size_of::<F>()
    }

    #[test]
    fn an_idle_connection_costs_little() {
        // Its task is as large as the largest thing that a request may come to in it.
        let bytes = size(converse);
        assert!(bytes <= 8 * 1024, "{bytes} bytes for each connection");
    }
}
