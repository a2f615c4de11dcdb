//! Real servers of Debian's packages on unix sockets in private directories, that end with the test.

use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, Weak};
use std::time::{Duration, Instant};

use sqlx::{AssertSqlSafe, Connection, Executor, MySqlConnection, PgConnection};

/// How long anything that must happen may take before the test fails.
pub const DEADLINE: Duration = Duration::from_secs(60);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    MariaDb,
    Postgres,
}

/// A server that nobody else uses.
pub struct Server {
    pub kind: Kind,
    child: Child,
    directory: tempfile::TempDir,
    /// Of TCP, with [`Self::encrypted`]; PostgreSQL names its socket after it, too.
    pub port: u16,
    extra: Vec<String>,
}

/// A session in the midst of a transaction.
pub enum Still {
    MariaDb(MySqlConnection),
    Postgres(PgConnection),
}

impl Still {
    /// Goes on with the transaction.
    pub async fn run(&mut self, statements: &str) {
        let statements = sqlx::raw_sql(AssertSqlSafe(statements.to_owned()));
        match self {
            Self::MariaDb(session) => drop(session.execute(statements).await.expect("runs")),
            Self::Postgres(session) => drop(session.execute(statements).await.expect("runs")),
        }
    }

    /// The transaction never happened.
    pub async fn end(&mut self) {
        self.run("ROLLBACK").await;
    }
}

/// The servers that tests share while any of them needs them.
static SHARED: Mutex<[Weak<Server>; 2]> = Mutex::new([Weak::new(), Weak::new()]);

/// A server that tests share; each uses databases of its own.
pub async fn shared(kind: Kind) -> Arc<Server> {
    let server = {
        // A test that failed while it held the lock left nothing behind that matters.
        let mut shared = SHARED.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let slot = &mut shared[kind as usize];
        slot.upgrade().unwrap_or_else(|| {
            let server = Arc::new(Server::spawn(kind));
            *slot = Arc::downgrade(&server);
            server
        })
    };
    server.until_ready().await;
    server
}

impl Server {
    pub async fn start(kind: Kind) -> Self {
        let server = Self::spawn(kind);
        server.until_ready().await;
        server
    }

    fn spawn(kind: Kind) -> Self {
        let directory = tempfile::Builder::new().prefix("db").tempdir().expect("a temporary directory");
        if let Some((uid, gid)) = owner(kind) {
            chown(directory.path(), Some(uid), Some(gid)).expect("root may give it away");
        }
        let data = directory.path().join("data");
        let mut make = match kind {
            Kind::MariaDb => {
                let mut command = Command::new(binary("mariadb-install-db"));
                command.args(["--no-defaults", "--auth-root-authentication-method=normal", "--skip-test-db"]);
                command.arg(format!("--datadir={}", data.display()));
                command
            }
            Kind::Postgres => {
                let mut command = Command::new(binary("initdb"));
                command.args(["--auth=trust", "--username=root", "--no-sync", "--encoding=UTF8", "--locale=C.UTF-8"]);
                command.arg("--pgdata").arg(&data);
                command
            }
        };
        let made = drop_privileges(&mut make, kind, directory.path()).output().expect("it is installed");
        assert!(made.status.success(), "{kind:?}: {}", String::from_utf8_lossy(&made.stderr));
        let child = run(kind, directory.path(), &[]);
        Self { kind, child, directory, port: 5432, extra: Vec::new() }
    }

    /// A server on a free port of loopback, too, with a certificate for `localhost`; and the file of who vouches for
    /// it.
    pub async fn encrypted(kind: Kind, port: u16) -> (Self, PathBuf) {
        let mut server = Self::start(kind).await;
        let directory = server.directory.path().to_owned();
        let openssl = |args: &[&str]| {
            let mut command = Command::new("openssl");
            let output = drop_privileges(command.args(args), kind, &directory).output().expect("openssl is installed");
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        };
        let key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"];
        let authority = ["req", "-x509", "-subj", "/CN=test authority", "-keyout", "ca.key", "-out", "ca.crt"];
        openssl(&[&authority[..], &key[..]].concat());
        let request = ["req", "-x509", "-CA", "ca.crt", "-CAkey", "ca.key", "-subj", "/CN=localhost"];
        let names = ["-addext", "subjectAltName=DNS:localhost", "-addext", "basicConstraints=critical,CA:FALSE"];
        openssl(&[&request[..], &key[..], &names[..], &["-keyout", "own.key", "-out", "own.crt"]].concat());
        let (certificate, key) = (directory.join("own.crt"), directory.join("own.key"));
        let (certificate, key) = (certificate.display(), key.display());
        server.kill();
        server.port = port;
        server.extra = match kind {
            Kind::MariaDb => vec![
                format!("--port={port}"),
                "--bind-address=127.0.0.1".to_owned(),
                format!("--ssl-cert={certificate}"),
                format!("--ssl-key={key}"),
            ],
            Kind::Postgres => [
                format!("port={port}"),
                "listen_addresses=127.0.0.1".to_owned(),
                "ssl=on".to_owned(),
                format!("ssl_cert_file={certificate}"),
                format!("ssl_key_file={key}"),
            ]
            .into_iter()
            .flat_map(|setting| ["-c".to_owned(), setting])
            .collect(),
        };
        server.restart().await;
        (server, directory.join("ca.crt"))
    }

    /// A URL for a database, as the administrator.
    pub fn url(&self, database: &str) -> String {
        self.url_of("root", database)
    }

    /// A URL for a database and a user, without a password.
    pub fn url_of(&self, user: &str, database: &str) -> String {
        let directory = self.directory.path().display();
        match self.kind {
            Kind::MariaDb => format!("mysql://{user}@localhost/{database}?socket={directory}/socket&ssl-mode=DISABLED"),
            Kind::Postgres => format!("postgres://{user}@localhost/{database}?host={directory}&port={}", self.port),
        }
    }

    /// Runs statements as the administrator.
    pub async fn run(&self, database: &str, statements: &str) {
        self.try_run(database, statements).await.unwrap_or_else(|error| panic!("{error}"));
    }

    async fn try_run(&self, database: &str, statements: &str) -> Result<(), sqlx::Error> {
        let statements = sqlx::raw_sql(AssertSqlSafe(statements.to_owned()));
        match self.kind {
            Kind::MariaDb => {
                let mut connection = MySqlConnection::connect(&self.url(database)).await?;
                connection.execute(statements).await?;
                connection.close().await
            }
            Kind::Postgres => {
                let mut connection = PgConnection::connect(&self.url(database)).await?;
                connection.execute(statements).await?;
                connection.close().await
            }
        }
    }

    /// A session that has run a statement in a transaction, and then does nothing more.
    pub async fn still(&self, database: &str, statement: &str) -> Still {
        let statement = sqlx::raw_sql(AssertSqlSafe(statement.to_owned()));
        match self.kind {
            Kind::MariaDb => {
                let mut session = MySqlConnection::connect(&self.url(database)).await.expect("it answers");
                session.execute("BEGIN").await.expect("begins");
                session.execute(statement).await.expect("runs");
                Still::MariaDb(session)
            }
            Kind::Postgres => {
                let mut session = PgConnection::connect(&self.url(database)).await.expect("it answers");
                session.execute("BEGIN").await.expect("begins");
                session.execute(statement).await.expect("runs");
                Still::Postgres(session)
            }
        }
    }

    /// A number that a statement yields, of the whole server.
    pub async fn number(&self, statement: &str) -> i64 {
        self.number_in(if self.kind == Kind::MariaDb { "mysql" } else { "postgres" }, statement).await
    }

    /// A number that a statement yields in a database.
    pub async fn number_in(&self, database: &str, statement: &str) -> i64 {
        let statement = AssertSqlSafe(statement.to_owned());
        match self.kind {
            Kind::MariaDb => {
                let mut connection = MySqlConnection::connect(&self.url(database)).await.expect("it answers");
                sqlx::query_scalar(statement).fetch_one(&mut connection).await.expect("a number")
            }
            Kind::Postgres => {
                let mut connection = PgConnection::connect(&self.url(database)).await.expect("it answers");
                sqlx::query_scalar(statement).fetch_one(&mut connection).await.expect("a number")
            }
        }
    }

    pub fn kill(&mut self) {
        self.child.kill().expect("it was running");
        self.child.wait().expect("it is our child");
        if self.kind == Kind::Postgres {
            // Its own processes notice by themselves; until then a new one would refuse to start.
            let _ = std::fs::remove_file(self.directory.path().join("data/postmaster.pid"));
        }
    }

    /// Stops or resumes the server and what it has forked: `STOP`, `CONT`.
    pub fn signal(&self, signal: &str) {
        let pid = self.child.id().to_string();
        let forked = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
        let status = Command::new("kill").args(["-s", signal, &pid]).args(forked.split_whitespace()).status();
        // A process that was there may be gone.
        assert!(status.is_ok(), "kill -s {signal}");
    }

    /// Starts it again, after [`Self::kill`].
    pub async fn restart(&mut self) {
        let deadline = Instant::now() + DEADLINE;
        loop {
            self.child = run(self.kind, self.directory.path(), &self.extra);
            while self.child.try_wait().expect("it is our child").is_none() {
                if self.answers().await {
                    return;
                }
                if Instant::now() > deadline {
                    let log = std::fs::read_to_string(self.directory.path().join("log")).unwrap_or_default();
                    let answer = self.try_run("mysql", "SELECT 1").await;
                    panic!("{:?} does not come back: {answer:?} {log}", self.kind);
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            assert!(Instant::now() < deadline, "{:?} does not come back", self.kind);
        }
    }

    async fn answers(&self) -> bool {
        let database = if self.kind == Kind::MariaDb { "mysql" } else { "postgres" };
        self.try_run(database, "SELECT 1").await.is_ok()
    }

    async fn until_ready(&self) {
        let deadline = Instant::now() + DEADLINE;
        while !self.answers().await {
            if Instant::now() > deadline {
                let log = std::fs::read_to_string(self.directory.path().join("log")).unwrap_or_default();
                panic!("{:?} does not start: {log}", self.kind);
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may be gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn run(kind: Kind, directory: &Path, extra: &[String]) -> Child {
    let data = directory.join("data");
    let mut command = match kind {
        Kind::MariaDb => {
            let mut command = Command::new(binary("mariadbd"));
            command.args(["--no-defaults", "--innodb-flush-log-at-trx-commit=2"]);
            command.args(["--innodb-buffer-pool-size=128M", "--character-set-server=utf8mb4"]);
            command.arg(format!("--datadir={}", data.display()));
            command.arg(format!("--socket={}", directory.join("socket").display()));
            command.arg(format!("--pid-file={}", directory.join("pid").display()));
            if extra.is_empty() {
                command.arg("--skip-networking");
            }
            command
        }
        Kind::Postgres => {
            let mut command = Command::new(binary("postgres"));
            command.args(["-c", "listen_addresses=", "-c", "fsync=off", "-c", "max_connections=60"]);
            command.arg("-D").arg(&data).arg("-k").arg(directory);
            command
        }
    };
    let log = std::fs::File::create(directory.join("log")).expect("the directory is there");
    command.args(extra);
    drop_privileges(&mut command, kind, directory).stdout(Stdio::null()).stderr(log).spawn().expect("it is installed")
}

/// Neither server runs as root: what root starts runs as the user that its package made.
fn drop_privileges<'a>(command: &'a mut Command, kind: Kind, directory: &Path) -> &'a mut Command {
    // MariaDB empties its directory for temporary tables when it starts: two must not share one.
    command.current_dir(directory).env("TMPDIR", directory).stdin(Stdio::null());
    if let Some((uid, gid)) = owner(kind) {
        command.uid(uid).gid(gid);
    }
    command
}

fn owner(kind: Kind) -> Option<(u32, u32)> {
    let id = |flag: &str, user: &str| -> Option<u32> {
        let output = Command::new("id").args([flag, user]).output().ok()?;
        String::from_utf8(output.stdout).ok()?.trim().parse().ok()
    };
    let own = Command::new("id").arg("-u").output().expect("id runs");
    if own.stdout.trim_ascii() != b"0" {
        return None;
    }
    let user = if kind == Kind::MariaDb { "mysql" } else { "postgres" };
    Some((id("-u", user).expect("the package made it"), id("-g", user).expect("the package made it")))
}

/// Debian keeps PostgreSQL's programs out of the path, one directory per version.
fn binary(name: &str) -> PathBuf {
    let versions = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().filter_map(Result::ok);
    let mut found: Vec<PathBuf> = versions.map(|version| version.path().join("bin").join(name)).collect();
    found.extend(["/usr/sbin", "/usr/bin"].map(|directory| Path::new(directory).join(name)));
    found.sort();
    found.into_iter().rev().find(|path| path.exists()).unwrap_or_else(|| panic!("{name} is missing: run `make deps`"))
}
