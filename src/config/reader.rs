use std::cell::RefCell;
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::base::Secret;
use crate::config::document::{Document, Node, Place, Table, Value};
use crate::config::hint;
use crate::config::source::locate;
use crate::config::{Problem, Report};
use crate::policy::RuleSite;

/// What `sun_path` holds, less its end, in bytes.
const SOCKET_PATH: usize = 107;

/// One effective value and where it came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Effective {
    pub key: String,
    /// As TOML; secrets redacted.
    pub value: String,
    /// `file:line`, `default`, `--set KEY` or a variable.
    pub origin: String,
}

/// Reads typed values out of a document and collects every problem on the way.
pub(in crate::config) struct Reader<'a> {
    pub document: &'a Document,
    pub base: PathBuf,
    problems: RefCell<Vec<Problem>>,
    effective: RefCell<Vec<Effective>>,
    /// Every key that was asked for, there or not, without positions in lists.
    asked: RefCell<BTreeSet<String>>,
    unknown: RefCell<Vec<Unknown>>,
    /// Secrets that stand in the file, as written: no report shows them.
    secrets: RefCell<Vec<String>>,
}

/// A key that nobody asked for; what to do about it is clear once all keys are known.
struct Unknown {
    place: Place,
    table: String,
    key: String,
    siblings: Vec<String>,
}

impl<'a> Reader<'a> {
    pub fn new(document: &'a Document, base: PathBuf, problems: Vec<Problem>) -> Self {
        Self {
            document,
            base,
            problems: RefCell::new(problems),
            effective: RefCell::default(),
            asked: RefCell::default(),
            unknown: RefCell::default(),
            secrets: RefCell::default(),
        }
    }

    pub fn root(&'a self) -> Section<'a> {
        Section {
            reader: self,
            table: Some(&self.document.root),
            path: String::new(),
            place: Place::default(),
            known: RefCell::default(),
            refused: RefCell::default(),
        }
    }

    pub fn problem(&self, place: Place, message: impl Into<String>, fix: &str) {
        self.problems.borrow_mut().push(self.document.problem(place, message.into(), fix));
    }

    pub fn site(&self, key: String, place: Place) -> RuleSite {
        let (line, column) = if place.source == 0 {
            let (line, column, _) = locate(&self.document.texts[0].text, place.start);
            (line, column)
        } else {
            (0, 0)
        };
        RuleSite { key: Arc::from(key), line, column }
    }

    fn record(&self, key: &str, value: String, place: Option<Place>) {
        let origin = place.map_or_else(
            || "default".to_owned(),
            |place| {
                let name = &self.document.texts[place.source].name;
                if place.source == 0 {
                    format!("{name}:{}", self.site(String::new(), place).line)
                } else {
                    name.clone()
                }
            },
        );
        self.effective.borrow_mut().push(Effective { key: key.to_owned(), value, origin });
    }

    /// Every key that was asked for so far, as `servers.limits.max_payload_kb`.
    #[cfg(test)]
    pub fn asked(&self) -> BTreeSet<String> {
        self.asked.borrow().clone()
    }

    /// `policy.toml:7:1`, for a message that speaks of a second place.
    pub fn place_name(&self, place: Place) -> String {
        let site = self.site(String::new(), place);
        let name = &self.document.texts[place.source].name;
        if site.line == 0 { name.clone() } else { format!("{name}:{}:{}", site.line, site.column) }
    }

    /// Ends the reading: the value, unless there were problems.
    pub fn finish<T>(self, value: T) -> (Result<T, Report>, Vec<Effective>) {
        for unknown in self.unknown.take() {
            let path = join(&unknown.table, &unknown.key);
            let fix = hint::unknown_key(&unknown.table, &unknown.key, &unknown.siblings, &self.asked.borrow());
            if let Some(meant) = hint::meant(&fix) {
                // One slip is one problem: the key that was meant is not missing besides.
                let missing = format!("`{}` is missing", join(&unknown.table, meant));
                self.problems.borrow_mut().retain(|problem| problem.message != missing);
            }
            self.problem(unknown.place, format!("unknown key `{path}`"), &fix);
        }
        let mut problems = self.problems.into_inner();
        for secret in self.secrets.into_inner().into_iter().filter(|secret| !secret.is_empty()) {
            let stars = "*".repeat(secret.chars().count());
            // A short one would be found in words that have nothing to do with it.
            let quotes: &[&str] = if secret.len() < 8 { &["\"", "'"] } else { &["\"", "'", ""] };
            for problem in &mut problems {
                for text in [&mut problem.message, &mut problem.excerpt, &mut problem.offending] {
                    for quote in quotes {
                        *text = text.replace(&format!("{quote}{secret}{quote}"), &format!("{quote}{stars}{quote}"));
                    }
                }
            }
        }
        let result = if problems.is_empty() { Ok(value) } else { Err(Report::sorted(problems)) };
        (result, self.effective.into_inner())
    }
}

/// A string of the file with its key and place.
#[derive(Clone, Debug)]
pub(in crate::config) struct Word {
    pub text: String,
    pub key: String,
    pub place: Place,
}

/// One table being read. [`Section::close`] refuses what nobody asked for.
pub(in crate::config) struct Section<'a> {
    pub reader: &'a Reader<'a>,
    pub table: Option<&'a Table>,
    pub path: String,
    pub place: Place,
    known: RefCell<Vec<String>>,
    refused: RefCell<Vec<String>>,
}

impl<'a> Section<'a> {
    pub fn at(reader: &'a Reader<'a>, table: &'a Table, path: String, place: Place) -> Self {
        Self { reader, table: Some(table), path, place, known: RefCell::default(), refused: RefCell::default() }
    }

    pub fn key(&self, key: &str) -> String {
        join(&self.path, key)
    }

    pub fn node(&self, key: &str) -> Option<&'a Node> {
        self.known.borrow_mut().push(key.to_owned());
        self.reader.asked.borrow_mut().insert(hint::generic(&self.key(key)));
        self.table?.get(key).map(|entry| &entry.node)
    }

    /// Whether the table is there and has none of these keys.
    pub fn lacks(&self, keys: &[&str]) -> bool {
        self.table.is_some_and(|table| keys.iter().all(|key| table.get(key).is_none()))
    }

    /// A key of the contract whose feature is not part of this version: said plainly, rather than "unknown key".
    pub fn refuse(&self, key: &str, why: &str, fix: &str) {
        if let Some(entry) = self.table.and_then(|table| table.get(key)) {
            // Not among the known ones: no suggestion leads here.
            self.refused.borrow_mut().push(key.to_owned());
            self.reader.problem(entry.key_place, format!("`{}` {why}", self.key(key)), fix);
        }
    }

    /// A table; where it is required and absent, that is said once and its keys are not asked for.
    pub fn section(&self, key: &str, required: bool) -> Section<'a> {
        let node = self.node(key);
        let (table, place) = match node {
            Some(Node { value: Value::Table(table), place }) => (Some(table), *place),
            Some(other) => {
                self.wrong(key, other, "a table", &format!("write [{}]", self.key(key)));
                (None, other.place)
            }
            None => {
                if required {
                    self.missing(key);
                }
                (None, self.place)
            }
        };
        Section {
            reader: self.reader,
            table,
            path: self.key(key),
            place,
            known: RefCell::default(),
            refused: RefCell::default(),
        }
    }

    pub const fn present(&self) -> bool {
        self.table.is_some()
    }

    fn missing(&self, key: &str) {
        if self.table.is_some() {
            let path = self.key(key);
            self.reader.problem(self.place, format!("`{path}` is missing"), &hint::missing(&path, key));
        }
    }

    fn wrong(&self, key: &str, node: &Node, wanted: &str, fix: &str) {
        let message = format!("`{}` must be {wanted}, not {}", self.key(key), node.value.kind());
        self.reader.problem(node.place, message, fix);
    }

    fn absent<T>(&self, key: &str, default: Option<T>, show: impl Fn(&T) -> String, fallback: T) -> T {
        match default {
            Some(value) => {
                self.reader.record(&self.key(key), show(&value), None);
                value
            }
            None => {
                self.missing(key);
                fallback
            }
        }
    }

    pub fn boolean(&self, key: &str, default: Option<bool>) -> bool {
        match self.node(key) {
            Some(Node { value: Value::Boolean(value), place }) => {
                self.reader.record(&self.key(key), value.to_string(), Some(*place));
                *value
            }
            Some(other) => {
                self.wrong(key, other, "true or false", "write true or false, without quotes");
                false
            }
            None => self.absent(key, default, ToString::to_string, false),
        }
    }

    /// An integer of `range`, both ends included.
    pub fn integer(&self, key: &str, range: (u32, u32), default: Option<u32>) -> u32 {
        match self.node(key) {
            Some(Node { value: Value::Integer(value), place }) => {
                self.reader.record(&self.key(key), value.to_string(), Some(*place));
                match u32::try_from(*value).ok().filter(|value| (range.0..=range.1).contains(value)) {
                    Some(value) => value,
                    None => {
                        let message = format!("`{}` is out of range: {value}", self.key(key));
                        self.reader.problem(*place, message, &format!("use {}", hint::range(key, range)));
                        range.0
                    }
                }
            }
            Some(other) => {
                let fix = format!("write a whole number without quotes, {}", hint::range(key, range));
                self.wrong(key, other, "an integer", &fix);
                range.0
            }
            None => self.absent(key, default, ToString::to_string, range.0),
        }
    }

    pub fn size(&self, key: &str, range: (u32, u32), default: Option<u32>, unit: usize) -> usize {
        usize::try_from(self.integer(key, range, default)).unwrap_or(usize::MAX).saturating_mul(unit)
    }

    /// A length of time: a string such as `"250ms"`, `"5s"`, `"2m"`.
    pub fn duration(&self, key: &str, default: Duration) -> Duration {
        if let Some(Node { value: Value::Integer(number), place }) = self.node(key) {
            let message = format!("`{}` has no unit: {number}", self.key(key));
            self.reader.problem(*place, message, &format!("write \"{number}s\", \"{number}ms\" or \"{number}m\""));
            return default;
        }
        let Some(word) = self.optional(key) else {
            self.reader.record(&self.key(key), format!("\"{}ms\"", default.as_millis()), None);
            return default;
        };
        let parsed = [("ms", 1), ("s", 1000), ("m", 60_000)].into_iter().find_map(|(unit, factor)| {
            let number: u64 = word.text.strip_suffix(unit)?.parse().ok()?;
            number.checked_mul(factor).filter(|ms| (1..=3_600_000).contains(ms))
        });
        parsed.map_or_else(
            || {
                let message = format!("`{}` is no length of time: {:?}", self.key(key), word.text);
                self.reader.problem(word.place, message, "use a number with ms, s or m, such as \"5s\", up to an hour");
                default
            },
            Duration::from_millis,
        )
    }

    pub fn optional(&self, key: &str) -> Option<Word> {
        match self.node(key)? {
            Node { value: Value::Text(text), place } => {
                self.reader.record(&self.key(key), format!("{text:?}"), Some(*place));
                Some(Word { text: text.clone(), key: self.key(key), place: *place })
            }
            other => {
                self.wrong(key, other, "a string", "put it in quotes");
                None
            }
        }
    }

    /// A string; without a default it is required.
    pub fn text(&self, key: &str, default: Option<&str>) -> Word {
        let there = self.table.is_some_and(|table| table.get(key).is_some());
        self.optional(key).unwrap_or_else(|| {
            let default = default.map(str::to_owned);
            let text =
                if there { String::new() } else { self.absent(key, default, |t| format!("{t:?}"), String::new()) };
            Word { text, key: self.key(key), place: self.place }
        })
    }

    /// One of a closed set of words.
    pub fn choice<T: Copy>(&self, key: &str, words: &[(&str, T)], default: Option<&str>) -> T {
        let word = self.text(key, default);
        if let Some((_, value)) = words.iter().find(|(name, _)| *name == word.text) {
            return *value;
        }
        let given = self.table.and_then(|table| table.get(key));
        if given.is_some_and(|entry| matches!(entry.node.value, Value::Text(_))) {
            let names: Vec<&str> = words.iter().map(|(name, _)| *name).collect();
            let fix = hint::nearest(&word.text, names.iter().copied())
                .map_or_else(|| format!("use one of: {}", names.join(", ")), |near| format!("did you mean {near:?}?"));
            self.reader.problem(word.place, format!("`{}` has no value {:?}", word.key, word.text), &fix);
        }
        words[0].1
    }

    /// A list of strings.
    pub fn words(&self, key: &str, required: bool) -> Vec<Word> {
        let Some(node) = self.node(key) else {
            return self.absent(key, (!required).then(Vec::new), |_: &Vec<Word>| "[]".to_owned(), Vec::new());
        };
        let words = words_of(self.reader, &self.key(key), node);
        let shown: Vec<String> = words.iter().map(|word| format!("{:?}", word.text)).collect();
        self.reader.record(&self.key(key), format!("[{}]", shown.join(", ")), Some(node.place));
        words
    }

    /// A required list of integers of `range`, both ends included.
    pub fn integers(&self, key: &str, range: (u32, u32)) -> Vec<u32> {
        let Some(node) = self.node(key) else {
            return self.absent(key, None, |_: &Vec<u32>| String::new(), Vec::new());
        };
        let Value::Array(items) = &node.value else {
            self.wrong(key, node, "a list of integers", "write [1]");
            return Vec::new();
        };
        let mut numbers = Vec::new();
        for (index, item) in items.iter().enumerate() {
            let number = if let Value::Integer(number) = &item.value { u32::try_from(*number).ok() } else { None };
            match number.filter(|number| (range.0..=range.1).contains(number)) {
                Some(number) => numbers.push(number),
                None => {
                    let message = format!("`{}[{index}]` must be an integer from {}", self.key(key), range.0);
                    self.reader.problem(item.place, message, "write whole numbers without quotes");
                }
            }
        }
        self.reader.record(&self.key(key), format!("{numbers:?}"), Some(node.place));
        numbers
    }

    /// A path, resolved against the directory of the file; one from an override, against the working directory.
    pub fn path(&self, word: &Word) -> PathBuf {
        if word.place.source == 0 { self.reader.base.join(&word.text) } else { PathBuf::from(&word.text) }
    }

    /// As [`Self::path`], for a unix socket: the kernel takes no long ones.
    pub fn socket(&self, word: &Word) -> PathBuf {
        let path = self.path(word);
        let length = path.as_os_str().len();
        if length > SOCKET_PATH {
            let message =
                format!("`{}` is a path of {length} bytes, and a unix socket's has at most {SOCKET_PATH}", word.key);
            self.reader.problem(word.place, message, "use a shorter one, such as /run/mcp-sidecar/NAME.sock");
        }
        path
    }

    /// Keeps what stands under a key out of every report.
    pub fn conceal(&self, key: &str) {
        let entry = self.table.and_then(|table| table.get(key));
        if let Some(Node { value: Value::Text(text), .. }) = entry.map(|entry| &entry.node) {
            self.reader.secrets.borrow_mut().push(text.clone());
        }
    }

    /// Refuses a secret by value; `keys` are those that name one.
    pub fn refuse_secret(&self, key: &str, keys: &str) {
        self.conceal(key);
        let fix = format!("move it into a variable or a file, and name that: {keys}");
        self.refuse(key, "holds a secret, which must not stand here", &fix);
    }

    /// A secret by value, environment variable (`KEY_env`) or file (`KEY_file`).
    pub fn secret(
        &self,
        key: &str,
        environment: &dyn Fn(&str) -> Option<String>,
        inline: bool,
    ) -> Option<(Secret, Place)> {
        let (by_env, by_file) = (format!("{key}_env"), format!("{key}_file"));
        self.conceal(key);
        let value = if inline { self.node(key) } else { None };
        if !inline {
            self.refuse_secret(key, &format!("{by_env} or {by_file}"));
        }
        let ways = [(key, value), (by_env.as_str(), self.node(&by_env)), (by_file.as_str(), self.node(&by_file))];
        let given: Vec<(&str, &Node)> = ways.into_iter().filter_map(|(way, node)| Some((way, node?))).collect();
        if let [(first, _), (second, node), ..] = given[..] {
            let message = format!("`{}` and `{}` are both given", self.key(first), self.key(second));
            self.reader.problem(node.place, message, "keep one of the two");
        }
        let (way, node) = given.first()?;
        if *way == key {
            let Value::Text(text) = &node.value else {
                self.wrong(key, node, "a string", "put it in quotes");
                return None;
            };
            self.reader.record(&self.key(key), "\"[REDACTED]\"".to_owned(), Some(node.place));
            return Some((Secret::new(text.as_bytes()), node.place));
        }
        let word = self.optional(way)?;
        if *way == by_file {
            return self.secret_file(&word).map(|secret| (secret, word.place));
        }
        let value = environment(&word.text).filter(|value| !value.is_empty());
        if value.is_none() {
            let message = format!("the variable {} is not set", word.text);
            self.reader.problem(word.place, message, "set it in the environment");
        }
        value.map(|value| (Secret::new(value), word.place))
    }

    pub fn secret_file(&self, word: &Word) -> Option<Secret> {
        match std::fs::read(self.path(word)) {
            Ok(bytes) => Some(Secret::new(bytes.trim_ascii_end())),
            Err(error) => {
                let message = format!("the secret's file cannot be read: {}", error.kind());
                self.reader.problem(word.place, message, "check path and rights");
                None
            }
        }
    }

    /// Refuses every key that was not asked for.
    pub fn close(&self) {
        let Some(table) = self.table else { return };
        let (known, refused) = (self.known.borrow(), self.refused.borrow());
        for entry in &table.entries {
            if !known.contains(&entry.key) && !refused.contains(&entry.key) {
                self.reader.unknown.borrow_mut().push(Unknown {
                    place: entry.key_place,
                    table: self.path.clone(),
                    key: entry.key.clone(),
                    siblings: known.clone(),
                });
            }
        }
    }
}

fn join(table: &str, key: &str) -> String {
    if table.is_empty() { key.to_owned() } else { format!("{table}.{key}") }
}

/// The strings of a list, each with its place.
pub(in crate::config) fn words_of(reader: &Reader<'_>, key: &str, node: &Node) -> Vec<Word> {
    let Value::Array(items) = &node.value else {
        let message = format!("`{key}` must be a list of strings, not {}", node.value.kind());
        let fix = match &node.value {
            Value::Text(text) => format!("write [{text:?}]"),
            _ => "write [\"...\"]".to_owned(),
        };
        reader.problem(node.place, message, &fix);
        return Vec::new();
    };
    let mut words = Vec::new();
    for (index, item) in items.iter().enumerate() {
        let key = format!("{key}[{index}]");
        match &item.value {
            Value::Text(text) => words.push(Word { text: text.clone(), key, place: item.place }),
            other => reader.problem(item.place, format!("`{key}` must be a string, not {}", other.kind()), "quote it"),
        }
    }
    words
}
