//! The arguments that concern template variables: `with_tvs`, `tv_filters`, `tv_order`, `tags_data` (emcp.md 8.7).
//!
//! Names, operators, directions and casts are closed lists or a narrow alphabet; the short forms that the CMS's own
//! query language packs into one string are refused: a filter is an object, and `:` and `;` stand in no value.

use serde_json::{Map, Value, json};

use crate::executor::argument::{Arguments, Invalid, MOST_NEEDLE, direction, shown};
use crate::store::text::{Anchor, Cast, Comparison};
use crate::store::variable::{Filter, Output, Sort, Tags, Test};

/// How many filters, and how many terms to sort by, one call may have.
const MOST: usize = 20;
/// How many variables one call may ask to see.
const MOST_OUTPUTS: usize = 100;
/// How many values one `in`, and how many tags one call may have.
const MOST_VALUES: usize = 200;
/// The longest whole part, and the longest fraction, of a number.
const MOST_DIGITS: usize = 30;
const OPERATORS: [&str; 13] =
    ["=", "!=", ">", ">=", "<", "<=", "in", "not_in", "like", "like-l", "like-r", "null", "!null"];

pub(super) fn with_tvs_schema() -> Value {
    json!({
        "type": ["array", "null"],
        "maxItems": MOST_OUTPUTS,
        "items": {"type": "string"},
        "description": "Template variables to add to each document as tvs: name, or name:d for its default where unset.",
    })
}

pub(super) fn tv_filters_schema() -> Value {
    json!({
        "type": ["array", "null"],
        "maxItems": MOST,
        "description": "Conditions on template variables that all must hold.",
        "items": {
            "type": "object",
            "properties": {
                "tv": {"type": "string"},
                "op": {"type": "string", "enum": OPERATORS},
                "value": {"description": "A scalar; for in and not_in an array or a comma-separated string."},
                "cast": {"type": ["string", "null"], "description": "UNSIGNED, SIGNED or DECIMAL(p,s): compare numbers."},
                "use_default": {"type": ["boolean", "null"], "description": "The default counts where unset."},
            },
            "required": ["tv", "op"],
        },
    })
}

pub(super) fn tv_order_schema() -> Value {
    json!({
        "type": ["array", "null"],
        "maxItems": MOST,
        "description": "Template variables to sort by, before order_by; unset ones are lowest.",
        "items": {
            "type": "object",
            "properties": {
                "tv": {"type": "string"},
                "dir": {"type": ["string", "null"], "description": "asc or desc."},
                "cast": {"type": ["string", "null"], "description": "UNSIGNED or SIGNED: sort as numbers."},
                "use_default": {"type": ["boolean", "null"]},
            },
            "required": ["tv"],
        },
    })
}

pub(super) fn tags_data_schema() -> Value {
    json!({
        "type": ["object", "null"],
        "description": "Documents that have one of these tags.",
        "properties": {
            "tv_id": {"type": "integer", "minimum": 1},
            "tags": {"type": "array", "minItems": 1, "maxItems": MOST_VALUES, "items": {"type": "string"}},
        },
        "required": ["tv_id", "tags"],
    })
}

/// `with_tvs` as the rules read it.
pub(super) struct Shown<'a>(Vec<&'a str>);

impl<'a> Shown<'a> {
    pub(super) fn read(arguments: &mut Arguments<'a>) -> Self {
        let mut entries = Vec::new();
        for (at, entry) in list(arguments, "with_tvs").iter().enumerate() {
            match entry {
                Value::String(entry) => entries.push(entry.trim()),
                Value::Null => {}
                _ => arguments.broken(format!("The with_tvs.{at} field must be a string.")),
            }
        }
        entries.retain(|entry| !entry.is_empty());
        Self(entries)
    }

    /// The meaning: one output for each name, with its default if that is asked for anywhere.
    pub(super) fn outputs(&self) -> Result<Vec<Output<String>>, Invalid> {
        let mut outputs: Vec<Output<String>> = Vec::new();
        for entry in &self.0 {
            let (name, default) = match entry.split_once(':') {
                None => (*entry, false),
                Some((name, "d")) => (name, true),
                Some(_) => ("", false),
            };
            if !is_name(name) {
                return Err(Invalid::one(format!("The with_tvs field has an invalid entry: {}.", shown(entry))));
            }
            match outputs.iter().position(|output| output.variable == name) {
                Some(at) => outputs[at].default |= default,
                None if outputs.len() == MOST_OUTPUTS => {
                    return Err(Invalid::one(format!("The with_tvs field takes at most {MOST_OUTPUTS} names.")));
                }
                None => outputs.push(Output { variable: name.to_owned(), default }),
            }
        }
        Ok(outputs)
    }
}

/// The other three, as the rules read them.
pub(super) struct Conditions<'a> {
    filters: Vec<Term<'a>>,
    sorts: Vec<Term<'a>>,
    tags: Option<(i64, &'a [Value])>,
}

/// One entry of `tv_filters` or `tv_order`.
#[derive(Default)]
struct Term<'a> {
    tv: &'a str,
    /// The operator or the direction.
    word: Option<&'a str>,
    value: Option<&'a Value>,
    cast: Option<&'a str>,
    use_default: bool,
}

impl<'a> Conditions<'a> {
    pub(super) fn read(arguments: &mut Arguments<'a>) -> Self {
        let filters = terms(arguments, "tv_filters", "op", true);
        let sorts = terms(arguments, "tv_order", "dir", false);
        Self { filters, sorts, tags: tags(arguments) }
    }

    pub(super) fn filters(&self) -> Result<Vec<Filter<String>>, Invalid> {
        self.filters.iter().map(filter).collect()
    }

    pub(super) fn sorts(&self) -> Result<Vec<Sort<String>>, Invalid> {
        self.sorts.iter().map(sort).collect()
    }

    pub(super) fn tags(&self) -> Result<Option<Tags>, Invalid> {
        let Some((variable, list)) = self.tags else { return Ok(None) };
        let invalid = |reason: &str| Invalid::one(format!("The tags_data field is invalid: {reason}."));
        if list.is_empty() || list.len() > MOST_VALUES {
            return Err(invalid(&format!("tags takes 1 to {MOST_VALUES} tags")));
        }
        let names = list.iter().map(|tag| {
            let tag = plain(tag).ok_or_else(|| invalid("each tag must be a text"))?;
            clean(tag.trim(), "a tag").map_err(|reason| invalid(&reason))
        });
        Ok(Some(Tags { variable, names: names.collect::<Result<_, _>>()? }))
    }
}

fn list<'a>(arguments: &mut Arguments<'a>, name: &str) -> &'a [Value] {
    match arguments.value(name) {
        None => &[],
        Some(Value::Array(list)) => list,
        Some(_) => {
            arguments.broken(format!("The {name} field must be an array."));
            &[]
        }
    }
}

fn terms<'a>(arguments: &mut Arguments<'a>, name: &str, word: &str, word_required: bool) -> Vec<Term<'a>> {
    let entries = list(arguments, name);
    if entries.len() > MOST {
        arguments.broken(format!("The {name} field must not have more than {MOST} entries."));
        return Vec::new();
    }
    let none = &Map::new();
    let mut terms = Vec::with_capacity(entries.len());
    for (at, entry) in entries.iter().enumerate() {
        let mut text = |key: &str, required: bool| match entry.as_object().unwrap_or(none).get(key) {
            None | Some(Value::Null) if required => {
                arguments.broken(format!("The {name}.{at}.{key} field is required."));
                None
            }
            None | Some(Value::Null) => None,
            Some(_) => match entry.get(key).and_then(Value::as_str) {
                Some(text) => Some(text.trim()),
                None => {
                    arguments.broken(format!("The {name}.{at}.{key} field must be a string."));
                    None
                }
            },
        };
        let tv = text("tv", true).unwrap_or_default();
        let word = text(word, word_required);
        let cast = text("cast", false);
        let use_default = match entry.get("use_default") {
            None | Some(Value::Null) => Some(false),
            Some(value) => Arguments::flag(value),
        };
        if use_default.is_none() {
            arguments.broken(format!("The {name}.{at}.use_default field must be true or false."));
        }
        let value = entry.get("value").filter(|value| !value.is_null());
        terms.push(Term { tv, word, value, cast, use_default: use_default.unwrap_or_default() });
    }
    terms
}

fn tags<'a>(arguments: &mut Arguments<'a>) -> Option<(i64, &'a [Value])> {
    let value = arguments.value("tags_data")?;
    let Value::Object(data) = value else {
        arguments.broken("The tags_data field must be an object.".to_owned());
        return None;
    };
    let variable = match data.get("tv_id").filter(|id| !id.is_null()).map(Arguments::whole) {
        None => {
            arguments.broken("The tags_data.tv_id field is required.".to_owned());
            0
        }
        Some(None) => {
            arguments.broken("The tags_data.tv_id field must be an integer.".to_owned());
            0
        }
        Some(Some(id)) if id < 1 => {
            arguments.broken("The tags_data.tv_id field must be at least 1.".to_owned());
            0
        }
        Some(Some(id)) => id,
    };
    match data.get("tags") {
        Some(Value::Array(list)) => Some((variable, list)),
        None | Some(Value::Null) => {
            arguments.broken("The tags_data.tags field is required.".to_owned());
            None
        }
        Some(_) => {
            arguments.broken("The tags_data.tags field must be an array.".to_owned());
            None
        }
    }
}

fn filter(term: &Term<'_>) -> Result<Filter<String>, Invalid> {
    let invalid = |reason: String| Invalid::one(format!("The tv_filters field is invalid: {reason}."));
    if !is_name(term.tv) {
        return Err(invalid(format!("{} is no name of a template variable", shown(term.tv))));
    }
    let word = term.word.unwrap_or_default().to_ascii_lowercase();
    let cast = term.cast.map(cast).transpose().map_err(invalid)?;
    let compare = |comparison| {
        let text = scalar(term)?;
        match cast {
            None => Ok(Test::Compare(comparison, text)),
            Some(cast) if is_number(&text) => Ok(Test::Number(comparison, cast, text)),
            Some(_) => Err(format!("cast needs a number, not {}", shown(&text))),
        }
    };
    let like = |anchor| match cast {
        Some(_) => Err("cast is for comparisons only".to_owned()),
        None => Ok(Test::Like(anchor, needle(term)?)),
    };
    let test = match word.as_str() {
        "=" => compare(Comparison::Equal),
        "!=" => compare(Comparison::NotEqual),
        ">" => compare(Comparison::Greater),
        ">=" => compare(Comparison::GreaterOrEqual),
        "<" => compare(Comparison::Less),
        "<=" => compare(Comparison::LessOrEqual),
        "in" => members(term).map(Test::In),
        "not_in" => members(term).map(Test::NotIn),
        "like" => like(Anchor::Anywhere),
        "like-l" => like(Anchor::End),
        "like-r" => like(Anchor::Start),
        "null" => Ok(Test::Null),
        "!null" => Ok(Test::NotNull),
        _ => Err(format!("operator {} is not known", shown(&word))),
    };
    Ok(Filter { variable: term.tv.to_owned(), test: test.map_err(invalid)?, use_default: term.use_default })
}

fn sort(term: &Term<'_>) -> Result<Sort<String>, Invalid> {
    let invalid = |reason: String| Invalid::one(format!("The tv_order field is invalid: {reason}."));
    if !is_name(term.tv) {
        return Err(invalid(format!("{} is no name of a template variable", shown(term.tv))));
    }
    let cast = term.cast.map(cast).transpose().map_err(invalid)?;
    if matches!(cast, Some(Cast::Decimal { .. })) {
        return Err(invalid("cast DECIMAL is for filters only".to_owned()));
    }
    let order = direction("tv_order", term.word)?;
    Ok(Sort { variable: term.tv.to_owned(), order, cast, use_default: term.use_default })
}

/// `UNSIGNED`, `SIGNED` or `DECIMAL(p,s)`, within what every engine can hold.
fn cast(text: &str) -> Result<Cast, String> {
    let unknown = || format!("cast {} is not known", shown(text));
    let upper = text.to_ascii_uppercase();
    match upper.as_str() {
        "UNSIGNED" => return Ok(Cast::Unsigned),
        "SIGNED" => return Ok(Cast::Signed),
        _ => {}
    }
    let inner = upper.strip_prefix("DECIMAL(").and_then(|rest| rest.strip_suffix(')')).ok_or_else(unknown)?;
    let (precision, scale) = inner.split_once(',').ok_or_else(unknown)?;
    let digits = |part: &str| -> Result<u8, String> {
        let plain = matches!(part.len(), 1 | 2) && part.bytes().all(|byte| byte.is_ascii_digit());
        if plain { part.parse().map_err(|_| unknown()) } else { Err(unknown()) }
    };
    let (precision, scale) = (digits(precision)?, digits(scale)?);
    if (1..=65).contains(&precision) && scale <= precision.min(30) {
        Ok(Cast::Decimal { precision, scale })
    } else {
        Err(format!("cast {} is out of range", shown(text)))
    }
}

fn scalar(term: &Term<'_>) -> Result<String, String> {
    let text = term.value.and_then(plain).ok_or("a scalar value is needed")?;
    clean(text.trim(), "the value")
}

fn needle(term: &Term<'_>) -> Result<String, String> {
    let text = term.value.and_then(plain).ok_or("a scalar value is needed")?;
    if text.trim().is_empty() {
        return Err("the value must not be empty".to_owned());
    }
    if text.len() > MOST_NEEDLE {
        return Err(format!("like takes at most {MOST_NEEDLE} bytes"));
    }
    clean(&text, "the value")
}

fn members(term: &Term<'_>) -> Result<Vec<String>, String> {
    let parts: Vec<String> = match term.value {
        Some(Value::Array(list)) => list.iter().map(plain).collect::<Option<_>>().ok_or("in needs scalars")?,
        Some(value) => vec![plain(value).ok_or("in needs an array or a comma-separated string")?],
        None => Vec::new(),
    };
    let texts: Vec<String> = parts
        .iter()
        .flat_map(|part| part.split(','))
        .map(str::trim)
        .filter(|part| !part.is_empty())
        .map(|part| clean(part, "a value"))
        .collect::<Result<_, _>>()?;
    match texts.len() {
        0 => Err("in needs at least one value".to_owned()),
        count if count > MOST_VALUES => Err(format!("in takes at most {MOST_VALUES} values")),
        _ => Ok(texts),
    }
}

/// A text that is there, has none of the marks of the CMS's query language, and fits every engine.
fn clean(text: &str, what: &str) -> Result<String, String> {
    if text.is_empty() {
        Err(format!("{what} must not be empty"))
    } else if text.contains([':', ';', '\0']) {
        Err(format!("{what} must not contain : or ;"))
    } else {
        Ok(text.to_owned())
    }
}

fn plain(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(flag) => Some(u8::from(*flag).to_string()),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}

/// An optional minus, digits, and an optional fraction.
fn is_number(text: &str) -> bool {
    let digits = |part: &str| (1..=MOST_DIGITS).contains(&part.len()) && part.bytes().all(|byte| byte.is_ascii_digit());
    let text = text.strip_prefix('-').unwrap_or(text);
    text.split_once('.').map_or_else(|| digits(text), |(whole, fraction)| digits(whole) && digits(fraction))
}

fn is_name(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-'))
}
