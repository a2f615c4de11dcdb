//! What to do about a problem, in words.

use std::collections::BTreeSet;

use crate::config::{EXECUTOR_KEYS, POLICY_KEYS, SIDECAR_KEYS, embedded};

/// A key path without positions in lists: `servers[0].limits` is `servers.limits`.
pub(in crate::config) fn generic(path: &str) -> String {
    let mut out = String::with_capacity(path.len());
    let mut rest = path;
    while let Some((before, after)) = rest.split_once('[') {
        out.push_str(before);
        rest = after.split_once(']').map_or("", |(_, after)| after);
    }
    out.push_str(rest);
    out
}

/// What was probably meant by a key that this table does not have.
pub(in crate::config) fn unknown_key(table: &str, key: &str, siblings: &[String], asked: &BTreeSet<String>) -> String {
    if let Some(near) = nearest(key, siblings.iter().map(String::as_str)) {
        return format!("did you mean `{near}`?");
    }
    if table.is_empty() {
        for (file, keys) in
            [("sidecar.toml", SIDECAR_KEYS), ("executor.toml", EXECUTOR_KEYS), ("policy.toml", POLICY_KEYS)]
        {
            if keys.contains(&key) {
                return format!("it belongs in {file}");
            }
        }
    }
    let own = generic(table);
    let elsewhere: Vec<String> = asked
        .iter()
        .filter_map(|path| match path.rsplit_once('.') {
            Some((place, last)) if last == key && place != own => Some(format!("`{place}`")),
            None if path == key && !own.is_empty() => Some("the top level".to_owned()),
            _ => None,
        })
        .collect();
    match elsewhere.len() {
        1..=4 => format!("it is a key of {}", elsewhere.join(" and of ")),
        _ if siblings.is_empty() => "remove it".to_owned(),
        _ => format!("keys here: {}", siblings.join(", ")),
    }
}

/// The key that a fix of [`unknown_key`] suggests.
pub(in crate::config) fn meant(fix: &str) -> Option<&str> {
    fix.strip_prefix("did you mean `")?.strip_suffix("`?")
}

/// How to add a key that is required: with the shipped value, where the shipped files have it.
pub(in crate::config) fn missing(path: &str, key: &str) -> String {
    let why = if POLICY_KEYS.iter().any(|top| *top == path.split(['.', '[']).next().unwrap_or("")) {
        "; what restricts is never defaulted"
    } else {
        ""
    };
    let shipped = [embedded::SIDECAR, embedded::EXECUTOR, embedded::POLICY].iter().find_map(|text| shipped(text, path));
    match shipped {
        Some(toml::Value::Table(_)) => format!("add the table [{path}], as in the shipped file{why}"),
        Some(value) if value.to_string().len() <= 60 => format!("add `{key} = {value}`, the shipped value{why}"),
        Some(_) => format!("add `{key}`, as in the shipped file{why}"),
        None => format!("add `{key}`{why}"),
    }
}

fn shipped(text: &str, path: &str) -> Option<toml::Value> {
    let mut value = toml::Value::Table(text.parse().ok()?);
    for part in path.split('.') {
        let (name, index) = part.split_once('[').map_or((part, None), |(name, rest)| (name, Some(rest)));
        value = value.get(name)?.clone();
        if index.is_some() {
            // Any entry of a list shows how one looks.
            value = value.as_array()?.first()?.clone();
        }
    }
    Some(value)
}

/// `1 to 65536 MB`: both ends of a range, with the unit that the key's name says.
pub(in crate::config) fn range(key: &str, range: (u32, u32)) -> String {
    let unit = [
        ("_kb", " KB"),
        ("_mb", " MB"),
        ("_bytes", " bytes"),
        ("_seconds", " seconds"),
        ("_ms", " milliseconds"),
        ("_days", " days"),
        ("per_minute", " per minute"),
    ];
    let unit = unit.iter().find(|(suffix, _)| key.ends_with(suffix)).map_or("", |(_, unit)| unit);
    format!("{} to {}{unit}", range.0, range.1)
}

/// What usually causes a syntax error of this kind, before this rest of the file.
pub(in crate::config) fn syntax(message: &str, rest: &str) -> &'static str {
    let about = |words: &[&str]| words.iter().any(|word| message.contains(word));
    if about(&["must be quoted"]) {
        "put a text in quotes; a number stands alone, without its unit, which is part of the key's name"
    } else if about(&["invalid boolean"]) {
        "write true or false, in small letters"
    } else if about(&["key"]) && rest.trim_start().starts_with(':') {
        "write `key = value`, with an equals sign"
    } else if about(&["string"]) {
        "a text begins and ends with a quote, on one line; inside it, write \\\\ for a backslash"
    } else if about(&["inline table", "`}`"]) {
        "close the brace, and put a comma between two entries"
    } else if about(&["table", "header"]) {
        "write a table's name in brackets: [name], or [[name]] for an entry of a list"
    } else if about(&["array", "`]`"]) {
        "close the bracket, and put a comma between two entries"
    } else if about(&["literal", "value"]) {
        "write a text in quotes, a number without, or true or false"
    } else {
        "one line holds one `key = value`, a [table] or a # comment"
    }
}

/// The candidate nearest to `word`, if any is near enough to be what was meant.
pub(in crate::config) fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let limit = (word.chars().count() / 3).max(1);
    let candidates: Vec<&str> = candidates.into_iter().collect();
    // Half a name is a name that was meant: `timeout` for `timeout_ms`.
    let half = |candidate: &&&str| {
        let (short, long) = if word.len() < candidate.len() { (word, **candidate) } else { (**candidate, word) };
        short.len() >= 4 && long.starts_with(short)
    };
    candidates
        .iter()
        .copied()
        .map(|candidate| (distance(word, candidate), candidate))
        .filter(|(distance, _)| *distance <= limit)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
        .or_else(|| candidates.iter().find(half).copied())
}

/// Edits between two words (insert, delete, replace, swap of neighbours).
fn distance(left: &str, right: &str) -> usize {
    let (left, right): (Vec<char>, Vec<char>) =
        (left.to_lowercase().chars().take(64).collect(), right.to_lowercase().chars().take(64).collect());
    let mut rows = vec![vec![0; right.len() + 1]; left.len() + 1];
    for i in 0..=left.len() {
        for j in 0..=right.len() {
            rows[i][j] = if i == 0 || j == 0 {
                i + j
            } else {
                let replaced = rows[i - 1][j - 1] + usize::from(left[i - 1] != right[j - 1]);
                let mut best = replaced.min(rows[i - 1][j] + 1).min(rows[i][j - 1] + 1);
                if i > 1 && j > 1 && left[i - 1] == right[j - 2] && left[i - 2] == right[j - 1] {
                    best = best.min(rows[i - 2][j - 2] + 1);
                }
                best
            };
        }
    }
    rows[left.len()][right.len()]
}

#[cfg(test)]
mod tests {
    use super::nearest;

    #[test]
    fn a_suggestion_is_near_or_absent() {
        let known = ["per_minute", "enabled", "replicas"];
        assert_eq!(nearest("per_minte", known), Some("per_minute"));
        assert_eq!(nearest("enabeld", known), Some("enabled"));
        assert_eq!(nearest("colour", known), None);
        assert_eq!(nearest("timeout", ["url", "timeout_ms"]), Some("timeout_ms"));
        assert_eq!(nearest("url", ["url_env"]), None);
    }
}
