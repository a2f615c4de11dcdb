//! A constant rate, measured from when each request should have started.

use std::io::Result;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use clap::Args;
use tokio::sync::Semaphore;

use crate::http::{Connection, call};

/// An exchange that takes longer has failed.
const PATIENCE: Duration = Duration::from_secs(10);

#[derive(Args, Clone)]
pub struct Options {
    #[arg(long)]
    url: String,
    #[arg(long, default_value = "none")]
    token: String,
    /// Requests per second.
    #[arg(long)]
    rate: f64,
    #[arg(long, default_value_t = 10.0)]
    seconds: f64,
    #[arg(long, default_value_t = 256)]
    connections: usize,
    /// Bytes of text in the call.
    #[arg(long, default_value_t = 30)]
    text: usize,
}

/// When requests start, and how many did.
struct Schedule {
    start: Instant,
    rate: f64,
    total: u64,
    taken: AtomicU64,
    /// A permit for each request that is due.
    due: Semaphore,
}

impl Schedule {
    fn at(&self, number: u64) -> Instant {
        #[expect(clippy::cast_precision_loss, reason = "counts far below 2^52")]
        let offset = number as f64 / self.rate;
        self.start + Duration::from_secs_f64(offset)
    }

    /// Releases requests when they are due; on a thread of its own, whose sleep is finer than the runtime's timer.
    /// Gives the longest time by which it was late itself.
    fn pace(&self, workers: usize) -> Duration {
        let (mut released, mut late) = (0, Duration::ZERO);
        while released < self.total {
            let now = Instant::now();
            let first = self.at(released);
            if first > now {
                std::thread::sleep(first - now);
                continue;
            }
            late = late.max(now - first);
            let before = released;
            while released < self.total && self.at(released) <= now {
                released += 1;
            }
            self.due.add_permits(usize::try_from(released - before).expect("a batch of requests"));
        }
        // One more for each worker, to end by.
        self.due.add_permits(workers);
        late
    }
}

#[derive(Default)]
struct Tally {
    /// Microseconds.
    latencies: Vec<u64>,
    failures: u64,
    example: Option<String>,
}

pub async fn run(options: Options) -> Result<()> {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a positive count")]
    let total = (options.rate * options.seconds) as u64;
    let (address, request) = call(&options.url, &options.token, "bench.echo", &"x".repeat(options.text));
    let mut connections = Vec::new();
    for _ in 0..options.connections {
        connections.push(Connection::open(&address).await?);
    }
    let schedule = Arc::new(Schedule {
        start: Instant::now() + Duration::from_millis(100),
        rate: options.rate,
        total,
        taken: AtomicU64::new(0),
        due: Semaphore::new(0),
    });
    let pacer = {
        let schedule = Arc::clone(&schedule);
        std::thread::spawn(move || schedule.pace(options.connections))
    };
    let request = Arc::new((address, request));
    let workers: Vec<_> = connections
        .into_iter()
        .map(|connection| tokio::spawn(work(connection, Arc::clone(&request), Arc::clone(&schedule))))
        .collect();
    let mut all = Tally::default();
    for worker in workers {
        let tally = worker.await.expect("workers do not panic");
        all.latencies.extend(tally.latencies);
        all.failures += tally.failures;
        all.example = all.example.or(tally.example);
    }
    let lasted = schedule.start.elapsed().as_secs_f64();
    let late = pacer.join().expect("the pacer does not panic");
    all.latencies.sort_unstable();
    let at = |share: f64| {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss)]
        let index = (all.latencies.len() as f64 * share) as usize;
        all.latencies.get(index.min(all.latencies.len().saturating_sub(1))).copied().unwrap_or_default()
    };
    #[expect(clippy::cast_precision_loss, reason = "counts far below 2^52")]
    let achieved = all.latencies.len() as f64 / lasted;
    let report = serde_json::json!({
        "asked_rps": options.rate, "achieved_rps": achieved, "requests": all.latencies.len(), "failures": all.failures,
        "example": all.example, "p50_us": at(0.5), "p99_us": at(0.99), "p999_us": at(0.999), "max_us": at(1.0),
        "pacer_late_us": u64::try_from(late.as_micros()).unwrap_or(u64::MAX),
    });
    println!("{report}");
    Ok(())
}

async fn work(mut connection: Connection, request: Arc<(String, Vec<u8>)>, schedule: Arc<Schedule>) -> Tally {
    let mut tally = Tally::default();
    loop {
        schedule.due.acquire().await.expect("the semaphore is never closed").forget();
        let number = schedule.taken.fetch_add(1, Ordering::Relaxed);
        if number >= schedule.total {
            return tally;
        }
        let intended = schedule.at(number);
        let outcome = match tokio::time::timeout(PATIENCE, connection.exchange(&request.1)).await {
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some(error.to_string()),
            Err(_) => Some("no answer in time".to_owned()),
        };
        match outcome {
            None => tally.latencies.push(u64::try_from(intended.elapsed().as_micros()).unwrap_or(u64::MAX)),
            Some(why) => {
                tally.failures += 1;
                tally.example.get_or_insert(why);
                if let Ok(fresh) = Connection::open(&request.0).await {
                    connection = fresh;
                }
            }
        }
    }
}
