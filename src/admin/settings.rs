use std::net::SocketAddr;
use std::path::PathBuf;

/// `admin.*` and `control.*` of sidecar.toml; `executor.admin.*` of executor.toml.
#[derive(Clone, Debug)]
pub struct Settings {
    /// `admin.listen`: reads only (`/metrics /healthz /readyz /status`); `None` switches it off.
    pub listen: Option<SocketAddr>,
    /// `admin.hosts`: accepted `Host` names without port, beside loopback literals.
    pub hosts: Vec<String>,
    /// `control.socket`: a unix socket, 0600.
    pub control: Option<PathBuf>,
}
