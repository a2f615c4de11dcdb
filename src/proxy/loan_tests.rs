use bytes::BytesMut;
use http::Version;
use pingora::protocols::http::v1::server::HttpSession;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};

use super::*;
use crate::policy::{LimitsPolicy, Reason, Routes, TracePolicy};
use crate::proxy::connection::Connection;
use crate::proxy::framing::{Chunk, Piece};
use crate::proxy::gate::Gate;
use crate::proxy::headers::{check_for_cms, check_request};
use crate::proxy::path::{Route, route};
use crate::proxy::request::Request;
use crate::proxy::settings::Timeouts;

#[test]
fn a_request_is_lent_up_to_its_last_byte() {
    let chunks = b"2\r\nab\r\n0\r\n\r\n";
    for (framing, body) in
        [(Framing::Done, b"".as_slice()), (Framing::Length(5), b"hello"), (Framing::Chunked(Chunk::Size), chunks)]
    {
        let sent = [body, b"GET / HTTP/1.1\r\n\r\n"].concat();
        for cut in 0..=body.len() {
            let mut loan = Loan::new(Bytes::from_static(b"head"), framing, false);
            assert!(!loan.is_whole());
            assert_eq!((&*loan.head(3), &*loan.head(3), &*loan.head(3)), (&b"hea"[..], &b"d"[..], &b""[..]));
            assert_eq!(loan.take(&sent[..cut]), Some(cut));
            assert_eq!(loan.is_whole(), cut == body.len());
            assert_eq!(loan.take(&sent[cut..]), Some(body.len() - cut));
            assert!(loan.is_whole());
            let mut loan = Loan::new(Bytes::new(), framing, true);
            assert_eq!(loan.take(&sent), Some(sent.len()));
            assert!(!loan.is_whole(), "what is sent on is the site's");
        }
    }
    let mut loan = Loan::new(Bytes::new(), Framing::Chunked(Chunk::Size), false);
    assert_eq!(loan.take(b"2\nab"), None);
}

const LINES: [&str; 20] = [
    "GET /page HTTP/1.1",
    "\r\nGET /page HTTP/1.1",
    "GET /page HTTP/1.0",
    "get /page HTTP/1.1",
    "X-ODD /page HTTP/1.1",
    "CONNECT /page HTTP/1.1",
    "CONNECT a.test:80 HTTP/1.1",
    "OPTIONS * HTTP/1.1",
    "GET http://a.test/page HTTP/1.1",
    "GET HTTP://a.test?x HTTP/1.1",
    "GET http://b.test/page HTTP/1.1",
    "GET http://u@a.test/page HTTP/1.1",
    "GET http://a.test\\b.test/page HTTP/1.1",
    "GET http:/page HTTP/1.1",
    "GET //b.test/page HTTP/1.1",
    "GET /\\b.test/page HTTP/1.1",
    "GET /p\u{e9}ge?\u{e9} HTTP/1.1",
    "GET /%zz%2e{}|^`\"<> HTTP/1.1",
    "GET /a#b HTTP/1.1",
    "GET ?x HTTP/1.1",
];

const FIELDS: [&str; 27] = [
    "",
    "Content-Length: 5\r\n",
    "content-length:5\r\n",
    "Content-Length:\t5 \r\n",
    "Content-Length: 0\r\n",
    "Content-Length: 05\r\n",
    "Content-Length: 00000000000000000005\r\n",
    "Content-Length: 18446744073709551616\r\n",
    "Content-Length: 5, 5\r\n",
    "Content-Length: 5\r\nContent-Length: 5\r\n",
    "Content-Length: +5\r\n",
    "Content-Length:\r\n",
    "Transfer-Encoding: chunked\r\n",
    "transfer-encoding:Chunked \r\n",
    "Transfer-Encoding: chunked, chunked\r\n",
    "Transfer-Encoding: gzip, chunked\r\n",
    "Transfer-Encoding: identity\r\n",
    "Transfer-Encoding: \r\n",
    "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n",
    "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
    "Transfer_Encoding: chunked\r\n",
    "Transfer-Encoding : chunked\r\n",
    "X: a\r\n Transfer-Encoding: chunked\r\n",
    "X:\r\nX: \u{e9}\r\nx: b\t c\r\n",
    "Connection: content-length, close\r\nContent-Length: 5\r\n",
    "Expect: 100-continue\r\nContent-Length: 5\r\n",
    "Host: a.test\r\n",
];

/// What is accepted as a request for the site, its body, and what is left behind it.
fn judged(head: &str, sent: &[u8]) -> Result<(Request, Vec<u8>, Vec<u8>), Reason> {
    let request = Request::parse(Bytes::copy_from_slice(head.as_bytes()))?;
    let limits = LimitsPolicy {
        max_payload_bytes: 1,
        max_result_bytes: 1,
        max_result_items: 1,
        max_header_bytes: 1000,
        max_headers: 100,
        max_stream_bytes: 1,
    };
    let trace = TracePolicy { header: "x-trace-id".into(), generate_if_missing: true };
    check_request(&request.headers, request.version, &limits, &trace)?;
    check_for_cms(&request)?;
    let routes = Routes {
        api: true,
        manager: true,
        base: "api".into(),
        version: "v1".into(),
        api_prefix: "mcp".into(),
        manager_prefix: "emcp".into(),
    };
    let target = std::str::from_utf8(&request.target).expect("is text");
    if route(&routes, target)? != Route::Cms {
        return Err(Reason::RouteNotFound);
    }
    let (mut framing, mut left, mut body) = (request.framing(), BytesMut::from(sent), Vec::new());
    loop {
        match framing.take(&mut left).expect("is framed") {
            Piece::Data(data) => body.extend_from_slice(&data),
            Piece::End => return Ok((request, body, left.to_vec())),
            Piece::More => panic!("{head:?} has a body without end"),
        }
    }
}

/// A connection that lends this request, with these bytes behind its header.
async fn lent(request: &Request, sent: &[u8]) -> (TcpStream, Connection) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let mut client = TcpStream::connect(listener.local_addr().expect("is bound")).await.expect("connects");
    let (socket, peer) = listener.accept().await.expect("a client");
    let place = Gate::new(9, 9).enter(peer.ip()).expect("free");
    let mut connection = Connection::new(socket, peer, &Timeouts::default(), place);
    connection.lend(Loan::new(request.head.clone(), request.framing(), false));
    client.write_all(sent).await.expect("is taken");
    (client, connection)
}

#[tokio::test]
async fn pingora_reads_the_request_that_was_judged() {
    let mut accepted = 0;
    for line in LINES {
        for fields in FIELDS {
            let head = format!("{line}\r\nHost: a.test\r\n{fields}\r\n");
            let chunked = fields.to_ascii_lowercase().contains("transfer-encoding:");
            let body = if chunked { "5;x=y\r\nhello\r\n0\r\nX: y\r\n\r\n" } else { "hello" };
            let sent = format!("{body}GET /next HTTP/1.1\r\nHost: a.test\r\n\r\n").into_bytes();
            let Ok((request, body, left)) = judged(&head, &sent) else { continue };
            accepted += 1;
            let (_client, connection) = lent(&request, &sent).await;
            let mut session = HttpSession::new(Box::new(connection));
            let read = session.read_request().await;
            assert_eq!(read.expect("is accepted"), Some(head.len()), "{head:?}");
            let theirs = session.req_header();
            let version = if theirs.version == Version::HTTP_10 { Version::HTTP_10 } else { Version::HTTP_11 };
            assert_eq!(
                (&theirs.method, theirs.raw_path(), version),
                (&request.method, &*request.target, request.version)
            );
            assert_eq!(theirs.headers, request.headers, "{head:?}");
            let mut whole = Vec::new();
            while let Some(piece) = session.read_body_bytes().await.expect("is framed") {
                whole.extend_from_slice(&piece);
            }
            assert_eq!(whole, body, "{head:?}");
            let mut connection = *session.into_inner().into_any().downcast::<Connection>().expect("is ours");
            assert!(connection.taken_back(), "{head:?}");
            while connection.input.len() < left.len() {
                connection.fill().await.expect("is open");
            }
            assert_eq!(&connection.input[..], left, "{head:?}");
        }
    }
    assert!(accepted > 80, "{accepted}");
}
