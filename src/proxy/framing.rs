//! How an upstream's answer is read from bytes: its head, and where its body ends. Clients' bodies are framed alike.
//!
//! An answer that could be read in two ways is refused: both lengths, two lengths, a coding but `chunked`, folded
//! lines, a chunk whose size line is anything but hexadecimal digits and an extension.

use bytes::{Buf, Bytes, BytesMut};
use http::header::{self, HeaderName, HeaderValue};
use smallvec::SmallVec;

/// A head larger than this is no answer.
pub const MAX_HEAD: usize = 32 * 1024;
const MAX_HEADERS: usize = 100;
/// A chunk's size line, its extension included, and the trailer.
const MAX_LINE: usize = 256;
const MAX_TRAILER: usize = 8 * 1024;

/// What may pass to the client; everything else (`Set-Cookie`, `Location`, …) stays behind.
const PASSED: [HeaderName; 5] = [
    header::CONTENT_TYPE,
    header::CACHE_CONTROL,
    HeaderName::from_static("mcp-session-id"),
    HeaderName::from_static("mcp-protocol-version"),
    header::RETRY_AFTER,
];

/// These bytes are no HTTP/1 answer that can be read in one way only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Garbage;

/// The head of an answer.
#[derive(Debug)]
pub struct Head {
    pub status: u16,
    /// Headers that a client may get, each once.
    pub passed: SmallVec<[(HeaderName, HeaderValue); 5]>,
    pub framing: Framing,
    /// Whether the upstream keeps the connection.
    pub keeps: bool,
}

/// Where the body ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// Bytes left.
    Length(u64),
    Chunked(Chunk),
    /// With the connection.
    Close,
    /// It has been read.
    Done,
}

/// Where in a chunked body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Chunk {
    Size,
    /// Bytes left of this chunk.
    Data(u64),
    /// The line end behind a chunk's data.
    End,
    /// Bytes of the trailer so far.
    Trailer(usize),
}

impl Head {
    /// Takes a head from the front of the buffer; `None` while it is not whole.
    ///
    /// # Errors
    /// [`Garbage`].
    pub fn take(buffer: &mut BytesMut) -> Result<Option<Self>, Garbage> {
        let mut lines = [const { std::mem::MaybeUninit::uninit() }; MAX_HEADERS];
        let mut response = httparse::Response::new(&mut []);
        let parsed =
            httparse::ParserConfig::default().parse_response_with_uninit_headers(&mut response, buffer, &mut lines);
        let length = match parsed {
            Ok(httparse::Status::Complete(length)) if length <= MAX_HEAD => length,
            Ok(httparse::Status::Partial) if buffer.len() < MAX_HEAD => return Ok(None),
            _ => return Err(Garbage),
        };
        let status = response.code.ok_or(Garbage)?;
        let version = response.version.ok_or(Garbage)?;
        let mut passed: SmallVec<[(HeaderName, HeaderValue); 5]> = SmallVec::new();
        let (mut body_length, mut chunked, mut keeps) = (None, false, version == 1);
        for line in response.headers.iter() {
            let value = line.value.trim_ascii();
            if line.name.eq_ignore_ascii_case("content-length") {
                if body_length.replace(digits(value, 10).ok_or(Garbage)?).is_some() {
                    return Err(Garbage);
                }
            } else if line.name.eq_ignore_ascii_case("transfer-encoding") {
                if chunked || version != 1 || !value.eq_ignore_ascii_case(b"chunked") {
                    return Err(Garbage);
                }
                chunked = true;
            } else if line.name.eq_ignore_ascii_case("content-encoding") {
                // None was asked for, and the header would not be passed on.
                if !value.eq_ignore_ascii_case(b"identity") {
                    return Err(Garbage);
                }
            } else if line.name.eq_ignore_ascii_case("connection") {
                let mut tokens = value.split(|byte| *byte == b',');
                keeps &= !tokens.any(|token| token.trim_ascii().eq_ignore_ascii_case(b"close"));
            } else if let Some(name) = PASSED.iter().find(|name| line.name.eq_ignore_ascii_case(name.as_str())) {
                let value = HeaderValue::from_bytes(value).map_err(|_| Garbage)?;
                match passed.iter_mut().find(|(other, _)| other == name) {
                    None => passed.push((name.clone(), value)),
                    // A list may be spread over lines; of anything else one reader takes the first, another the last.
                    Some((_, first)) if *name == header::CACHE_CONTROL => {
                        let list = [first.as_bytes(), value.as_bytes()].join(b", ".as_slice());
                        *first = HeaderValue::from_bytes(&list).map_err(|_| Garbage)?;
                    }
                    Some(_) => return Err(Garbage),
                }
            }
        }
        let framing = match (status, chunked, body_length) {
            (_, true, Some(_)) => return Err(Garbage),
            (100..=199 | 204 | 304, ..) | (_, false, Some(0)) => Framing::Done,
            (_, true, None) => Framing::Chunked(Chunk::Size),
            (_, false, Some(length)) => Framing::Length(length),
            (_, false, None) => Framing::Close,
        };
        buffer.advance(length);
        Ok(Some(Self { status, passed, framing, keeps }))
    }

    /// Whether this is the answer's media type, its parameters aside.
    #[must_use]
    pub fn is(&self, media_type: &str) -> bool {
        let value =
            self.passed.iter().find(|(name, _)| name == header::CONTENT_TYPE).map(|(_, value)| value.as_bytes());
        let essence = value.and_then(|value| value.split(|byte| *byte == b';').next());
        essence.is_some_and(|essence| essence.trim_ascii().eq_ignore_ascii_case(media_type.as_bytes()))
    }
}

/// What the buffer holds of a body.
#[derive(Debug, PartialEq, Eq)]
pub enum Piece {
    Data(Bytes),
    /// More has to be read first.
    More,
    /// The body has ended.
    End,
}

impl Framing {
    /// Takes what the buffer holds of the body.
    ///
    /// # Errors
    /// [`Garbage`].
    pub fn take(&mut self, buffer: &mut BytesMut) -> Result<Piece, Garbage> {
        loop {
            match self {
                Self::Done => return Ok(Piece::End),
                _ if buffer.is_empty() => return Ok(Piece::More),
                Self::Close => return Ok(Piece::Data(buffer.split().freeze())),
                Self::Length(left) => {
                    let data = split(buffer, left);
                    if *left == 0 {
                        *self = Self::Done;
                    }
                    return Ok(Piece::Data(data));
                }
                Self::Chunked(Chunk::Data(left)) => {
                    let data = split(buffer, left);
                    if *left == 0 {
                        *self = Self::Chunked(Chunk::End);
                    }
                    return Ok(Piece::Data(data));
                }
                Self::Chunked(chunk) => {
                    let Some(line) = line(buffer)? else { return Ok(Piece::More) };
                    *self = match chunk {
                        Chunk::Size => match chunk_size(&line)? {
                            0 => Self::Chunked(Chunk::Trailer(0)),
                            size => Self::Chunked(Chunk::Data(size)),
                        },
                        Chunk::Trailer(_) if line.is_empty() => Self::Done,
                        Chunk::Trailer(seen) if *seen + line.len() < MAX_TRAILER => {
                            Self::Chunked(Chunk::Trailer(*seen + line.len() + 2))
                        }
                        Chunk::End if line.is_empty() => Self::Chunked(Chunk::Size),
                        _ => return Err(Garbage),
                    };
                }
            }
        }
    }

    /// What has to be said when the connection ends here: only a body without a length may end with it.
    #[must_use]
    pub const fn ends_with_connection(&self) -> bool {
        matches!(self, Self::Close | Self::Done)
    }
}

fn split(buffer: &mut BytesMut, left: &mut u64) -> Bytes {
    let take = usize::try_from(*left).unwrap_or(usize::MAX).min(buffer.len());
    *left -= take as u64;
    buffer.split_to(take).freeze()
}

/// A line without its CRLF; `None` while it is not whole.
fn line(buffer: &mut BytesMut) -> Result<Option<Bytes>, Garbage> {
    match memchr::memchr(b'\n', &buffer[..buffer.len().min(MAX_LINE)]) {
        Some(at) if at > 0 && buffer[at - 1] == b'\r' => {
            let line = buffer.split_to(at - 1).freeze();
            buffer.advance(2);
            Ok(Some(line))
        }
        None if buffer.len() < MAX_LINE => Ok(None),
        _ => Err(Garbage),
    }
}

fn chunk_size(line: &[u8]) -> Result<u64, Garbage> {
    let (size, extension) = line.split_at(memchr::memchr(b';', line).unwrap_or(line.len()));
    // Blanks before the line's end or an extension are tolerated, as RFC 9112 tells recipients to.
    let size = digits(size.trim_ascii_end(), 16).ok_or(Garbage)?;
    let plain = extension.iter().all(|byte| matches!(byte, b'\t' | b' '..=b'~' | 0x80..));
    if plain { Ok(size) } else { Err(Garbage) }
}

/// A number of 1 to 15 plain digits.
pub fn digits(text: &[u8], radix: u32) -> Option<u64> {
    if !(1..=15).contains(&text.len()) {
        return None;
    }
    text.iter()
        .try_fold(0_u64, |number, byte| Some(number * u64::from(radix) + u64::from(char::from(*byte).to_digit(radix)?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(text: &str) -> Result<Option<Head>, Garbage> {
        Head::take(&mut BytesMut::from(text))
    }

    #[test]
    fn heads_say_how_the_body_is_framed() {
        let cases = [
            ("HTTP/1.1 200 OK\r\nContent-Length: 12\r\n\r\n", Framing::Length(12), true),
            ("HTTP/1.1 200 OK\r\ncontent-length:0\r\n\r\n", Framing::Done, true),
            ("HTTP/1.1 202 \r\ntransfer-encoding: Chunked\r\n\r\n", Framing::Chunked(Chunk::Size), true),
            ("HTTP/1.1 200 OK\r\nConnection: foo, Close\r\nContent-Length: 1\r\n\r\n", Framing::Length(1), false),
            ("HTTP/1.0 200 OK\r\nContent-Length: 1\r\n\r\n", Framing::Length(1), false),
            ("HTTP/1.1 200 OK\r\n\r\n", Framing::Close, true),
            ("HTTP/1.1 204 No Content\r\n\r\n", Framing::Done, true),
            ("HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n", Framing::Done, true),
        ];
        for (text, framing, keeps) in cases {
            let head = head(text).expect("an answer").expect("whole");
            assert_eq!((head.framing, head.keeps), (framing, keeps), "{text:?}");
        }
        for end in 0..cases[0].0.len() {
            assert!(matches!(head(&cases[0].0[..end]), Ok(None)), "{end}");
        }
    }

    #[test]
    fn heads_that_two_readers_read_differently_are_refused() {
        for lines in [
            "Content-Length: 1\r\nContent-Length: 1",
            "Content-Length: +1",
            "Content-Length: 1, 1",
            "Content-Length: ",
            "Content-Length: 99999999999999999999",
            "Content-Length: 1\r\nTransfer-Encoding: chunked",
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
            "Transfer-Encoding: gzip, chunked",
            "Transfer-Encoding: identity",
            "Content-Encoding: gzip",
            "Content-Type: text/plain\r\nContent-Type: application/json",
            "X-Folded: a\r\n b",
            "X-Space : a",
            "no colon",
        ] {
            assert!(head(&format!("HTTP/1.1 200 OK\r\n{lines}\r\n\r\n")).is_err(), "{lines:?}");
        }
        for text in ["HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", "SSH-2.0\r\n\r\n", "HTTP/2 200\r\n\r\n"] {
            assert!(head(text).is_err(), "{text:?}");
        }
        let endless = format!("HTTP/1.1 200 OK\r\nX: {}", "a".repeat(MAX_HEAD));
        assert!(head(&endless).is_err());
    }

    #[test]
    fn only_what_may_pass_is_kept() {
        let text = "HTTP/1.1 200 OK\r\nSet-Cookie: a=b\r\nContent-Type: Application/JSON ; charset=utf-8\r\n\
                    Location: /\r\nRetry-After: 3\r\nMcp-Session-Id: s\r\nContent-Length: 1\r\n\r\n";
        let head = head(text).expect("an answer").expect("whole");
        let names: Vec<&str> = head.passed.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["content-type", "retry-after", "mcp-session-id"]);
        assert!(head.is("application/json") && !head.is("application/js"));
    }

    /// A body, and what is left behind it.
    type Ended = (Vec<u8>, Vec<u8>);

    /// `None` when it has not ended.
    fn body(mut framing: Framing, pieces: &[&[u8]]) -> Result<Option<Ended>, Garbage> {
        let mut buffer = BytesMut::new();
        let mut whole = Vec::new();
        for piece in pieces {
            buffer.extend_from_slice(piece);
            loop {
                match framing.take(&mut buffer)? {
                    Piece::Data(data) => whole.extend_from_slice(&data),
                    Piece::More => break,
                    Piece::End => break,
                }
            }
        }
        Ok((framing == Framing::Done).then(|| (whole, buffer.to_vec())))
    }

    #[test]
    fn bodies_end_where_their_framing_says_however_they_are_cut() {
        let chunked = b"5 ;x=y\r\nhello\r\nA\r\n, all worl\r\n1\r\nd\r\n0\r\nX-Trailer: 1\r\n\r\nHTTP/1.1";
        type Case = (Framing, &'static [u8], &'static [u8], &'static [u8]);
        let cases: [Case; 2] = [
            (Framing::Chunked(Chunk::Size), chunked, b"hello, all world", b"HTTP/1.1"),
            (Framing::Length(5), b"helloHTTP", b"hello", b"HTTP"),
        ];
        for (framing, bytes, expected, left) in cases {
            for cut in 0..bytes.len() {
                let (whole, rest) = body(framing, &[&bytes[..cut], &bytes[cut..]]).expect("framed").expect("ended");
                assert_eq!((whole.as_slice(), rest.as_slice()), (expected, left), "cut at {cut}");
            }
        }
        assert_eq!(body(Framing::Length(6), &[b"hello"]), Ok(None));
    }

    #[test]
    fn broken_chunks_are_refused() {
        let long = [b'0'; MAX_LINE + 1];
        let trailer = format!("0\r\n{}", "X: 1234567890\r\n".repeat(1000));
        let cases: [&[u8]; 12] = [
            b"5;a=\rb\r\nhello\r\n",
            b"5;\0\r\nhello\r\n",
            b";a\r\n\r\n",
            b"5\nhello\r\n",
            b"\r\nhello\r\n",
            b"-5\r\nhello",
            b"0x5\r\nhello",
            b" 5\r\nhello",
            b"5\r\nhello!\r\n",
            b"ffffffffffffffffffff\r\n",
            &long,
            trailer.as_bytes(),
        ];
        for bytes in cases {
            assert_eq!(
                body(Framing::Chunked(Chunk::Size), &[bytes]),
                Err(Garbage),
                "{:?}",
                bytes.escape_ascii().to_string()
            );
        }
    }
}
