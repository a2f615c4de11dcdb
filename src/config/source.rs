use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::config::{Problem, Report};

/// The text of one configuration file, and where it came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// Shown in problems.
    pub name: String,
    /// What relative paths inside the file are resolved against.
    pub base: PathBuf,
    pub text: String,
}

impl Source {
    /// Reads a file.
    ///
    /// # Errors
    /// When it cannot be read or is not UTF-8; the report points at the first bad byte.
    pub fn read(path: &Path) -> Result<Self, Report> {
        let name = path.display().to_string();
        let bytes = std::fs::read(path)
            .map_err(|error| Report::of(&name, format!("the file cannot be read: {error}"), "check path and rights"))?;
        Self::from_bytes(path, bytes)
    }

    /// Takes the bytes of the file at `path`.
    ///
    /// # Errors
    /// When they are not UTF-8.
    pub fn from_bytes(path: &Path, bytes: Vec<u8>) -> Result<Self, Report> {
        let name = path.display().to_string();
        let base = match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
            _ => PathBuf::from("."),
        };
        match String::from_utf8(bytes) {
            Ok(text) => Ok(Self { name, base, text }),
            Err(error) => {
                let valid = error.utf8_error().valid_up_to();
                let text = String::from_utf8_lossy(error.as_bytes()).into_owned();
                let (line, column, excerpt) = locate(&text, valid);
                Err(Report {
                    problems: vec![Problem {
                        file: name,
                        line,
                        column,
                        excerpt,
                        offending: String::from("\u{fffd}"),
                        message: "the file is not UTF-8".to_owned(),
                        fix: "save it as UTF-8".to_owned(),
                    }],
                })
            }
        }
    }

    /// A text that is part of the program; relative paths in it are resolved against `base`.
    #[must_use]
    pub fn embedded(name: &str, text: &str, base: &Path) -> Self {
        Self { name: name.to_owned(), base: base.to_owned(), text: text.to_owned() }
    }
}

/// What overrides the files: built-in values first, then the environment, then `--set`; the last one wins.
///
/// The environment is taken whole, since secrets are looked up in it by name.
#[derive(Clone, Default)]
pub struct Overrides {
    /// Defaults of a subcommand such as `up`: key path, TOML value.
    pub builtin: Vec<(String, String)>,
    pub environment: BTreeMap<String, String>,
    /// `--set`: key path, TOML value.
    pub set: Vec<(String, String)>,
    /// Servers with `transport = "local"` are served as well (`stdio`).
    pub local_servers: bool,
}

impl Overrides {
    /// The process's environment, and these `--set` pairs. Variables that are not UTF-8 are left out.
    #[must_use]
    pub fn from_process(set: Vec<(String, String)>) -> Self {
        let environment =
            std::env::vars_os().filter_map(|(k, v)| Some((k.into_string().ok()?, v.into_string().ok()?))).collect();
        Self { builtin: Vec::new(), environment, set, local_servers: false }
    }

    /// Adds built-in values.
    #[must_use]
    pub fn with_builtin(mut self, values: &[(&str, &str)]) -> Self {
        self.builtin.extend(values.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())));
        self
    }

    /// All of them in the order in which they apply: (shown name, key path, value).
    pub(in crate::config) fn in_order(&self) -> Vec<(String, String, String)> {
        let builtin = self.builtin.iter().map(|(key, value)| (format!("built-in {key}"), key.clone(), value.clone()));
        let environment = self.environment.iter().filter_map(|(name, value)| {
            let key = name.strip_prefix("MCP_SIDECAR__")?.to_lowercase().replace("__", ".");
            Some((name.clone(), key, value.clone()))
        });
        let set = self.set.iter().map(|(key, value)| (format!("--set {key}"), key.clone(), value.clone()));
        builtin.chain(environment).chain(set).collect()
    }
}

/// Splits the argument of `--set` at its first `=`.
///
/// # Errors
/// A text for the user when there is no `=` or no key.
pub fn parse_set(argument: &str) -> Result<(String, String), String> {
    match argument.split_once('=') {
        Some((key, value)) if !key.trim().is_empty() => Ok((key.trim().to_owned(), value.trim().to_owned())),
        _ => Err(format!("{argument:?} is not key.path=value")),
    }
}

/// Line and column (from 1, in characters) of a byte offset, and that line's text.
pub(in crate::config) fn locate(text: &str, offset: usize) -> (u32, u32, String) {
    let mut offset = offset.min(text.len());
    while !text.is_char_boundary(offset) {
        offset -= 1;
    }
    let start = text[..offset].rfind('\n').map_or(0, |at| at + 1);
    let line = text[..offset].matches('\n').count() + 1;
    let column = text[start..offset].chars().count() + 1;
    let excerpt = text[start..].lines().next().unwrap_or("").to_owned();
    (u32::try_from(line).unwrap_or(u32::MAX), u32::try_from(column).unwrap_or(u32::MAX), excerpt)
}
