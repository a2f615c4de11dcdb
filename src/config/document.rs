use toml::de::{DeTable, DeValue};

use crate::config::hint;
use crate::config::source::locate;
use crate::config::{Overrides, Problem, Report, Source};

/// Where a value stands: the source (0 is the file) and the byte range in its text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::config) struct Place {
    pub source: usize,
    pub start: usize,
    pub end: usize,
}

/// A TOML value with its place.
#[derive(Clone, Debug)]
pub(in crate::config) struct Node {
    pub value: Value,
    pub place: Place,
}

#[derive(Clone, Debug)]
pub(in crate::config) enum Value {
    Text(String),
    Integer(i64),
    Boolean(bool),
    Array(Vec<Node>),
    Table(Table),
    /// A kind of value that no key takes, by name.
    Other(&'static str),
}

impl Value {
    /// The kind of value, with its article.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Text(_) => "a string",
            Self::Integer(_) => "an integer",
            Self::Boolean(_) => "a boolean",
            Self::Array(_) => "a list",
            Self::Table(_) => "a table",
            Self::Other(kind) => kind,
        }
    }
}

/// Entries in the order of the file.
#[derive(Clone, Debug, Default)]
pub(in crate::config) struct Table {
    pub entries: Vec<Entry>,
}

#[derive(Clone, Debug)]
pub(in crate::config) struct Entry {
    pub key: String,
    pub key_place: Place,
    pub node: Node,
}

impl Table {
    pub fn get(&self, key: &str) -> Option<&Entry> {
        self.entries.iter().find(|entry| entry.key == key)
    }

    /// Where the key of this path stands; in a list of tables, in the last one.
    fn find(&self, path: &str) -> Option<Place> {
        let (first, rest) = path.split_once('.').map_or((path, None), |(first, rest)| (first, Some(rest)));
        let entry = self.get(first)?;
        let Some(rest) = rest else { return Some(entry.key_place) };
        match &entry.node.value {
            Value::Table(table) => table.find(rest),
            Value::Array(items) => match &items.last()?.value {
                Value::Table(table) => table.find(rest),
                _ => None,
            },
            _ => None,
        }
    }
}

/// A text that values come from: the file or an override.
#[derive(Clone, Debug)]
pub(in crate::config) struct Text {
    pub name: String,
    pub text: String,
}

/// The file with its overrides laid over it.
#[derive(Debug)]
pub(in crate::config) struct Document {
    pub texts: Vec<Text>,
    pub root: Table,
}

impl Document {
    /// Parses the file, then lays over it those overrides whose top-level key is in `own`. A key that is in no
    /// file's list (`all`) is a problem.
    pub fn parse(source: &Source, overrides: &Overrides, own: &[&str], all: &[&str]) -> (Self, Vec<Problem>) {
        let file = Text { name: source.name.clone(), text: source.text.clone() };
        let mut document = Self { texts: vec![file], root: Table::default() };
        let mut problems = Vec::new();
        let (parsed, errors) = DeTable::parse_recoverable(&source.text);
        let recovered = table(0, parsed.get_ref());
        let mut twice: Vec<String> = Vec::new();
        let syntax = errors.iter().filter_map(|error| {
            let span = error.span().unwrap_or(source.text.len()..source.text.len());
            let place = Place { source: 0, start: span.start, end: span.end };
            if error.message() == "duplicate key" {
                return document.duplicate(place, &recovered, &mut twice);
            }
            let rest = source.text.get(span.start..).unwrap_or("");
            let fix = hint::syntax(error.message(), rest);
            Some(document.problem(place, format!("not TOML: {}", error.message()), fix))
        });
        let mut syntax = Report::sorted(syntax.collect()).problems;
        // What follows on the same line is nearly always an echo of the first error.
        syntax.dedup_by_key(|problem| problem.line);
        syntax.truncate(20);
        if !syntax.is_empty() {
            return (document, syntax);
        }
        document.root = recovered;
        if document.root.entries.is_empty() {
            problems.push(document.problem(
                Place::default(),
                "the file is empty".to_owned(),
                "restore it from a copy, or start from the file of this name in conf/",
            ));
            return (document, problems);
        }
        for (name, key, value) in overrides.in_order() {
            let top = key.split('.').next().unwrap_or("");
            let owned = own.contains(&top);
            if !owned && all.contains(&top) {
                continue;
            }
            let index = document.texts.len();
            document.texts.push(Text { name, text: value });
            let place = Place { source: index, start: 0, end: 0 };
            if !owned {
                let fix = hint::nearest(top, all.iter().copied()).map_or_else(
                    || format!("use one of: {}", all.join(", ")),
                    |near| format!("did you mean `{near}`?"),
                );
                problems.push(document.problem(place, format!("`{key}` is no key of any file"), &fix));
                continue;
            }
            match override_value(index, &document.texts[index].text) {
                Ok(node) => {
                    let segments: Vec<&str> = key.split('.').collect();
                    if let Err(message) = insert(&mut document.root, &segments, node) {
                        problems.push(document.problem(place, message, "give the whole table or list instead"));
                    }
                }
                Err(message) => problems.push(document.problem(
                    place,
                    format!("the value of `{key}` is not TOML: {message}"),
                    "quote strings, and quote the whole argument for the shell",
                )),
            }
        }
        (document, problems)
    }

    /// A key or table that stands twice, with the first place. What a table that stands twice repeats is no news:
    /// the headers of such tables are remembered in `twice`.
    fn duplicate(&self, place: Place, recovered: &Table, twice: &mut Vec<String>) -> Option<Problem> {
        let text = &self.texts[0].text;
        let key = text.get(place.start..place.end)?.trim_matches('"').to_owned();
        let start = text[..place.start].rfind('\n').map_or(0, |at| at + 1);
        let is_header = |line: &str| line.trim_start().starts_with('[');
        let name = |line: &str| line.trim().trim_matches(['[', ']']).to_owned();
        let line = text[start..].lines().next().unwrap_or("");
        let path = if is_header(line) {
            let header = name(line.split(']').next().unwrap_or(line));
            twice.push(header.clone());
            header
        } else {
            let header = text[..start].lines().rev().find(|line| is_header(line)).map(name).unwrap_or_default();
            if twice.contains(&header) {
                return None;
            }
            if header.is_empty() { key.clone() } else { format!("{header}.{key}") }
        };
        // A table that comes again takes the place of the first one in what the parser could save.
        let saved = recovered.find(&path).map(|first| first.start).filter(|first| *first < place.start);
        let written = || text[..start].find(&format!("[{path}]")).map(|at| at + 1);
        let first = saved.or_else(written).map_or_else(String::new, |first| {
            let (line, column, _) = locate(text, first);
            format!("; first at {}:{line}:{column}", self.texts[0].name)
        });
        let fix = if is_header(line) { "put the keys of both into one table" } else { "keep one of the two" };
        Some(self.problem(place, format!("`{path}` stands twice{first}"), fix))
    }

    /// A problem at a place.
    pub fn problem(&self, place: Place, message: String, fix: &str) -> Problem {
        let text = &self.texts[place.source];
        let (line, column, excerpt) =
            if place.source == 0 { locate(&text.text, place.start) } else { (0, 0, String::new()) };
        let offending = text.text.get(place.start..place.end).unwrap_or("").to_owned();
        Problem { file: text.name.clone(), line, column, excerpt, offending, message, fix: fix.to_owned() }
    }
}

/// An override's value: TOML, or a bare word that is taken as a string where no bracket or quote says otherwise.
fn override_value(source: usize, text: &str) -> Result<Node, String> {
    match DeValue::parse(text) {
        Ok(value) => Ok(node(source, &value)),
        Err(_) if !text.trim_start().starts_with(['[', '{', '"', '\'']) => {
            Ok(Node { value: Value::Text(text.to_owned()), place: Place { source, start: 0, end: text.len() } })
        }
        Err(error) => Err(error.message().to_owned()),
    }
}

/// Puts a value at a key path; lists take an index or, for servers, a handle.
fn insert(table: &mut Table, segments: &[&str], node: Node) -> Result<(), String> {
    let [first, rest @ ..] = segments else { return Err("the key is empty".to_owned()) };
    if first.is_empty() {
        return Err("the key has an empty part".to_owned());
    }
    let position = table.entries.iter().position(|entry| entry.key == *first);
    if rest.is_empty() {
        let entry = Entry { key: (*first).to_owned(), key_place: node.place, node };
        match position {
            Some(at) => table.entries[at] = entry,
            None => table.entries.push(entry),
        }
        return Ok(());
    }
    let at = position.unwrap_or_else(|| {
        let empty = Node { value: Value::Table(Table::default()), place: node.place };
        table.entries.push(Entry { key: (*first).to_owned(), key_place: node.place, node: empty });
        table.entries.len() - 1
    });
    match &mut table.entries[at].node.value {
        Value::Table(inner) => insert(inner, rest, node),
        Value::Array(items) => {
            let found = items.iter().position(|item| match &item.value {
                Value::Table(inner) => inner
                    .get("handle")
                    .is_some_and(|entry| matches!(&entry.node.value, Value::Text(handle) if handle == rest[0])),
                _ => false,
            });
            let index = found.or_else(|| rest[0].parse::<usize>().ok()).filter(|index| *index < items.len());
            match (index.map(|index| &mut items[index]), rest) {
                (Some(item), [_]) => {
                    *item = node;
                    Ok(())
                }
                (Some(Node { value: Value::Table(inner), .. }), [_, deeper @ ..]) => insert(inner, deeper, node),
                _ => Err(format!("`{first}` has no entry `{}`", rest[0])),
            }
        }
        other => Err(format!("`{first}` is {}, not a table", other.kind())),
    }
}

fn node(source: usize, spanned: &toml::Spanned<DeValue<'_>>) -> Node {
    let span = spanned.span();
    let value = match spanned.get_ref() {
        DeValue::String(text) => Value::Text(text.to_string()),
        DeValue::Integer(integer) => i64::from_str_radix(integer.as_str(), integer.radix())
            .map_or(Value::Other("an integer of more than 64 bits"), Value::Integer),
        DeValue::Float(_) => Value::Other("a float"),
        DeValue::Boolean(boolean) => Value::Boolean(*boolean),
        DeValue::Datetime(_) => Value::Other("a date"),
        DeValue::Array(items) => Value::Array(items.iter().map(|item| node(source, item)).collect()),
        DeValue::Table(inner) => Value::Table(table(source, inner)),
    };
    Node { value, place: Place { source, start: span.start, end: span.end } }
}

fn table(source: usize, raw: &DeTable<'_>) -> Table {
    let mut entries: Vec<Entry> = raw
        .iter()
        .map(|(key, value)| {
            let span = key.span();
            Entry {
                key: key.get_ref().to_string(),
                key_place: Place { source, start: span.start, end: span.end },
                node: node(source, value),
            }
        })
        .collect();
    // The parser's map is sorted by key, and the order of scopes matters.
    entries.sort_by_key(|entry| entry.key_place.start);
    Table { entries }
}
