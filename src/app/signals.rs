use tokio::signal::unix::{Signal, SignalKind, signal};

/// The signals that a process listens to.
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
    usr1: Signal,
    /// Taken so that a file at its size limit is an error of that write, not the end of the process.
    _file_size: Signal,
}

/// What an operator asked for by a signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    /// TERM or INT.
    Stop,
    /// HUP.
    Reload,
    /// USR1.
    Reopen,
}

impl Signals {
    /// Takes over the signals.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn take() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
            usr1: signal(SignalKind::user_defined1())?,
            _file_size: signal(SignalKind::from_raw(libc::SIGXFSZ))?,
        })
    }

    /// The next signal.
    pub async fn next(&mut self) -> Asked {
        tokio::select! {
            _ = self.terminate.recv() => Asked::Stop,
            _ = self.interrupt.recv() => Asked::Stop,
            _ = self.hangup.recv() => Asked::Reload,
            _ = self.usr1.recv() => Asked::Reopen,
        }
    }
}
