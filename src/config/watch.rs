use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use notify::event::{AccessKind, AccessMode, CreateKind, EventKind, ModifyKind};
use notify::{Event, RecommendedWatcher, RecursiveMode, Watcher as _};

/// Quiet time after an event before the file is read.
const DEBOUNCE: Duration = Duration::from_millis(50);

/// A running watch; dropping it ends it.
pub struct Watch {
    _watcher: RecommendedWatcher,
}

/// Calls `on_change` from an own thread with the new bytes whenever the content at `path` has changed: after a
/// close-write, a rename, or a swap of a symlink in its directory. A file that is missing or unreadable changes
/// nothing; an empty one is handed on, and the loader refuses it.
///
/// # Errors
/// When the directory cannot be watched.
pub fn watch(path: &Path, on_change: impl Fn(Vec<u8>) + Send + 'static) -> notify::Result<Watch> {
    let path: PathBuf = std::path::absolute(path)?;
    let (sender, receiver) = mpsc::channel();
    let mut watcher = notify::recommended_watcher(move |event: notify::Result<Event>| {
        if event.as_ref().map_or(true, settles) {
            // The receiver is gone only when the watch is being dropped.
            let _ = sender.send(());
        }
    })?;
    let parent = path.parent().unwrap_or(Path::new("/"));
    watcher.watch(parent, RecursiveMode::NonRecursive)?;
    if let Some(target) = path.canonicalize()?.parent().filter(|target| *target != parent) {
        watcher.watch(target, RecursiveMode::NonRecursive)?;
    }
    let mut last = std::fs::read(&path)?;
    std::thread::Builder::new().name("policy-watch".to_owned()).spawn(move || {
        while receiver.recv().is_ok() {
            let deadline = Instant::now() + DEBOUNCE * 10;
            while Instant::now() < deadline && receiver.recv_timeout(DEBOUNCE).is_ok() {}
            if let Ok(bytes) = std::fs::read(&path)
                && bytes != last
            {
                last.clone_from(&bytes);
                on_change(bytes);
            }
        }
    })?;
    Ok(Watch { _watcher: watcher })
}

/// Whether an event may end a change; writes in progress do not.
fn settles(event: &Event) -> bool {
    match event.kind {
        EventKind::Access(AccessKind::Close(AccessMode::Write)) | EventKind::Modify(ModifyKind::Name(_)) => true,
        EventKind::Create(CreateKind::Folder) => false,
        EventKind::Create(_) => event.paths.iter().any(|path| path.is_symlink()),
        EventKind::Modify(_) => cfg!(not(target_os = "linux")),
        _ => event.need_rescan(),
    }
}
