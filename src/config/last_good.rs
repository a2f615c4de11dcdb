//! The last good policy, kept in the data directory.

use std::io::{self, Write as _};
use std::path::Path;

use crate::config::{Report, Source};

const NAME: &str = "policy.last-good.toml";

/// Keeps a policy's text, atomically: readers see the old file or the new one.
///
/// # Errors
/// When the directory cannot be written.
pub fn save(data: &Path, text: &str) -> io::Result<()> {
    let mut file = tempfile::NamedTempFile::new_in(data)?;
    file.write_all(text.as_bytes())?;
    file.as_file().sync_all()?;
    file.persist(data.join(NAME)).map_err(|error| error.error)?;
    Ok(())
}

/// Reads it back.
///
/// # Errors
/// When there is none or it cannot be read.
pub fn load(data: &Path) -> Result<Source, Report> {
    Source::read(&data.join(NAME))
}
