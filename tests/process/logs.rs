//! Log files that somebody moves away.

use std::path::{Path, PathBuf};

use rustix::process::Signal;

use crate::harness::{Upstream, eventually};
use crate::part::{Files, Part, SOON, call, records};

/// The audit log's file of today.
fn audit_file(files: &Files) -> PathBuf {
    let mut entries = std::fs::read_dir(files.path("logs")).expect("is there").flatten();
    let found = entries.find(|entry| entry.path().extension().is_some_and(|extension| extension == "log"));
    found.expect("today's file").path()
}

fn lines(path: &Path) -> usize {
    std::fs::read_to_string(path).map_or(0, |text| text.lines().count())
}

#[test]
fn both_logs_are_opened_anew_also_when_no_line_follows() {
    let upstream = Upstream::mcp();
    let files = Files::shipped();
    crate::drain::before(&files, &upstream);
    files.edit("sidecar.toml", "format = \"off\"", "format = \"json\", path = \"access.log\"");
    let proxy = Part::ready(files.service("proxy"));
    let mcp = proxy.address("listening");
    let (access, audit) = (files.path("access.log"), audit_file(&files));
    let moved = |path: &Path| path.with_extension("log.1");

    for round in 1..=3 {
        for _ in 0..round {
            assert_eq!(call(mcp, "raw", "raw.echo").status, 200);
        }
        eventually("the lines are written", SOON, || (lines(&access) == round && lines(&audit) == round).then_some(()));
        // As logrotate does: rename first, then tell.
        for path in [&access, &audit] {
            std::fs::rename(path, moved(path)).expect("is renamed");
        }
        assert_eq!(call(mcp, "raw", "raw.secret").status, 403);
        eventually("until told, the old files are written to", SOON, || {
            (lines(&moved(&access)) == round + 1 && lines(&moved(&audit)) == round + 1).then_some(())
        });
        proxy.signal(Signal::USR1);
        eventually("new files are there", SOON, || (access.exists() && audit.exists()).then_some(()));
        assert_eq!((lines(&access), lines(&audit)), (0, 0), "without a line");
        for path in [&access, &audit] {
            std::fs::remove_file(moved(path)).expect("nobody needs it");
        }
    }
    assert_eq!(call(mcp, "raw", "raw.echo").status, 200);
    eventually("the new files are written to", SOON, || {
        (lines(&access) == 1 && records(&files.path("logs")).len() == 1).then_some(())
    });
}
