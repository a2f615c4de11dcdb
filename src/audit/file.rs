use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;

/// Where lines go; a trait so that tests can have a disk that fails.
pub(super) trait Sink: Send {
    /// Makes the sink the one for the day of `now_ms`; true when what follows goes to another file than before.
    fn turn(&mut self, now_ms: u64) -> io::Result<bool>;
    /// Opens the file anew at the next [`Sink::turn`].
    fn reopen(&mut self);
    /// As [`io::Write::write`]: may write less.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize>;
    /// Bytes that the sink's file system has left for us.
    fn free_bytes(&self) -> Option<u64>;
}

/// `{dir}/{channel}-YYYY-MM-DD.log`, changed at midnight UTC.
#[derive(Debug)]
pub(super) struct DailyFile {
    dir: PathBuf,
    channel: String,
    retain_days: u32,
    open: Option<(Date, File)>,
}

impl DailyFile {
    /// Creates the directory where it is missing. Opens no file yet.
    pub(super) fn new(dir: &Path, channel: &str, retain_days: u32) -> io::Result<Self> {
        fs::DirBuilder::new().recursive(true).mode(0o750).create(dir)?;
        Ok(Self { dir: dir.to_owned(), channel: channel.to_owned(), retain_days, open: None })
    }

    /// Deletes this channel's files that are older than the retention. Best effort: what cannot go stays.
    fn retain(&self, today: Date) {
        if self.retain_days == 0 {
            return;
        }
        let Ok(entries) = fs::read_dir(&self.dir) else { return };
        for entry in entries.flatten() {
            let name = entry.file_name();
            let day = name.to_str().and_then(|name| self.day_of(name));
            let age = day.and_then(|day| today.since((jiff::Unit::Day, day)).ok()).map(|span| span.get_days());
            if age.is_some_and(|age| i64::from(age) >= i64::from(self.retain_days)) {
                let _ = fs::remove_file(entry.path());
            }
        }
    }

    fn day_of(&self, name: &str) -> Option<Date> {
        let day = name.strip_prefix(&self.channel)?.strip_prefix('-')?.strip_suffix(".log")?;
        let exact = day.len() == 10 && day.bytes().all(|b| b.is_ascii_digit() || b == b'-');
        if exact { day.parse().ok() } else { None }
    }
}

impl Sink for DailyFile {
    fn turn(&mut self, now_ms: u64) -> io::Result<bool> {
        let day = day(now_ms);
        let before = match &self.open {
            Some((open, _)) if *open == day => return Ok(false),
            Some((open, _)) => Some(*open),
            None => None,
        };
        let path = self.dir.join(format!("{}-{day}.log", self.channel));
        let mut file = OpenOptions::new().read(true).append(true).create(true).mode(0o640).open(&path)?;
        end_torn_line(&mut file)?;
        self.open = Some((day, file));
        if before != Some(day) {
            self.retain(day);
        }
        Ok(true)
    }

    fn reopen(&mut self) {
        self.open = None;
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &mut self.open {
            Some((_, file)) => file.write(bytes),
            None => Err(io::ErrorKind::NotConnected.into()),
        }
    }

    fn free_bytes(&self) -> Option<u64> {
        let stat = rustix::fs::statvfs(&self.dir).ok()?;
        Some(stat.f_bavail.saturating_mul(stat.f_frsize))
    }
}

/// A process that was killed may have left half a line: what follows must not be glued to it.
fn end_torn_line(file: &mut File) -> io::Result<()> {
    if file.metadata()?.len() == 0 {
        return Ok(());
    }
    let mut last = [0];
    file.seek(SeekFrom::End(-1))?;
    file.read_exact(&mut last)?;
    if last != *b"\n" {
        file.write_all(b"\n")?;
    }
    Ok(())
}

/// The day in UTC.
fn day(now_ms: u64) -> Date {
    let stamp = i64::try_from(now_ms).ok().and_then(|ms| Timestamp::from_millisecond(ms).ok()).unwrap_or_default();
    stamp.to_zoned(TimeZone::UTC).date()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    const DAY_MS: u64 = 86_400_000;
    /// 2023-11-14.
    const NOW: u64 = 1_700_000_000_000;

    fn names(dir: &Path) -> Vec<String> {
        let entries = fs::read_dir(dir).expect("directory");
        let mut names: Vec<String> =
            entries.map(|entry| entry.expect("entry").file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }

    #[test]
    fn each_day_has_its_file() {
        let dir = tempfile::tempdir().expect("directory");
        let mut file = DailyFile::new(dir.path(), "emcp", 14).expect("sink");
        assert!(file.turn(NOW).expect("turn"));
        assert!(!file.turn(NOW + 1).expect("turn"));
        assert!(file.turn(NOW + DAY_MS).expect("turn"));
        assert_eq!(names(dir.path()), ["emcp-2023-11-14.log", "emcp-2023-11-15.log"]);
        let mode = fs::metadata(dir.path().join("emcp-2023-11-14.log")).expect("metadata").permissions().mode();
        // The umask may take more away.
        assert_eq!(mode & 0o137, 0, "{mode:o}");
    }

    #[test]
    fn retention_deletes_old_files_of_the_channel_only() {
        let dir = tempfile::tempdir().expect("directory");
        for name in [
            "emcp-2023-11-11.log",
            "emcp-2023-11-12.log",
            "emcp-2023-11-13.log",
            "emcp-x-2020-01-01.log",
            "other-2020-01-01.log",
            "emcp-2020-01-01.log.gz",
            "emcp-2020-13-99.log",
            "emcp-20200101.log",
        ] {
            fs::write(dir.path().join(name), "").expect("write");
        }
        DailyFile::new(dir.path(), "emcp", 2).expect("sink").turn(NOW).expect("turn");
        assert_eq!(
            names(dir.path()),
            [
                "emcp-2020-01-01.log.gz",
                "emcp-2020-13-99.log",
                "emcp-20200101.log",
                "emcp-2023-11-13.log",
                "emcp-2023-11-14.log",
                "emcp-x-2020-01-01.log",
                "other-2020-01-01.log",
            ]
        );
    }

    #[test]
    fn a_torn_line_is_ended() {
        let dir = tempfile::tempdir().expect("directory");
        let path = dir.path().join("emcp-2023-11-14.log");
        fs::write(&path, "{\"half").expect("write");
        let mut file = DailyFile::new(dir.path(), "emcp", 0).expect("sink");
        file.turn(NOW).expect("turn");
        file.write(b"{}\n").expect("write");
        assert_eq!(fs::read_to_string(path).expect("read"), "{\"half\n{}\n");
    }

    #[test]
    fn free_space_is_known() {
        let dir = tempfile::tempdir().expect("directory");
        let file = DailyFile::new(dir.path(), "emcp", 0).expect("sink");
        assert!(file.free_bytes().is_some_and(|bytes| bytes > 0));
    }
}
