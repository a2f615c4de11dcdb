//! The demo site: small enough to eyeball, rich enough for every tool; and a generator of large trees beneath it.
//!
//! Deterministic: the same numbers make the same rows. The file appears whole or not at all.

use std::path::Path;

use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqliteSynchronous};
use sqlx::{AssertSqlSafe, ConnectOptions, Connection};

use crate::store::Error;

/// The prefix of the demo site's tables.
pub const PREFIX: &str = "evo_";

/// The first id of the generated tree; its root. The ids up to it are kept for documents made by hand.
pub const GENERATED: u32 = 1001;

const SCHEMA: &str = include_str!("demo/schema.sql");
const ROWS: &str = include_str!("demo/rows.sql");
const GENERATE: &str = include_str!("demo/generate.sql");
const FINISH: &str = include_str!("demo/finish.sql");

/// Makes a demo site with `documents` generated documents besides the twelve of the catalogue, unless the file is
/// there already. Whether it was made.
///
/// # Errors
/// When the file cannot be written.
pub async fn create(path: &Path, documents: u32) -> Result<bool, Error> {
    if path.exists() {
        return Ok(false);
    }
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    std::fs::create_dir_all(directory)?;
    let draft = tempfile::Builder::new().prefix(".demo-").suffix(".sqlite").tempfile_in(directory)?;
    let mut connection = SqliteConnectOptions::new()
        .filename(draft.path())
        .journal_mode(SqliteJournalMode::Off)
        .synchronous(SqliteSynchronous::Off)
        .connect()
        .await?;
    run(&mut connection, SCHEMA, documents).await?;
    run(&mut connection, ROWS, documents).await?;
    if documents > 0 {
        run(&mut connection, GENERATE, documents).await?;
    }
    run(&mut connection, FINISH, documents).await?;
    connection.close().await?;
    draft.as_file().sync_all()?;
    match draft.persist_noclobber(path) {
        Ok(_) => Ok(true),
        Err(error) if error.error.kind() == std::io::ErrorKind::AlreadyExists => Ok(false),
        Err(error) => Err(error.error.into()),
    }
}

/// Gives a user of a demo site a password, as the hash that the CMS would store.
///
/// # Errors
/// When the file cannot be written.
pub async fn set_password(path: &Path, username: &str, hash: &str) -> Result<(), Error> {
    let mut connection = SqliteConnectOptions::new().filename(path).connect().await?;
    let statement = format!("UPDATE {PREFIX}users SET password = ? WHERE username = ?");
    sqlx::query(AssertSqlSafe(statement)).bind(hash).bind(username).execute(&mut connection).await?;
    connection.close().await?;
    Ok(())
}

/// Runs one script in one transaction. Only numbers and constants of this module are put into its text.
async fn run(connection: &mut SqliteConnection, script: &str, documents: u32) -> Result<(), Error> {
    let script = script
        .replace("{p}", PREFIX)
        .replace("{first}", &GENERATED.to_string())
        .replace("{documents}", &documents.to_string());
    let mut transaction = connection.begin().await?;
    sqlx::raw_sql(AssertSqlSafe(script)).execute(&mut *transaction).await?;
    transaction.commit().await?;
    Ok(())
}
