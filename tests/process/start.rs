//! What can be in the way of a start, and a quick end.

use std::net::{TcpListener, TcpStream};
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::harness::{Next, Upstream, eventually, stream_head};
use crate::part::{Files, Part, SOON, call, get, program};

/// From the fork to the exit, on a machine that has other things to do as well.
const AT_ONCE: Duration = Duration::from_secs(5);

#[test]
fn a_busy_address_ends_the_start_at_once_and_is_named() {
    let held = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = held.local_addr().expect("is bound").to_string();
    let listen = format!("listen = \"{address}\"");
    let keyed = format!("{listen}\nkey_file = \"key\"");
    let files = Files::shipped();
    for (service, key, from, to) in [
        ("proxy", "listen.http", "http = [\"127.0.0.1:0\"]", &format!("http = [\"{address}\"]")),
        ("proxy", "admin.listen", "listen = \"127.0.0.1:0\"", &listen),
        ("executor", "executor.admin.listen", "listen = \"127.0.0.1:0\"", &listen),
        ("executor", "executor.listen", "socket = \"run/executor.sock\"", &keyed),
    ] {
        let files = Files::shipped();
        files.demo_site();
        std::fs::write(files.path("key"), "0123456789abcdef0123456789abcdef").expect("is written");
        files.edit(if service == "proxy" { "sidecar.toml" } else { "executor.toml" }, from, to);
        refused_at_once(files.service(service), &address, key);
    }
    files.demo_site();
    let _executor = Part::ready(files.service("executor"));
    refused_at_once(files.service("executor"), "run/executor.sock", "executor.socket");
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
    let proxy = Part::ready(limited(&files.service("proxy"), "ulimit -n 64"));
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
    let output = proxy.output();
    assert!(output.contains("fewer files than runtime.max_connections"), "{output}");
    assert!(output.contains("could not be accepted"), "{output}");
    let metrics = get(proxy.address("admin listening"), "/metrics").text();
    let told = metrics.lines().find(|line| line.contains("connections_refused_total{why=\"error\"}"));
    assert!(told.is_some_and(|line| !line.ends_with(" 0")), "{told:?}");
}

#[test]
fn the_soft_limit_of_open_files_is_raised_to_the_hard_one() {
    let files = Files::shipped();
    let proxy = Part::ready(limited(&files.service("proxy"), "ulimit -S -n 128"));
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", proxy.pid().as_raw_nonzero())).expect("it lives");
    let line = limits.lines().find(|line| line.starts_with("Max open files")).expect("is told");
    let numbers: Vec<&str> = line.split_whitespace().filter(|word| word.parse::<u64>().is_ok()).collect();
    assert!(numbers.len() == 2 && numbers[0] == numbers[1] && numbers[0] != "128", "{line}");
}

/// The command, started by a shell that sets limits first.
fn limited(command: &Command, limit: &str) -> Command {
    let mut shell = Command::new("sh");
    shell.arg("-c").arg(format!("{limit} && exec \"$0\" \"$@\"")).arg(command.get_program()).args(command.get_args());
    for (name, value) in command.get_envs() {
        shell.env(name, value.unwrap_or_default());
    }
    shell
}

/// CPU time so far, user and system, in hundredths of a second.
fn ticks(stat: &str) -> u64 {
    let text = std::fs::read_to_string(stat).expect("the process lives");
    let fields: Vec<&str> = text.rsplit(')').next().expect("has a name").split_whitespace().collect();
    fields[11].parse::<u64>().expect("utime") + fields[12].parse::<u64>().expect("stime")
}
