use std::net::SocketAddr;
use std::path::PathBuf;

use crate::base::Secret;

/// `executor.*` of executor.toml.
#[derive(Clone, Debug)]
pub struct Settings {
    pub listen: Listen,
}

/// Where the executor listens (T1).
#[derive(Clone, Debug)]
pub enum Listen {
    /// `executor.socket`: 0600, and the peer's uid must be ours.
    Unix(PathBuf),
    /// `executor.listen` and `executor.key` (at least 32 bytes).
    Tcp { address: SocketAddr, key: Secret },
}
