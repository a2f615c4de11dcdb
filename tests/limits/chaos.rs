//! A TCP proxy in front of Redis that delays what Redis answers.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::Instant;

pub struct Chaos {
    pub port: u16,
    delay_ms: Arc<AtomicU64>,
    /// Ends with the proxy, and its connections with it.
    _tasks: JoinSet<()>,
}

impl Chaos {
    pub async fn before(upstream: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback");
        let port = listener.local_addr().expect("bound").port();
        let delay_ms = Arc::new(AtomicU64::new(0));
        let mut tasks = JoinSet::new();
        let delay = delay_ms.clone();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                connections.spawn(pass(client, upstream, delay.clone()));
            }
        });
        Self { port, delay_ms, _tasks: tasks }
    }

    pub fn delay(&self, delay: Duration) {
        let delay_ms = u64::try_from(delay.as_millis()).expect("short");
        self.delay_ms.store(delay_ms, Ordering::SeqCst);
    }

    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }
}

async fn pass(client: TcpStream, upstream: u16, delay_ms: Arc<AtomicU64>) {
    let Ok(server) = TcpStream::connect(("127.0.0.1", upstream)).await else { return };
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let requests = async { tokio::io::copy(&mut from_client, &mut to_server).await.map(|_| ()) };
    let answers = async {
        let mut buffer = vec![0; 16 * 1024];
        loop {
            let read = from_server.read(&mut buffer).await?;
            if read == 0 {
                return Ok::<_, std::io::Error>(());
            }
            let due = Instant::now() + Duration::from_millis(delay_ms.load(Ordering::SeqCst));
            tokio::time::sleep_until(due).await;
            to_client.write_all(&buffer[..read]).await?;
        }
    };
    // Either side's end is the end of both; errors are part of the misbehaviour.
    tokio::select! {
        _ = requests => {}
        _ = answers => {}
    }
}
