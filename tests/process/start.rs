//! What can be in the way of a start, and a quick end.

use std::net::{TcpListener, TcpStream};
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::harness::{Next, Upstream, eventually, stream_head};
use crate::part::{Files, Part, SOON, call, get, program};

/// From the fork to the exit, on a machine that has other things to do as well.
const AT_ONCE: Duration = Duration::from_secs(2);

#[test]
fn a_busy_address_ends_the_start_at_once_and_is_named() {
    let held = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = held.local_addr().expect("is bound").to_string();
    let files = Files::shipped();
    files.demo_site();
    for (service, file, key) in [
        ("proxy", "sidecar.toml", "listen.http"),
        ("proxy", "sidecar.toml", "admin.listen"),
        ("executor", "executor.toml", "executor.admin.listen"),
    ] {
        let files = Files::shipped();
        files.demo_site();
        match key {
            "listen.http" => files.edit(file, "http = [\"127.0.0.1:0\"]", &format!("http = [\"{address}\"]")),
            _ => files.edit(file, "listen = \"127.0.0.1:0\"", &format!("listen = \"{address}\"")),
        }
        refused_at_once(files.service(service), &address, key);
    }
    let mut up = program();
    up.args(["up", "--listen", &address, "--admin", "127.0.0.1:0", "--data"]).arg(files.path("data"));
    refused_at_once(up, &address, "--listen");
}

fn refused_at_once(command: Command, address: &str, key: &str) {
    let began = Instant::now();
    let mut part = Part::spawn(command);
    let status = part.exited_within(SOON);
    assert!(began.elapsed() < AT_ONCE, "{:?}", began.elapsed());
    assert_eq!(status.code(), Some(1));
    let said = eventually("it says why", SOON, || {
        let output = part.output();
        output.contains(address).then_some(output)
    });
    assert!(said.contains(key) && said.contains("stop the process that has it, or choose another"), "{said}");
}

#[test]
fn the_second_term_ends_it_at_once() {
    let upstream = Upstream::scripted(|_, peer| {
        peer.send(stream_head());
        peer.chunk("data: {}\n\n");
        peer.gone_within(Duration::from_secs(60));
        Next::Close
    });
    let files = Files::shipped();
    crate::drain::before(&files, &upstream);
    let mut proxy = Part::ready(files.service("proxy"));
    let mut stream = crate::drain::open(proxy.address("listening"));
    stream.body_until("the first event", SOON, |text| text.contains("data"));
    proxy.signal(Signal::TERM);
    eventually("it drains", SOON, || proxy.output().contains("draining").then_some(()));
    assert!(proxy.exited().is_none(), "a stream is open");
    let asked = Instant::now();
    proxy.signal(Signal::TERM);
    let status = proxy.exited_within(SOON);
    assert!(asked.elapsed() < AT_ONCE, "{:?}", asked.elapsed());
    assert_eq!(status.code(), Some(0));
    let record = files.audit().pop().expect("the stream's line");
    assert_eq!((&record["decision"], &record["outcome"]), (&"allow".into(), &"aborted".into()), "{record}");
}

#[test]
fn with_few_descriptors_it_serves_waits_and_recovers() {
    let _load = crate::load();
    let upstream = Upstream::mcp();
    let files = Files::shipped();
    crate::drain::before(&files, &upstream);
    let service = files.service("proxy");
    let mut few = Command::new("sh");
    few.arg("-c").arg("ulimit -n 64 && exec \"$0\" \"$@\"").arg(service.get_program()).args(service.get_args());
    for (name, value) in service.get_envs() {
        few.env(name, value.unwrap_or_default());
    }
    let proxy = Part::ready(few);
    let mcp = proxy.address("listening");
    assert_eq!(call(mcp, "raw", "raw.echo").status, 200);

    // Far more than it can take: what it has accepted is kept, the rest waits in the kernel's queue.
    let held: Vec<TcpStream> = (0..150).map(|_| TcpStream::connect(mcp).expect("the kernel accepts")).collect();
    let stat = format!("/proc/{}/stat", proxy.pid().as_raw_nonzero());
    eventually("it is out of descriptors", SOON, || {
        let open = std::fs::read_dir(format!("/proc/{}/fd", proxy.pid().as_raw_nonzero())).ok()?.count();
        (open >= 64).then_some(())
    });
    let before = ticks(&stat);
    let began = Instant::now();
    while began.elapsed() < Duration::from_millis(1500) {
        std::thread::park_timeout(Duration::from_millis(100));
    }
    let busy = (ticks(&stat) - before) as f64 / 100.0 / began.elapsed().as_secs_f64();
    assert!(busy < 0.5, "it spins: {busy:.2} of a core");
    drop(held);
    eventually("it serves again", SOON, || {
        std::panic::catch_unwind(|| call(mcp, "raw", "raw.echo").status == 200).unwrap_or(false).then_some(())
    });
    let metrics = get(proxy.address("admin listening"), "/metrics").text();
    let told = metrics.lines().find(|line| line.contains("connections_refused_total{why=\"error\"}"));
    assert!(told.is_some_and(|line| !line.ends_with(" 0")), "{told:?}");
}

/// CPU time so far, user and system, in hundredths of a second.
fn ticks(stat: &str) -> u64 {
    let text = std::fs::read_to_string(stat).expect("the process lives");
    let fields: Vec<&str> = text.rsplit(')').next().expect("has a name").split_whitespace().collect();
    fields[11].parse::<u64>().expect("utime") + fields[12].parse::<u64>().expect("stime")
}
