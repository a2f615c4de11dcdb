use std::cell::RefCell;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::base::Secret;
use crate::config::document::{Document, Node, Place, Table, Value};
use crate::config::report::nearest;
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
}

impl<'a> Reader<'a> {
    pub fn new(document: &'a Document, base: PathBuf, problems: Vec<Problem>) -> Self {
        Self { document, base, problems: RefCell::new(problems), effective: RefCell::default() }
    }

    pub fn root(&'a self) -> Section<'a> {
        Section {
            reader: self,
            table: Some(&self.document.root),
            path: String::new(),
            place: Place::default(),
            known: RefCell::default(),
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

    /// Ends the reading: the value, unless there were problems.
    pub fn finish<T>(self, value: T) -> (Result<T, Report>, Vec<Effective>) {
        let mut problems = self.problems.into_inner();
        problems.sort_by_key(|problem| (problem.line == 0, problem.line, problem.column));
        let result = if problems.is_empty() { Ok(value) } else { Err(Report { problems }) };
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
}

impl<'a> Section<'a> {
    pub fn at(reader: &'a Reader<'a>, table: &'a Table, path: String, place: Place) -> Self {
        Self { reader, table: Some(table), path, place, known: RefCell::default() }
    }

    pub fn key(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }

    pub fn node(&self, key: &str) -> Option<&'a Node> {
        self.known.borrow_mut().push(key.to_owned());
        self.table?.get(key).map(|entry| &entry.node)
    }

    /// A table; where it is required and absent, that is said once and its keys are not asked for.
    pub fn section(&self, key: &str, required: bool) -> Section<'a> {
        let node = self.node(key);
        let (table, place) = match node {
            Some(Node { value: Value::Table(table), place }) => (Some(table), *place),
            Some(other) => {
                self.wrong(key, other, "a table");
                (None, other.place)
            }
            None => {
                if required {
                    self.missing(key);
                }
                (None, self.place)
            }
        };
        Section { reader: self.reader, table, path: self.key(key), place, known: RefCell::default() }
    }

    pub const fn present(&self) -> bool {
        self.table.is_some()
    }

    fn missing(&self, key: &str) {
        if self.table.is_some() {
            let fix = format!("add `{key}`; what restricts is never defaulted");
            self.reader.problem(self.place, format!("`{}` is missing", self.key(key)), &fix);
        }
    }

    fn wrong(&self, key: &str, node: &Node, wanted: &str) {
        let message = format!("`{}` must be {wanted}, not {}", self.key(key), node.value.kind());
        self.reader.problem(node.place, message, &format!("write {wanted}"));
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
                self.wrong(key, other, "true or false");
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
                        self.reader.problem(*place, message, &format!("use {} to {}", range.0, range.1));
                        range.0
                    }
                }
            }
            Some(other) => {
                self.wrong(key, other, "an integer");
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
                self.wrong(key, other, "a string");
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
            let fix = nearest(&word.text, names.iter().copied())
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

    /// A secret by value, environment variable (`KEY_env`) or file (`KEY_file`).
    pub fn secret(
        &self,
        key: &str,
        environment: &dyn Fn(&str) -> Option<String>,
        inline: bool,
    ) -> Option<(Secret, Place)> {
        if inline && let Some(Node { value: Value::Text(text), place }) = self.node(key) {
            self.reader.record(&self.key(key), "\"[REDACTED]\"".to_owned(), Some(*place));
            return Some((Secret::new(text.as_bytes()), *place));
        }
        if let Some(word) = self.optional(&format!("{key}_env")) {
            if let Some(value) = environment(&word.text).filter(|value| !value.is_empty()) {
                return Some((Secret::new(value), word.place));
            }
            self.reader.problem(
                word.place,
                format!("the variable {} is not set", word.text),
                "set it in the environment",
            );
            return None;
        }
        let word = self.optional(&format!("{key}_file"))?;
        self.secret_file(&word).map(|secret| (secret, word.place))
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
        let known = self.known.borrow();
        for entry in table.entries.iter().filter(|entry| !known.contains(&entry.key)) {
            let fix = nearest(&entry.key, known.iter().map(String::as_str))
                .map_or_else(|| format!("keys here: {}", known.join(", ")), |near| format!("did you mean `{near}`?"));
            self.reader.problem(entry.key_place, format!("unknown key `{}`", self.key(&entry.key)), &fix);
        }
    }
}

/// The strings of a list, each with its place.
pub(in crate::config) fn words_of(reader: &Reader<'_>, key: &str, node: &Node) -> Vec<Word> {
    let Value::Array(items) = &node.value else {
        let message = format!("`{key}` must be a list of strings, not {}", node.value.kind());
        reader.problem(node.place, message, "write [\"...\"]");
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
