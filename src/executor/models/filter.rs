//! `filters = {where: [{field, op, value}]}`: all must hold; raw SQL has no way in.

use serde_json::{Value, json};

use crate::executor::argument::{Arguments, Invalid, MOST_NEEDLE, shown};
use crate::store::model::{Field, Filter, Kind, Model, Scalar, Test};
use crate::store::text::{Anchor, Comparison};

/// How many conditions one call may have.
const MOST: usize = 20;
/// How many values one `in` may have.
const MOST_VALUES: usize = 200;

pub(super) fn schema() -> Value {
    json!({
        "type": ["object", "null"],
        "description": "Conditions that all must hold.",
        "properties": {"where": {"type": "array", "maxItems": MOST, "items": {
            "type": "object",
            "properties": {
                "field": {"type": "string"},
                "op": {"type": "string", "enum": [
                    "=", "!=", ">", ">=", "<", "<=", "in", "not_in", "like", "like-l", "like-r", "null", "!null",
                ]},
                "value": {},
            },
            "required": ["field", "op"],
        }}},
    })
}

/// The rules: an object with an array.
pub(super) fn rules<'a>(arguments: &mut Arguments<'a>) -> &'a [Value] {
    let Some(value) = arguments.value("filters") else { return &[] };
    match value {
        Value::Array(list) if list.is_empty() => &[],
        Value::Object(object) => match object.get("where") {
            _ if object.keys().any(|key| key != "where") => {
                arguments.broken("The filters field may hold where only.".to_owned());
                &[]
            }
            None | Some(Value::Null) => &[],
            Some(Value::Array(list)) => list,
            Some(_) => {
                arguments.broken("The filters.where field must be an array.".to_owned());
                &[]
            }
        },
        Value::Array(_) => {
            arguments.broken("The filters field may hold where only.".to_owned());
            &[]
        }
        _ => {
            arguments.broken("The filters field must be an array.".to_owned());
            &[]
        }
    }
}

/// The meaning, against the model.
pub(super) fn read(model: &Model, list: &[Value]) -> Result<Vec<Filter>, Invalid> {
    if list.len() > MOST {
        return Err(invalid(format!("more than {MOST} conditions")));
    }
    list.iter().map(|condition| one(model, condition)).collect()
}

fn one(model: &Model, condition: &Value) -> Result<Filter, Invalid> {
    let Some(condition) = condition.as_object() else { return Err(invalid("each condition must be an object")) };
    let text = |key: &str| condition.get(key).and_then(Value::as_str).map(str::trim);
    let name = text("field").ok_or_else(|| invalid("a condition needs a field"))?;
    let field =
        model.field(name).ok_or_else(|| invalid(format!("field {} is not allowed for {}", shown(name), model.name)))?;
    let op = text("op").ok_or_else(|| invalid("a condition needs an op"))?;
    let value = condition.get("value").unwrap_or(&Value::Null);
    if holds_nul(value) {
        return Err(invalid("a value must not hold U+0000"));
    }
    let compare = |comparison| Ok(Test::Compare(comparison, scalar(field, value)?));
    let like = |anchor| Ok(Test::Like(anchor, needle(value)?));
    let test = match op.to_ascii_lowercase().as_str() {
        "=" => compare(Comparison::Equal),
        "!=" => compare(Comparison::NotEqual),
        ">" => compare(Comparison::Greater),
        ">=" => compare(Comparison::GreaterOrEqual),
        "<" => compare(Comparison::Less),
        "<=" => compare(Comparison::LessOrEqual),
        "in" => Ok(Test::In(members(field, value)?)),
        "not_in" => Ok(Test::NotIn(members(field, value)?)),
        "like" => like(Anchor::Anywhere),
        "like-l" => like(Anchor::End),
        "like-r" => like(Anchor::Start),
        "null" => Ok(Test::Null),
        "!null" => Ok(Test::NotNull),
        _ => Err(invalid(format!("operator {} is not known", shown(op)))),
    }?;
    Ok(Filter { field, test })
}

/// A scalar as the field's kind; numbers and flags are compared as such, so their texts must be numbers.
fn scalar((name, kind): Field, value: &Value) -> Result<Scalar, Invalid> {
    let text = plain(value).ok_or_else(|| invalid(format!("field {name} needs a scalar value")))?;
    let number = || text.trim().parse::<i64>().map_err(|_| invalid(format!("field {name} needs an integer value")));
    match kind {
        Kind::Integer => Ok(Scalar::Integer(number()?)),
        Kind::Flag => match number()? {
            0 => Ok(Scalar::Flag(false)),
            1 => Ok(Scalar::Flag(true)),
            _ => Err(invalid(format!("field {name} needs 0 or 1"))),
        },
        Kind::Text | Kind::Missing => Ok(Scalar::Text(text)),
    }
}

fn members(field: Field, value: &Value) -> Result<Vec<Scalar>, Invalid> {
    let parts: Vec<String> = match value {
        Value::String(text) => text.split(',').map(str::to_owned).collect(),
        Value::Array(list) => {
            list.iter().map(plain).collect::<Option<_>>().ok_or_else(|| invalid("in needs scalars"))?
        }
        _ => return Err(invalid("in needs an array or a comma-separated string")),
    };
    let values: Vec<Scalar> = parts
        .iter()
        .map(|part| part.trim())
        .filter(|part| !part.is_empty())
        .map(|part| scalar(field, &Value::from(part)))
        .collect::<Result<_, _>>()?;
    match values.len() {
        0 => Err(invalid("in needs at least one value")),
        count if count > MOST_VALUES => Err(invalid(format!("in takes at most {MOST_VALUES} values"))),
        _ => Ok(values),
    }
}

fn needle(value: &Value) -> Result<String, Invalid> {
    let text =
        plain(value).filter(|text| !text.is_empty()).ok_or_else(|| invalid("like needs a value that is not empty"))?;
    if text.len() > MOST_NEEDLE { Err(invalid(format!("like takes at most {MOST_NEEDLE} bytes"))) } else { Ok(text) }
}

/// SQLite ends a pattern at U+0000 and so matches everything; PostgreSQL knows no such text.
fn holds_nul(value: &Value) -> bool {
    match value {
        Value::String(text) => text.contains('\0'),
        Value::Array(list) => list.iter().any(holds_nul),
        _ => false,
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

fn invalid(reason: impl std::fmt::Display) -> Invalid {
    Invalid::one(format!("The filters field is invalid: {reason}."))
}
