//! A real redis-server on a free port, without persistence.

use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

pub struct Redis {
    child: Child,
    address: SocketAddr,
    _dir: tempfile::TempDir,
}

impl Redis {
    /// Starts redis-server (`make deps` installs it) and waits until it accepts.
    pub fn start() -> Self {
        Self::at(super::vacant())
    }

    /// As [`Self::start`], on a port that is known to be free.
    pub fn at(address: SocketAddr) -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let child = Command::new("redis-server")
            .args(["--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--port", &address.port().to_string()])
            .arg("--dir")
            .arg(dir.path())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("redis-server runs; `make deps` installs it");
        super::eventually("redis-server accepts", Duration::from_secs(10), || TcpStream::connect(address).ok());
        Self { child, address, _dir: dir }
    }

    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// The `--set` argument that points a sidecar here.
    pub fn setting(&self) -> String {
        format!("redis.url=\"redis://{}\"", self.address())
    }

    /// Stops the server where it stands: connections stay open and nobody answers.
    pub fn pause(&self) {
        self.signal(rustix::process::Signal::STOP);
    }

    /// Lets a paused server go on.
    pub fn resume(&self) {
        self.signal(rustix::process::Signal::CONT);
    }

    fn signal(&self, signal: rustix::process::Signal) {
        let pid = i32::try_from(self.child.id()).ok().and_then(rustix::process::Pid::from_raw).expect("a pid");
        rustix::process::kill_process(pid, signal).expect("the process is ours");
    }

    /// Ends the server at once.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        self.kill();
    }
}
