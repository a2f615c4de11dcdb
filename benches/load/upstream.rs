//! An upstream that answers every call alike, and counts.

use std::io::{ErrorKind, Result};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use crate::http::{Connection, field};

const ANSWER: &str = r#"{"jsonrpc":"2.0","id":1,"result":{"content":[{"type":"text","text":"ok"}],"isError":false}}"#;
/// A head, and one comment as the first chunk.
const STREAM: &str =
    "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n8\r\n: open\n\n\r\n";

pub async fn run() -> Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    println!("listening {}", listener.local_addr()?.port());
    let count = Arc::new(AtomicU64::new(0));
    loop {
        match listener.accept().await {
            Ok((socket, _)) => {
                let count = Arc::clone(&count);
                tokio::spawn(async move {
                    // A client that leaves ends its connection only.
                    let _ = serve(Connection::over(socket), &count).await;
                });
            }
            // Out of descriptors: those that are open go on.
            Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
        }
    }
}

async fn serve(mut connection: Connection, count: &AtomicU64) -> Result<()> {
    connection.socket.set_nodelay(true)?;
    while let Some(head) = connection.head().await? {
        let length = field(&head, "content-length").map_or(Ok(0), str::parse).map_err(|_| ErrorKind::InvalidData)?;
        let body = connection.body(length).await?;
        let (kind, text) = if head.starts_with("GET /count ") {
            ("text/plain", count.load(Ordering::Relaxed).to_string())
        } else {
            count.fetch_add(1, Ordering::Relaxed);
            if memchr::memmem::find(&body, b"\"bench.stream\"").is_some() {
                connection.socket.write_all(STREAM.as_bytes()).await?;
                // Silent until the other side leaves.
                return connection.socket.read(&mut [0; 16]).await.map(drop);
            }
            ("application/json", ANSWER.to_owned())
        };
        let answer = format!("HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nContent-Length: {}\r\n\r\n{text}", text.len());
        connection.socket.write_all(answer.as_bytes()).await?;
    }
    Ok(())
}
