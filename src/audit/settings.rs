use std::path::PathBuf;

/// `audit.*` of sidecar.toml.
#[derive(Clone, Debug)]
pub struct Settings {
    /// `audit.dir`: where `{channel}-YYYY-MM-DD.log` goes.
    pub dir: PathBuf,
    /// `audit.channel` (`emcp`).
    pub channel: String,
    /// `audit.retain_days` (14); 0 keeps everything.
    pub retain_days: u32,
    pub durability: Durability,
    /// `audit.queue` (8192): records that may wait.
    pub queue: usize,
    /// `audit.min_free_mb` (64), in bytes.
    pub min_free_bytes: u64,
}

/// `audit.durability`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// Flushed every 20 ms.
    Buffered,
    /// The answer ends after its line was written, in groups.
    Written,
}
