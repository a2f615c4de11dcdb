//! A client whose peer may die at any moment.

use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use crate::harness::{Request, Response};

/// Longer than anything in the fleet may wait for anything else.
const PATIENCE: Duration = Duration::from_secs(30);

/// Why there is no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loss {
    /// Nobody listens: the request was not sent.
    Refused,
    /// The connection ended before the answer did: whether the request was served is unknown.
    Cut,
}

/// A connection that is kept while it lasts.
pub struct Door {
    address: SocketAddr,
    stream: Option<BufReader<TcpStream>>,
}

impl Door {
    pub const fn new(address: SocketAddr) -> Self {
        Self { address, stream: None }
    }

    /// Sends a request and reads its whole answer.
    pub fn ask(&mut self, request: &Request) -> Result<Response, Loss> {
        let kept = self.stream.take().filter(|stream| is_quiet(stream.get_ref()));
        let mut stream = match kept {
            Some(stream) => stream,
            None => connect(self.address).map_err(|_| Loss::Refused)?,
        };
        let sent = stream.get_mut().write_all(&request.bytes());
        let response = sent.and_then(|()| read(&mut stream)).map_err(|error| {
            let slow = matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut);
            assert!(!slow, "{} does not answer {} in {PATIENCE:?}", self.address, request.target);
            Loss::Cut
        })?;
        self.stream = Some(stream);
        Ok(response)
    }
}

fn connect(address: SocketAddr) -> io::Result<BufReader<TcpStream>> {
    let stream = TcpStream::connect(address)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    Ok(BufReader::new(stream))
}

/// Whether the peer of an idle connection is still there.
fn is_quiet(stream: &TcpStream) -> bool {
    let looked = stream.set_nonblocking(true).and_then(|()| stream.peek(&mut [0]));
    stream.set_nonblocking(false).is_ok() && looked.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
}

fn read(stream: &mut BufReader<TcpStream>) -> io::Result<Response> {
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        stream.read_line(&mut line)?;
        let Some(whole) = line.strip_suffix("\r\n") else { return Err(io::ErrorKind::UnexpectedEof.into()) };
        if whole.is_empty() {
            break;
        }
        lines.push(whole.to_owned());
    }
    let invalid = || io::Error::from(io::ErrorKind::InvalidData);
    let status = lines.first().and_then(|line| line.split(' ').nth(1)?.parse().ok()).ok_or_else(invalid)?;
    let pairs = lines.iter().filter_map(|line| line.split_once(':'));
    let headers = pairs.map(|(name, value)| (name.to_owned(), value.trim().to_owned())).collect();
    let mut response = Response { status, headers, body: Vec::new() };
    let length = response.header("content-length").and_then(|length| length.parse().ok());
    response.body = vec![0; length.unwrap_or_else(|| panic!("an answer of unknown length: {lines:?}"))];
    stream.read_exact(&mut response.body)?;
    Ok(response)
}
