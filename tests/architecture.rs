//! The rooms import only what the table in docs/ARCHITECTURE.md lists, and files stay readable.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

const MAX_LINES: usize = 600;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn sources(dir: &Path, into: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).expect("src is readable") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            sources(&path, into);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            into.push(path);
        }
    }
}

/// (room or file stem at the top, path, text)
fn rooms() -> Vec<(String, PathBuf, String)> {
    let src = root().join("src");
    let mut files = Vec::new();
    sources(&src, &mut files);
    files
        .into_iter()
        .map(|path| {
            let inside = path.strip_prefix(&src).expect("is below src");
            let first = inside.components().next().expect("has a name").as_os_str().to_string_lossy();
            let room = first.trim_end_matches(".rs").to_owned();
            let text = fs::read_to_string(&path).expect("is UTF-8");
            (room, path, text)
        })
        .collect()
}

fn table() -> BTreeMap<String, BTreeSet<String>> {
    let doc = fs::read_to_string(root().join("docs/ARCHITECTURE.md")).expect("is there");
    doc.lines()
        .filter_map(|line| {
            let cells: Vec<_> = line.split('|').map(str::trim).collect();
            let room = cells.get(1)?.strip_prefix('`')?.strip_suffix('`')?;
            Some((room.to_owned(), cells.get(3)?.split_whitespace().map(str::to_owned).collect()))
        })
        .collect()
}

/// The code without `//` comments; good enough, since no string of ours holds `crate::`.
fn code(text: &str) -> String {
    text.lines().map(|line| line.split("//").next().unwrap_or(line)).collect::<Vec<_>>().join("\n")
}

/// Every `crate::room` in the code, with the segment after it; `crate::{a, b::c}` is taken apart.
fn imports(text: &str) -> Vec<(String, String)> {
    let code = code(text);
    let mut found = Vec::new();
    for (at, _) in code.match_indices("crate::") {
        if code[..at].ends_with(|before: char| before.is_alphanumeric() || before == '_' || before == '$') {
            continue;
        }
        let rest = &code[at + "crate::".len()..];
        if let Some(group) = rest.strip_prefix('{') {
            found.extend(group_members(group).iter().map(|member| segments(member)));
        } else {
            found.push(segments(rest));
        }
    }
    found
}

fn segments(path: &str) -> (String, String) {
    let mut parts = path.split("::").map(|part| {
        part.trim().chars().take_while(|letter| letter.is_alphanumeric() || *letter == '_').collect::<String>()
    });
    (parts.next().unwrap_or_default(), parts.next().unwrap_or_default())
}

fn group_members(group: &str) -> Vec<String> {
    let (mut depth, mut member, mut members) = (0_u32, String::new(), Vec::new());
    for letter in group.chars() {
        match letter {
            '}' if depth == 0 => break,
            ',' if depth == 0 => members.push(std::mem::take(&mut member)),
            _ => {
                depth = depth + u32::from(letter == '{') - u32::from(letter == '}');
                member.push(letter);
            }
        }
    }
    members.push(member);
    members.into_iter().filter(|member| !member.trim().is_empty()).collect()
}

#[test]
fn rooms_import_only_what_the_table_lists() {
    let table = table();
    assert!(table.len() >= 16, "the table was not found");
    let mut wrong = Vec::new();
    for (room, path, text) in rooms() {
        if room == "lib" || room == "main" {
            continue;
        }
        let Some(allowed) = table.get(&room) else {
            wrong.push(format!("{}: `{room}` is not in the table", path.display()));
            continue;
        };
        for (target, next) in imports(&text) {
            let known = table.contains_key(&target);
            let settings = room == "config" && next == "settings";
            if known && target != room && !allowed.contains(&target) && !settings {
                wrong.push(format!("{}: {room} imports {target}", path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn files_are_short_and_finished() {
    let mut wrong = Vec::new();
    for (_, path, text) in rooms() {
        let lines = text.lines().count();
        if lines > MAX_LINES {
            wrong.push(format!("{}: {lines} lines", path.display()));
        }
        for gap in ["unimplemented!", "todo!"] {
            if code(&text).contains(gap) {
                wrong.push(format!("{}: {gap}", path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn grouped_and_inline_paths_are_both_read() {
    let found =
        imports("use crate::{base::Secret, policy::{A, B}}; fn f(x: crate::redis::settings::S) {} // crate::app");
    let rooms: Vec<_> = found.iter().map(|(room, _)| room.as_str()).collect();
    assert_eq!(rooms, ["base", "policy", "redis"]);
    assert_eq!(found[2].1, "settings");
}
