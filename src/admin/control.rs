use std::fs;
use std::future::Future;
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::os::unix::net::{UnixListener as StdListener, UnixStream as StdStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::Control;

/// Connections at once.
const CONNECTIONS: usize = 16;
/// A request's line, in bytes.
const LINE: u64 = 4096;
/// From one request to the next.
const IDLE: Duration = Duration::from_secs(10);
/// What `sun_path` holds, less its end, in bytes.
const PATH: usize = 107;

/// One line from the peer.
#[derive(Debug, Deserialize)]
#[serde(tag = "command", rename_all = "kebab-case", deny_unknown_fields)]
enum Request {
    Reload {},
    Status {},
    LogLevel { level: String },
    Drain {},
}

/// A bound control socket; its file goes when it is dropped.
#[derive(Debug)]
pub struct ControlSocket {
    listener: StdListener,
    path: PathBuf,
    /// Device and inode of our file, so that a successor's is never removed.
    identity: (u64, u64),
}

impl ControlSocket {
    /// Binds `path` with mode 0600, making its directory where that is missing. The socket has that mode before it has
    /// a name, so that it is never reachable with other rights, whatever the umask, and nothing else is left behind
    /// if the process dies meanwhile. A socket that nobody answers on is replaced.
    ///
    /// # Errors
    /// `AddrInUse` when a process answers there, `AlreadyExists` when something else than a socket is there,
    /// `InvalidInput` when the path is too long for a socket.
    pub fn bind(path: &Path) -> io::Result<Self> {
        let length = path.as_os_str().len();
        if length > PATH {
            let message =
                format!("the path has {length} bytes, and a unix socket's has at most {PATH}: use a shorter one");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
        }
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        fs::DirBuilder::new().recursive(true).mode(0o750).create(parent)?;
        // Two processes that start at once must not each take the other's socket for a dead one.
        let directory = fs::File::open(parent)?;
        rustix::fs::flock(&directory, rustix::fs::FlockOperation::LockExclusive)?;
        match fs::symlink_metadata(path) {
            Ok(there) if !there.file_type().is_socket() => {
                let message = "something else than a socket is there: remove it, or use another path";
                return Err(io::Error::new(io::ErrorKind::AlreadyExists, message));
            }
            Ok(_) if StdStream::connect(path).is_ok() => {
                let message = "another process answers there: stop that one, or use another path";
                return Err(io::Error::new(io::ErrorKind::AddrInUse, message));
            }
            Ok(_) => fs::remove_file(path)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        let socket = socket2::Socket::new(socket2::Domain::UNIX, socket2::Type::STREAM, None)?;
        // Linux takes the new file's mode from here; elsewhere the call may fail, and the one below does it.
        let _ = rustix::fs::fchmod(&socket, rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR);
        socket.bind(&socket2::SockAddr::unix(path)?)?;
        fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
        socket.listen(128)?;
        socket.set_nonblocking(true)?;
        let metadata = fs::symlink_metadata(path)?;
        Ok(Self { listener: socket.into(), path: path.to_owned(), identity: (metadata.dev(), metadata.ino()) })
    }
}

impl Drop for ControlSocket {
    fn drop(&mut self) {
        if fs::symlink_metadata(&self.path).is_ok_and(|there| (there.dev(), there.ino()) == self.identity) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Serves the control socket until `shutdown`: JSON lines in, JSON lines out, from our own user and root only.
///
/// # Errors
/// When the socket cannot be used.
pub async fn serve_control(
    socket: ControlSocket,
    control: Arc<dyn Control>,
    shutdown: impl Future<Output = ()>,
) -> io::Result<()> {
    let listener = UnixListener::from_std(socket.listener.try_clone()?)?;
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    let mut connections = JoinSet::new();
    tokio::pin!(shutdown);
    loop {
        let accepted = tokio::select! {
            () = &mut shutdown => return Ok(()),
            Some(_) = connections.join_next() => continue,
            accepted = listener.accept() => accepted,
        };
        let Ok((stream, _)) = accepted else {
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let own = rustix::process::geteuid().as_raw();
        if !stream.peer_cred().is_ok_and(|peer| peer.uid() == own || peer.uid() == 0) {
            tracing::warn!("control socket: refused a peer of another user");
            continue;
        }
        let Ok(place) = Arc::clone(&places).try_acquire_owned() else { continue };
        let control = Arc::clone(&control);
        connections.spawn(async move {
            // A peer that went away needs no answer.
            let _ = converse(stream, control).await;
            drop(place);
        });
    }
}

async fn converse(stream: UnixStream, control: Arc<dyn Control>) -> io::Result<()> {
    let (reader, mut writer) = stream.into_split();
    let mut reader = BufReader::new(reader);
    loop {
        let mut line = Vec::new();
        let mut bounded = (&mut reader).take(LINE);
        let read = tokio::time::timeout(IDLE, bounded.read_until(b'\n', &mut line)).await;
        let Ok(read) = read else { return Ok(()) };
        if read? == 0 {
            return Ok(());
        }
        let whole = line.ends_with(b"\n") || (line.len() as u64) < LINE;
        let answer = if whole { answer(&line, &control).await } else { refusal("the request is too long") };
        let mut text = answer.to_string();
        text.push('\n');
        let written = tokio::time::timeout(IDLE, writer.write_all(text.as_bytes())).await;
        let Ok(written) = written else { return Ok(()) };
        written?;
        if !whole {
            return Ok(());
        }
    }
}

async fn answer(line: &[u8], control: &Arc<dyn Control>) -> Value {
    let request: Request = match serde_json::from_slice(line) {
        Ok(request) => request,
        Err(error) => return refusal(&format!("invalid request: {error}")),
    };
    match request {
        Request::Status {} => json!({ "ok": true, "status": control.status() }),
        Request::Reload {} => {
            let control = Arc::clone(control);
            // Reads files.
            match tokio::task::spawn_blocking(move || control.reload()).await {
                Ok(Ok(message)) => json!({ "ok": true, "message": message }),
                Ok(Err(problem)) => refusal(&problem),
                Err(_) => refusal("the reload did not finish"),
            }
        }
        Request::LogLevel { level } => match control.set_log_level(&level) {
            Ok(()) => json!({ "ok": true, "message": format!("log level is {level}") }),
            Err(problem) => refusal(&problem),
        },
        Request::Drain {} => {
            control.drain();
            json!({ "ok": true, "message": "draining" })
        }
    }
}

fn refusal(problem: &str) -> Value {
    json!({ "ok": false, "error": problem })
}
