//! The other ends of `benches/e2e/run.py`: an open-loop client, a client that holds idle streams, and an upstream that
//! counts what reaches it. Questions: how late are answers at a constant rate, and what does an idle stream cost?
//! Units: microseconds from the time at which a request should have started; streams.
//!
//! `load rate` keeps a fixed schedule whatever the answers do: a request that finds every connection busy waits, and
//! its wait counts. A client that slows down with the server would leave the worst times out.

#[path = "load/http.rs"]
mod http;
#[path = "load/rate.rs"]
mod rate;
#[path = "load/streams.rs"]
mod streams;
#[path = "load/upstream.rs"]
mod upstream;

use clap::Parser;

#[derive(Parser)]
enum Command {
    /// Sends requests at a constant rate and prints a line of JSON.
    Rate(rate::Options),
    /// Opens event streams, says `open N`, holds them until standard input ends, and says how many still live.
    Streams(streams::Options),
    /// Answers calls, streams to `bench.stream`, and tells at `GET /count` how many calls came.
    Upstream,
}

fn main() {
    // `cargo bench` runs every bench with `--bench`: nothing to measure without the other ends.
    if std::env::args().len() < 2 || std::env::args().any(|argument| argument == "--bench") {
        return println!("load: used by benches/e2e/run.py; see --help");
    }
    let command = Command::parse();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let outcome = runtime.block_on(async {
        match command {
            Command::Rate(options) => rate::run(options).await,
            Command::Streams(options) => streams::run(options).await,
            Command::Upstream => upstream::run().await,
        }
    });
    outcome.expect("the sockets of this machine work");
}
