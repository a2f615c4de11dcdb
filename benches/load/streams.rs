//! Many event streams that say nothing.

use std::io::{ErrorKind, Result};
use std::sync::Arc;

use clap::Args;
use tokio::io::AsyncWriteExt as _;
use tokio::sync::Semaphore;

use crate::http::{Connection, call, field};

/// Streams that are being opened at the same time.
const OPENING: usize = 64;

#[derive(Args, Clone)]
pub struct Options {
    #[arg(long)]
    url: String,
    #[arg(long, default_value = "none")]
    token: String,
    #[arg(long, default_value_t = 10_000)]
    count: usize,
}

pub async fn run(options: Options) -> Result<()> {
    let (address, request) = call(&options.url, &options.token, "bench.stream", "");
    let request = Arc::new((address, request));
    let gate = Arc::new(Semaphore::new(OPENING));
    let opening: Vec<_> = (0..options.count)
        .map(|_| {
            let (request, gate) = (Arc::clone(&request), Arc::clone(&gate));
            tokio::spawn(async move {
                let _turn = gate.acquire().await.expect("the semaphore is never closed");
                open(&request.0, &request.1).await
            })
        })
        .collect();
    let (mut streams, mut failures) = (Vec::new(), Vec::new());
    for stream in opening {
        match stream.await.expect("opening does not panic") {
            Ok(stream) => streams.push(stream),
            Err(error) => failures.push(error),
        }
    }
    if let Some(error) = failures.first() {
        eprintln!("{} streams did not open; the first: {error}", failures.len());
    }
    println!("open {}", streams.len());
    tokio::task::spawn_blocking(|| std::io::copy(&mut std::io::stdin(), &mut std::io::sink()))
        .await
        .expect("reading does not panic")?;
    println!("alive {}", streams.iter().filter(|stream| is_alive(stream)).count());
    Ok(())
}

async fn open(address: &str, request: &[u8]) -> Result<Connection> {
    let mut connection = Connection::open(address).await?;
    connection.socket.write_all(request).await?;
    let head = connection.head().await?.ok_or(ErrorKind::UnexpectedEof)?;
    let streams = field(&head, "content-type").is_some_and(|kind| kind.starts_with("text/event-stream"));
    if streams { Ok(connection) } else { Err(std::io::Error::other(head)) }
}

/// Reads what came meanwhile, such as heartbeats, up to the end of what is there.
fn is_alive(stream: &Connection) -> bool {
    let mut buffer = [0; 4096];
    loop {
        match stream.socket.try_read(&mut buffer) {
            Ok(0) => return false,
            Ok(_) => {}
            Err(error) => return error.kind() == ErrorKind::WouldBlock,
        }
    }
}
