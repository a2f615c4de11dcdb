use std::time::{Duration, Instant};

use ::redis::aio::MultiplexedConnection;
use ::redis::io::tcp::TcpSettings;
use ::redis::{AsyncConnectionConfig, Client, ConnectionAddr, ErrorKind, IntoConnectionInfo, RedisError};
use tokio::time::timeout;

use super::Call;
use super::settings::{InvalidUrl, Settings, check_url};
use super::warning::eviction;

/// A connection made to find out what is wrong, for `check --connect`: it says why, and knows no breaker.
pub struct Probe {
    connection: MultiplexedConnection,
    limit: Duration,
    /// Host and port, or the socket; without user and password.
    pub place: String,
    /// What the server calls its version; absent where `INFO` is not allowed.
    pub version: Option<String>,
    /// What an operator should know before relying on it, one sentence each.
    pub warnings: Vec<String>,
}

/// Why a Redis cannot be relied on. The texts hold no credentials.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Trouble {
    #[error("`redis.url` {0}")]
    Url(#[from] InvalidUrl),
    #[error("cannot be reached: {0}")]
    Unreachable(String),
    #[error("has a certificate that is not accepted: {0}")]
    Certificate(String),
    #[error("does not answer within {0} ms")]
    Silent(u128),
    #[error("refuses the user or the password")]
    Credentials,
    #[error("asks for a password")]
    NoCredentials,
    #[error("does not let this user run the limits' script: {0}")]
    Rights(String),
    #[error("is a read-only replica")]
    Replica,
    #[error("is part of a Cluster")]
    Cluster,
    #[error("answers with an error: {0}")]
    Answer(String),
}

impl Trouble {
    /// What to do about it.
    #[must_use]
    pub const fn fix(&self) -> &'static str {
        match self {
            Self::Url(invalid) => invalid.fix(),
            Self::Unreachable(_) => "start it, and check host, port, TLS (rediss://) and firewall",
            Self::Certificate(_) => {
                "it must be valid for this host name and come from a trusted authority; SSL_CERT_FILE names further ones"
            }
            Self::Silent(_) => "check whether it is overloaded, and whether this is a Redis at all",
            Self::Credentials => "correct user and password in the URL; percent-encode what is special in them",
            Self::NoCredentials => "put user and password into the URL: redis://user:password@host:port",
            Self::Rights(_) => {
                "let the ACL user run +eval +evalsha +get +set +incr +time +pttl +pexpire, on the keys ~PREFIX:*"
            }
            Self::Replica => "give the address of the primary",
            Self::Cluster => "give one Redis that is no Cluster",
            Self::Answer(_) => "see the server's log",
        }
    }

    fn of(error: &RedisError) -> Self {
        let text = || error.to_string().lines().next().unwrap_or_default().chars().take(160).collect::<String>();
        match (error.kind(), error.code()) {
            (_, Some("NOAUTH")) => Self::NoCredentials,
            (ErrorKind::AuthenticationFailed, _) | (_, Some("WRONGPASS")) => Self::Credentials,
            (_, Some("NOPERM")) => Self::Rights(text()),
            (_, Some("READONLY")) => Self::Replica,
            (_, Some("MOVED" | "ASK" | "CLUSTERDOWN" | "CROSSSLOT")) => Self::Cluster,
            (ErrorKind::Io, _) if text().contains("certificate") => Self::Certificate(text()),
            (ErrorKind::Io, _) => Self::Unreachable(text()),
            _ => Self::Answer(text()),
        }
    }
}

impl Probe {
    /// Connects, authenticates and asks what kind of server it is; each step within `limit`.
    ///
    /// # Errors
    /// Why it cannot be relied on.
    pub async fn open(settings: &Settings, limit: Duration) -> Result<Self, Trouble> {
        let url = std::str::from_utf8(settings.url.expose()).map_err(|_| InvalidUrl::Malformed)?;
        check_url(url)?;
        let info = url.into_connection_info().map_err(|_| InvalidUrl::Malformed)?;
        let place = match info.addr() {
            ConnectionAddr::Tcp(host, port) => format!("{host}:{port}"),
            ConnectionAddr::TcpTls { host, port, .. } => format!("{host}:{port} (TLS)"),
            ConnectionAddr::Unix(path) => path.display().to_string(),
            _ => String::new(),
        };
        let info = info.set_tcp_settings(TcpSettings::default().set_nodelay(true));
        let client = Client::open(info).map_err(|_| InvalidUrl::Malformed)?;
        let config = AsyncConnectionConfig::new().set_connection_timeout(None).set_response_timeout(None);
        let connection = within(limit, client.get_multiplexed_async_connection_with_config(&config)).await?;
        let mut probe = Self { connection, limit, place, version: None, warnings: Vec::new() };
        probe.within(::redis::cmd("PING")).await?;
        match probe.within(::redis::cmd("INFO")).await {
            Ok(info) => probe.judge(&info)?,
            Err(Trouble::Rights(_)) => probe.warnings.push(
                "may not be asked for INFO: cannot tell whether it evicts keys (let the ACL user run +info)".to_owned(),
            ),
            Err(trouble) => return Err(trouble),
        }
        Ok(probe)
    }

    /// Runs a script as callers do; how long that took.
    ///
    /// # Errors
    /// Why it did not run.
    pub async fn run(&mut self, call: &Call<'_>) -> Result<Duration, Trouble> {
        // The first call brings the source along, and the second one is like all that follow.
        within(self.limit, call.run(&mut self.connection)).await?;
        let sent = Instant::now();
        within(self.limit, call.run(&mut self.connection)).await?;
        Ok(sent.elapsed())
    }

    async fn within(&mut self, command: ::redis::Cmd) -> Result<String, Trouble> {
        within(self.limit, command.query_async(&mut self.connection)).await
    }

    fn judge(&mut self, info: &str) -> Result<(), Trouble> {
        let field =
            |name: &str| info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim);
        if field("redis_mode") == Some("cluster") || field("cluster_enabled") == Some("1") {
            return Err(Trouble::Cluster);
        }
        if field("role") == Some("slave") {
            return Err(Trouble::Replica);
        }
        if field("redis_mode") == Some("sentinel") {
            return Err(InvalidUrl::Sentinel.into());
        }
        self.version = field("redis_version").map(|version| version.chars().take(32).collect());
        self.warnings.extend(eviction(info));
        Ok(())
    }
}

async fn within<T>(limit: Duration, work: impl Future<Output = Result<T, RedisError>>) -> Result<T, Trouble> {
    match timeout(limit, work).await {
        Ok(answer) => answer.map_err(|error| Trouble::of(&error)),
        Err(_) => Err(Trouble::Silent(limit.as_millis())),
    }
}
