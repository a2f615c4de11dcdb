//! The site behind the sidecar: websockets, and bodies that stream both ways without being kept.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::harness::{Client, Next, Request, Sidecar, Start, Token, Upstream};

const SOON: Duration = Duration::from_secs(20);
const LARGE: usize = 64 << 20;
/// What a connection's buffers and a debug build may cost.
const SMALL_KIB: u64 = 24 * 1024;

/// A site that serves one connection as told; the sidecar before it.
fn before(site: impl FnOnce(TcpStream, Vec<u8>) + Send + 'static) -> (Sidecar, JoinHandle<()>) {
    behind(Sidecar::start(), site)
}

fn behind(start: Start, site: impl FnOnce(TcpStream, Vec<u8>) + Send + 'static) -> (Sidecar, JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("is bound");
    let thread = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("a connection");
        stream.set_read_timeout(Some(SOON)).expect("sets a timeout");
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte).expect("a header");
            head.push(byte[0]);
        }
        site(stream, head);
    });
    (start.set(format!("cms.url=\"http://{address}\"")).go(), thread)
}

const HANDSHAKE: &str = "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
                         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";

#[test]
fn a_websocket_to_the_site_passes_both_ways() {
    let (sidecar, site) = before(|mut stream, head| {
        let head = String::from_utf8(head).expect("ASCII").to_ascii_lowercase();
        assert!(head.starts_with("get /live http/1.1\r\n"), "{head}");
        assert!(head.contains("\r\nupgrade: websocket\r\n") && head.contains("\r\nconnection: upgrade\r\n"), "{head}");
        assert!(head.contains("\r\nsec-websocket-key: dghlihnhbxbszsbub25jzq==\r\n"), "{head}");
        let accept = "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";
        // The site speaks first, then echoes.
        stream.write_all(format!("HTTP/1.1 101 Switching Protocols\r\n{accept}\r\n\r\n").as_bytes()).expect("writes");
        stream.write_all(b"\x81\x05hello").expect("writes");
        let mut bytes = [0; 4096];
        while let Ok(count @ 1..) = stream.read(&mut bytes) {
            stream.write_all(&bytes[..count]).expect("echoes");
        }
    });
    let mut client = Client::connect(sidecar.mcp);
    client.send(format!("GET /live HTTP/1.1\r\nHost: site\r\n{HANDSHAKE}\r\n").as_bytes());
    let head = client.head();
    assert_eq!((head.status, head.header("sec-websocket-accept")), (101, Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo=")));
    assert_eq!(client.raw(7), b"\x81\x05hello");
    // A masked text frame, then binary that looks like a request for what is reserved.
    for frame in [b"\x81\x83\x01\x02\x03\x04abc".as_slice(), b"POST /api/v1/mcp/content HTTP/1.1\r\n\r\n"] {
        client.send(frame);
        assert_eq!(client.raw(frame.len()), frame);
    }
    drop(client);
    site.join().expect("the site saw the end");
    sidecar.finish();
}

#[test]
fn no_other_protocol_is_offered_to_the_site() {
    let sidecar = Sidecar::start().go();
    for offered in ["h2c", "TLS/1.0", "websocket2", "websocket, h2c", "h2c, websocket"] {
        let request = Request::new("GET", "/page")
            .header("Upgrade", offered)
            .header("Connection", "Upgrade, HTTP2-Settings")
            .header("HTTP2-Settings", "AAMAAABkAAQCAAAAAAIAAAAA");
        // Refused, or served as if it had not been asked.
        sidecar.send(&request.header("Connection", "close"));
    }
    for seen in sidecar.canary.seen() {
        let offer = (seen.header("upgrade"), seen.header("http2-settings"));
        assert_eq!(offer, (None, None), "{}", seen.line);
    }
    sidecar.finish();
}

#[test]
fn a_websocket_on_an_mcp_route_is_refused() {
    let sidecar = Sidecar::start().go();
    let token = sidecar.token(&Token::of("alice"));
    for method in ["GET", "POST"] {
        for route in ["/api/v1/mcp/raw", "/api/v1/mcp/content"] {
            let mut client = Client::connect(sidecar.mcp);
            client.send(
                format!("{method} {route} HTTP/1.1\r\nHost: site\r\nAuthorization: Bearer {token}\r\n{HANDSHAKE}\r\n")
                    .as_bytes(),
            );
            let answer = client.response(false);
            assert_eq!((answer.status, answer.code().as_deref()), (400, Some("bad_request")), "{method} {route}");
        }
    }
    // Without a token neither more is told.
    let mut client = Client::connect(sidecar.mcp);
    client.send(format!("GET /api/v1/mcp/raw HTTP/1.1\r\nHost: site\r\n{HANDSHAKE}\r\n").as_bytes());
    assert!((400..500).contains(&client.response(false).status));
    assert_eq!((sidecar.upstream.count(), sidecar.canary.count()), (0, 0));
    sidecar.finish();
}

#[test]
fn a_large_upload_streams_to_the_site() {
    let (report, told) = mpsc::channel();
    let (resume, paused) = mpsc::channel::<()>();
    let (sidecar, site) = before(move |mut stream, _| {
        let mut bytes = vec![0; 256 * 1024];
        let mut total = stream.read(&mut bytes).expect("the first bytes");
        report.send(total).expect("the test listens");
        paused.recv_timeout(SOON).expect("is resumed");
        while total < LARGE {
            total += stream.read(&mut bytes).expect("the rest");
        }
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").expect("answers");
    });
    let before = sidecar.resident_kib();
    let mut client = Client::connect(sidecar.mcp);
    client.send(format!("PUT /file HTTP/1.1\r\nHost: site\r\nContent-Length: {LARGE}\r\n\r\nfirst").as_bytes());
    // The first bytes are there before the others were sent.
    assert_eq!(told.recv_timeout(SOON).expect("the first bytes arrive"), 5);
    std::thread::scope(|scope| {
        let sending = scope.spawn(|| client.send(&vec![b'a'; LARGE - 5]));
        // The site does not read: what is in between must wait, not pile up.
        std::thread::park_timeout(Duration::from_millis(500));
        assert!(!sending.is_finished(), "64 MiB went somewhere");
        let grown = sidecar.resident_kib().saturating_sub(before);
        assert!(grown < SMALL_KIB, "{grown} KiB more than before");
        resume.send(()).expect("the site waits");
    });
    let answer = client.response(false);
    assert_eq!((answer.status, answer.text().as_str()), (200, "ok"));
    site.join().expect("the site got it all");
    sidecar.finish();
}

#[test]
fn a_large_download_streams_from_the_site() {
    let (resume, paused) = mpsc::channel::<()>();
    let (sidecar, site) = before(move |mut stream, _| {
        stream
            .write_all(format!("HTTP/1.1 200 OK\r\nContent-Length: {LARGE}\r\n\r\nfirst").as_bytes())
            .expect("begins");
        paused.recv_timeout(SOON).expect("is resumed");
        stream.write_all(&vec![b'a'; LARGE - 5]).expect("sends the rest");
    });
    let before = sidecar.resident_kib();
    let mut client = Client::connect(sidecar.mcp);
    client.send(&Request::new("GET", "/file").bytes());
    assert_eq!(client.head().status, 200);
    let mut length = client.part(SOON).expect("the first bytes").len();
    assert_eq!(length, 5, "they are here before the others were sent");
    resume.send(()).expect("the site waits");
    std::thread::park_timeout(Duration::from_millis(500));
    let grown = sidecar.resident_kib().saturating_sub(before);
    assert!(grown < SMALL_KIB, "{grown} KiB more than before");
    while let Some(part) = client.part(SOON) {
        length += part.len();
    }
    assert_eq!(length, LARGE);
    site.join().expect("the site wrote it all");
    sidecar.finish();
}

#[test]
fn a_chunked_upload_with_a_go_ahead_reaches_the_site() {
    let (sidecar, site) = before(|mut stream, head| {
        assert!(String::from_utf8_lossy(&head).to_ascii_lowercase().contains("expect: 100-continue"));
        stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").expect("writes");
        let mut body = Vec::new();
        while !body.ends_with(b"0\r\n\r\n") {
            let mut bytes = [0; 1024];
            let count = stream.read(&mut bytes).expect("the body");
            assert!(count > 0, "the body ended early: {body:?}");
            body.extend_from_slice(&bytes[..count]);
        }
        assert!(body.windows(5).any(|window| window == b"hello"));
        stream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").expect("answers");
    });
    let mut client = Client::connect(sidecar.mcp);
    let head = "POST /form HTTP/1.1\r\nHost: site\r\nTransfer-Encoding: chunked\r\nExpect: 100-continue\r\n\r\n";
    client.send(head.as_bytes());
    let go_ahead = b"HTTP/1.1 100 Continue\r\n\r\n";
    assert_eq!(client.raw(go_ahead.len()), go_ahead);
    client.send(b"5\r\nhello\r\n0\r\n\r\n");
    assert_eq!(client.response(false).status, 204);
    site.join().expect("the site got it");
    sidecar.finish();
}

#[test]
fn of_a_header_that_tells_the_client_only_ours_reaches_the_site() {
    let (report, heads) = mpsc::channel();
    let (sidecar, site) = before(move |mut stream, head| {
        let _ = report.send(String::from_utf8(head).expect("ASCII").to_ascii_lowercase());
        stream.write_all(b"HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n").expect("writes");
    });
    let mut request = Request::new("GET", "/page");

    let telling = [
        ("x-forwarded-for", "127.0.0.1"),
        ("x-real-ip", "127.0.0.1"),
        ("x-forwarded-host", "127.0.0.1"),
        ("x-forwarded-proto", "http"),
    ];
    // The first line is what it should be.
    for (name, own) in telling {
        request = request.header(name, own).header(name, "6.6.6.6");
    }
    for name in ["Forwarded", "X-Forwarded", "Forwarded-For", "Client-IP", "X-Cluster-Client-IP", "X_Forwarded_For"] {
        request = request.header(name, "6.6.6.6");
    }
    assert_eq!(sidecar.send(&request).status, 204);
    let head = heads.recv_timeout(SOON).expect("the site was asked");
    assert!(!head.contains("6.6.6.6"), "{head}");
    for (name, own) in telling {
        let lines: Vec<&str> = head.lines().filter(|line| line.starts_with(&format!("{name}:"))).collect();
        assert_eq!(lines, [format!("{name}: {own}")], "{head}");
    }
    site.join().expect("the site answered");
    sidecar.finish();
}

#[test]
fn a_body_that_dribbles_is_ended_and_one_that_the_site_is_slow_to_take_is_not() {
    let start = || Sidecar::start().set("timeouts.body=\"1s\"");
    let (sidecar, site) = behind(start(), |mut stream, _| {
        std::thread::park_timeout(Duration::from_secs(4));
        let mut body = vec![0; LARGE];
        stream.read_exact(&mut body).expect("all of it comes");
        stream.write_all(b"HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n").expect("writes");
    });
    let upload = Request::new("POST", "/upload").body(vec![b'x'; LARGE]);
    assert_eq!(sidecar.send(&upload).status, 204);
    site.join().expect("the site answered");
    sidecar.finish();

    // A body behind which another protocol is asked for is a body still.
    for upgrade in ["", HANDSHAKE] {
        let (sidecar, site) = behind(start(), |mut stream, _| {
            let mut body = Vec::new();
            let _ = stream.read_to_end(&mut body);
            assert!(body.len() < 1000, "{} bytes", body.len());
        });
        let mut client = Client::connect(sidecar.mcp);
        let head = format!("POST /dribble HTTP/1.1\r\nHost: site\r\nContent-Length: 100000\r\n{upgrade}\r\n");
        client.send(head.as_bytes());
        let begun = Instant::now();
        while !client.readable_within(Duration::from_millis(200)) {
            client.send(b"x");
            assert!(begun.elapsed() < SOON, "it goes on");
        }
        assert_eq!(client.head().status, 408, "{upgrade}");
        site.join().expect("the site saw the end");
        sidecar.finish();
    }
}

#[test]
fn what_the_site_says_unasked_is_never_the_next_visitors_page() {
    let page = |text: &str| format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{text}", text.len());
    for late in [false, true] {
        let (report, sent) = mpsc::channel();
        let site = Upstream::scripted(move |seen, peer| {
            let own = page(seen.line.split(' ').nth(1).expect("a target"));
            let unasked = page("unasked");
            if late {
                peer.send(own);
                std::thread::park_timeout(Duration::from_millis(100));
                peer.send(unasked);
            } else {
                peer.send(own + &unasked);
            }
            let _ = report.send(());
            Next::KeepAlive
        });
        let sidecar =
            Sidecar::start().set("runtime.threads=1").set(format!("cms.url=\"http://{}\"", site.address())).go();
        for target in ["/one", "/two", "/three"] {
            assert_eq!(sidecar.send(&Request::new("GET", target)).text(), target, "late: {late}");
            sent.recv_timeout(SOON).expect("the site wrote both");
        }
        assert_eq!(site.connections(), 3, "late: {late}");
        sidecar.finish();
    }
}

#[test]
fn a_site_that_is_down_or_breaks_off_is_a_page() {
    let sidecar = Sidecar::start().set(format!("cms.url=\"http://{}\"", crate::harness::vacant())).go();
    let answer = sidecar.send(&Request::new("GET", "/5entinel-page?token=5entinel"));
    assert_eq!(answer.status, 502);
    assert!(answer.text().contains("did not answer") && !answer.text().contains("5entinel"), "{}", answer.text());
    sidecar.finish();

    let (sidecar, site) = before(|mut stream, _| {
        let _ = stream.write_all(b"no HTTP at all\r\n\r\n");
    });
    assert_eq!(sidecar.send(&Request::new("GET", "/")).status, 502);
    site.join().expect("the site answered");
    sidecar.finish();
}
