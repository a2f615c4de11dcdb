use std::io;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, PermissionsExt};
use std::path::Path;

use tokio::net::{TcpListener, UnixListener, UnixStream};

use crate::executor::Listen;

/// Where the executor accepts calls.
#[derive(Debug)]
pub enum Listener {
    Unix(UnixListener),
    Tcp(TcpListener),
}

impl Listener {
    /// Binds what the settings name. A socket that a dead process left behind is replaced.
    ///
    /// # Errors
    /// When the place is taken or cannot be bound.
    pub async fn bind(listen: &Listen) -> io::Result<Self> {
        match listen {
            Listen::Unix(path) => bind_unix(path).await.map(Self::Unix),
            Listen::Tcp { address, .. } => TcpListener::bind(address).await.map(Self::Tcp),
        }
    }
}

async fn bind_unix(path: &Path) -> io::Result<UnixListener> {
    if std::fs::symlink_metadata(path).is_ok_and(|metadata| metadata.file_type().is_socket()) {
        if UnixStream::connect(path).await.is_ok() {
            return Err(io::ErrorKind::AddrInUse.into());
        }
        std::fs::remove_file(path)?;
    }
    if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        std::fs::DirBuilder::new().recursive(true).mode(0o750).create(parent)?;
    }
    let listener = UnixListener::bind(path)?;
    // Between the two calls a stranger may connect; the peer's uid is checked all the same.
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

/// Accepts connections of our own uid only; others are closed without a word.
pub(in crate::executor) struct OwnUid(pub UnixListener);

impl axum::serve::Listener for OwnUid {
    type Io = UnixStream;
    type Addr = tokio::net::unix::SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        let own = rustix::process::geteuid().as_raw();
        loop {
            let (stream, address) = axum::serve::Listener::accept(&mut self.0).await;
            match stream.peer_cred() {
                Ok(peer) if peer.uid() == own => return (stream, address),
                Ok(peer) => tracing::warn!(peer.uid = peer.uid(), "executor: refused a connection of another user"),
                Err(error) => tracing::warn!(%error, "executor: refused a connection of an unknown user"),
            }
        }
    }

    fn local_addr(&self) -> io::Result<Self::Addr> {
        self.0.local_addr()
    }
}
