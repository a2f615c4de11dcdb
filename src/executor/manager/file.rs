//! PHP's session files, read only.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

use rustix::fs::{Mode, OFlags};

use crate::executor::manager::php::{self, Login};

/// A larger session is none of a manager's.
const MAX_BYTES: u64 = 4 * 1024 * 1024;
/// PHP may be half-way through writing; it is through a moment later.
const AGAIN: Duration = Duration::from_millis(20);

/// Who is logged in by this session. `id` has been judged: it is letters, digits, dashes and commas.
pub(super) async fn login(directory: &Path, prefix: &str, id: &str, since_s: u64) -> io::Result<Option<Login>> {
    let path = directory.join(format!("{prefix}{id}"));
    let Some(session) = read(path.clone(), since_s).await? else { return Ok(None) };
    if let Some(login) = php::login(&session) {
        return Ok(Some(login));
    }
    if php::is_whole(&session) {
        return Ok(None);
    }
    tokio::time::sleep(AGAIN).await;
    Ok(read(path, since_s).await?.and_then(|session| php::login(&session)))
}

async fn read(path: PathBuf, since_s: u64) -> io::Result<Option<Vec<u8>>> {
    tokio::task::spawn_blocking(move || read_now(&path, since_s))
        .await
        .unwrap_or_else(|error| Err(io::Error::other(error)))
}

fn read_now(path: &Path, since_s: u64) -> io::Result<Option<Vec<u8>>> {
    // No link is followed, and nothing is waited for that is no file.
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = match rustix::fs::open(path, flags, Mode::empty()) {
        Ok(file) => File::from(file),
        Err(rustix::io::Errno::NOENT | rustix::io::Errno::LOOP) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let metadata = file.metadata()?;
    let touched = metadata.modified()?.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    if !metadata.is_file() || metadata.len() > MAX_BYTES || touched < since_s {
        return Ok(None);
    }
    let mut session = Vec::new();
    file.take(MAX_BYTES).read_to_end(&mut session)?;
    Ok(Some(session))
}
