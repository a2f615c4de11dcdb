use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use crate::base::{AddressRange, Secret};

/// What the proxy is started with (`sidecar.toml`: `listen cms upstreams runtime timeouts memory`).
#[derive(Clone, Debug)]
pub struct Settings {
    /// `listen.http`: plain HTTP/1.1 listeners.
    pub listen: Vec<SocketAddr>,
    /// `listen.server_names`: accepted `Host` names without port, lower case; empty accepts any.
    pub server_names: Vec<String>,
    /// `listen.trusted_proxies`: whose `X-Forwarded-For` is believed.
    pub trusted_proxies: Vec<AddressRange>,
    /// `listen.access_log`.
    pub access_log: AccessLog,
    /// `cms.url`: where everything that is not MCP goes; without it, a friendly page.
    pub cms: Option<CmsOrigin>,
    /// `upstreams.NAME`.
    pub upstreams: BTreeMap<String, Upstream>,
    pub timeouts: Timeouts,
    /// `memory.in_flight_mb`, in bytes: all buffered bodies together.
    pub in_flight_bytes: usize,
    /// `runtime.threads`.
    pub threads: usize,
    /// `runtime.max_connections`.
    pub max_connections: usize,
    /// `runtime.per_address`: connections of one address.
    pub per_address: usize,
}

/// `listen.access_log.format` and `.path`.
#[derive(Clone, Debug)]
pub struct AccessLog {
    pub format: AccessLogFormat,
    /// `None` is standard output.
    pub path: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AccessLogFormat {
    Off,
    Combined,
    Json,
}

/// `cms.url`: `http://host:port`.
#[derive(Clone, Debug)]
pub struct CmsOrigin {
    pub host: String,
    pub port: u16,
}

/// `upstreams.NAME`: an MCP server.
#[derive(Clone, Debug)]
pub struct Upstream {
    pub address: Address,
    /// Request target, e.g. `/mcp`; `{server}` is replaced by the handle.
    pub path: String,
    /// At least 32 bytes; required for our executor over TCP.
    pub key: Option<Secret>,
    /// Whether the identity header is sent (our executor only).
    pub identity: bool,
    /// Static request headers for foreign servers.
    pub headers: Vec<(String, Secret)>,
}

/// Where an upstream listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    Unix(PathBuf),
    /// `http://` or `https://` (with a name that is verified).
    Tcp {
        host: String,
        port: u16,
        tls: bool,
    },
}

/// `timeouts.*`.
#[derive(Clone, Copy, Debug)]
pub struct Timeouts {
    pub header: Duration,
    pub body: Duration,
    pub keepalive: Duration,
    pub write_stall: Duration,
    pub connect: Duration,
    pub response_header: Duration,
    pub drain: Duration,
    pub ready_lag: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            header: Duration::from_secs(5),
            body: Duration::from_secs(10),
            keepalive: Duration::from_secs(60),
            write_stall: Duration::from_secs(10),
            connect: Duration::from_secs(1),
            response_header: Duration::from_secs(30),
            drain: Duration::from_secs(25),
            ready_lag: Duration::from_secs(5),
        }
    }
}
