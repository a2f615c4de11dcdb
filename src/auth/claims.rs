use serde::Deserialize;
use serde_json::Value;

/// The claims that are read; others are ignored.
#[derive(Debug, Deserialize)]
pub(in crate::auth) struct Claims {
    pub sub: Option<Value>,
    pub scopes: Option<Value>,
    pub user_id: Option<Value>,
    pub iss: Option<Value>,
    pub aud: Option<Value>,
    pub exp: Option<Value>,
    pub nbf: Option<Value>,
    pub iat: Option<Value>,
    pub jti: Option<Value>,
}

impl Claims {
    /// An array of strings, or one comma-separated string; anything else is no scope at all (emcp.md 2.2).
    pub fn scope_list(&self) -> Vec<String> {
        match &self.scopes {
            Some(Value::String(text)) => {
                text.split(',').map(str::trim).filter(|scope| !scope.is_empty()).map(str::to_owned).collect()
            }
            Some(Value::Array(items)) => items.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
            _ => Vec::new(),
        }
    }

    /// A positive number, also written as a string.
    pub fn user(&self) -> Option<u64> {
        let id = match self.user_id.as_ref()? {
            Value::Number(number) => number.as_u64()?,
            Value::String(text) => text.parse().ok()?,
            _ => return None,
        };
        (id > 0).then_some(id)
    }

    /// Whether `audience` is the token's audience, or one of them.
    pub fn is_for(&self, audience: &str) -> bool {
        match &self.aud {
            Some(Value::String(one)) => one == audience,
            Some(Value::Array(many)) => many.iter().any(|one| one.as_str() == Some(audience)),
            _ => false,
        }
    }
}

/// A claim in Unix seconds: absent, a number (fractions are cut), or something that is no time.
pub(in crate::auth) fn seconds(claim: Option<&Value>) -> Result<Option<f64>, ()> {
    match claim {
        None => Ok(None),
        Some(Value::Number(number)) => number.as_f64().map(Some).ok_or(()),
        Some(_) => Err(()),
    }
}
