//! A request's header, read from bytes: HTTP/1.1 and 1.0, nothing that two readers could read in two ways.
//!
//! Names and values are not copied: they are slices of the bytes that came.

use std::mem::MaybeUninit;

use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_LENGTH, EXPECT, HeaderMap, HeaderName, HeaderValue, TRANSFER_ENCODING};
use http::{Method, Version};

use crate::policy::Reason;
use crate::proxy::framing::{Chunk, Framing, digits};

/// More lines than this are too many for Pingora too, whatever the policy says.
const MAX_LINES: usize = 256;

/// What a client asks for.
#[derive(Debug)]
pub struct Request {
    pub method: Method,
    /// As it was sent.
    pub target: Bytes,
    pub version: Version,
    pub headers: HeaderMap,
    /// The bytes that all this was read from.
    pub head: Bytes,
    /// Whether the connection is to be kept for another request.
    pub keeps: bool,
    /// The declared length of the body. One that is no number of ours is more than anybody sends.
    pub length: Option<u64>,
    pub chunked: bool,
    /// Whether the client waits for a go-ahead before it sends the body.
    pub waits: bool,
}

impl Request {
    /// Reads a header that ends with its blank line.
    ///
    /// # Errors
    /// `BadRequest`, or `HeadersTooLarge` for too many lines.
    pub fn parse(head: Bytes) -> Result<Self, Reason> {
        let mut lines = [const { MaybeUninit::uninit() }; MAX_LINES];
        let mut request = httparse::Request::new(&mut []);
        match request.parse_with_uninit_headers(&head, &mut lines) {
            // Where the header ends is not to be a matter of opinion.
            Ok(httparse::Status::Complete(length)) if length == head.len() => {}
            Err(httparse::Error::TooManyHeaders) => return Err(Reason::HeadersTooLarge),
            _ => return Err(Reason::BadRequest),
        }
        let (Some(method), Some(target), Some(version)) = (request.method, request.path, request.version) else {
            return Err(Reason::BadRequest);
        };
        let method = Method::from_bytes(method.as_bytes()).map_err(|_| Reason::BadRequest)?;
        let version = if version == 0 { Version::HTTP_10 } else { Version::HTTP_11 };
        let mut headers = HeaderMap::with_capacity(request.headers.len());
        let (mut kept, mut closed) = (version == Version::HTTP_11, false);
        let (mut length, mut chunked, mut waits) = (None, false, false);
        for line in request.headers.iter() {
            let name = HeaderName::from_bytes(line.name.as_bytes()).map_err(|_| Reason::BadRequest)?;
            if name == CONNECTION {
                for token in line.value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii) {
                    closed |= token.eq_ignore_ascii_case(b"close");
                    kept |= token.eq_ignore_ascii_case(b"keep-alive");
                }
            } else if name == CONTENT_LENGTH {
                length = Some(digits(line.value, 10).unwrap_or(u64::MAX));
            } else if name == TRANSFER_ENCODING {
                chunked = true;
            } else if name == EXPECT {
                waits = version == Version::HTTP_11 && line.value.eq_ignore_ascii_case(b"100-continue");
            }
            let value = head.slice_ref(line.value);
            headers.append(name, HeaderValue::from_maybe_shared(value).map_err(|_| Reason::BadRequest)?);
        }
        let target = head.slice_ref(target.as_bytes());
        Ok(Self { method, target, version, headers, head, keeps: kept && !closed, length, chunked, waits })
    }

    /// How the body is framed, in a header that [`check_request`](crate::proxy::headers::check_request) accepts.
    #[must_use]
    pub const fn framing(&self) -> Framing {
        match (self.chunked, self.length) {
            (true, _) => Framing::Chunked(Chunk::Size),
            (false, None | Some(0)) => Framing::Done,
            (false, Some(length)) => Framing::Length(length),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Request, Reason> {
        Request::parse(Bytes::copy_from_slice(text.as_bytes()))
    }

    #[test]
    fn headers_are_read_as_they_were_sent() {
        let request = parse("POST /a?b HTTP/1.1\r\nHOST:  a.test \r\nX: é\r\ncontent-length: 12\r\nX: 2\r\n\r\n");
        let request = request.expect("is a request");
        assert_eq!((request.method.as_str(), &*request.target), ("POST", b"/a?b".as_slice()));
        assert_eq!(request.headers["host"], "a.test");
        assert_eq!(request.headers.get_all("x").iter().count(), 2);
        assert_eq!((request.framing(), request.length), (Framing::Length(12), Some(12)));
        assert!(request.keeps && !request.waits);
        let request =
            parse("\r\nGET http://a.test/ HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n").expect("a request");
        assert_eq!((&*request.target, request.version), (b"http://a.test/".as_slice(), Version::HTTP_10));
        assert_eq!(request.framing(), Framing::Chunked(Chunk::Size));
        assert!(!request.keeps);
    }

    #[test]
    fn connections_are_kept_as_both_versions_have_it() {
        for (version, lines, keeps) in [
            ("1.1", "", true),
            ("1.1", "Connection: close\r\n", false),
            ("1.1", "Connection: x, CLOSE\r\nConnection: keep-alive\r\n", false),
            ("1.0", "", false),
            ("1.0", "Connection: Keep-Alive\r\n", true),
            ("1.0", "Connection: keep-alive, close\r\n", false),
        ] {
            let request = parse(&format!("GET / HTTP/{version}\r\n{lines}\r\n")).expect("a request");
            assert_eq!(request.keeps, keeps, "{version} {lines:?}");
        }
        assert!(parse("GET / HTTP/1.1\r\nExpect: 100-Continue\r\n\r\n").is_ok_and(|request| request.waits));
        assert!(parse("GET / HTTP/1.0\r\nExpect: 100-continue\r\n\r\n").is_ok_and(|request| !request.waits));
    }

    #[test]
    fn what_others_might_read_differently_is_refused() {
        for text in [
            "GET / HTTP/1.1\r\nX: a\r\n b\r\n\r\n",
            "GET / HTTP/1.1\r\nX : a\r\n\r\n",
            "GET / HTTP/1.1\r\n X: a\r\n\r\n",
            "GET / HTTP/1.1\r\nX: a\0b\r\n\r\n",
            "GET / HTTP/1.1\r\nX: a\rb\r\n\r\n",
            "GET / HTTP/1.1\r\nno colon\r\n\r\n",
            "GET / HTTP/1.1\r\n: a\r\n\r\n",
            "GET  / HTTP/1.1\r\n\r\n",
            "GET /a b HTTP/1.1\r\n\r\n",
            "GET / HTTP/2.0\r\n\r\n",
            "GET / HTTP/1.2\r\n\r\n",
            "GET /\r\n\r\n",
            "G@T / HTTP/1.1\r\n\r\n",
            "GET / HTTP/1.1\r\nX: a\r\n\r\nGET / HTTP/1.1\r\n\r\n",
        ] {
            assert_eq!(parse(text).err(), Some(Reason::BadRequest), "{text:?}");
        }
        let many = format!("GET / HTTP/1.1\r\n{}\r\n", "X: a\r\n".repeat(MAX_LINES + 1));
        assert_eq!(parse(&many).err(), Some(Reason::HeadersTooLarge));
        let odd = parse("GET / HTTP/1.1\r\nContent-Length: 99999999999999999999\r\n\r\n").expect("a request");
        assert_eq!(odd.length, Some(u64::MAX));
    }
}
