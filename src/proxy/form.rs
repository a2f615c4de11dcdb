//! Name and password out of a request's body, as JSON or as a form.

use http::HeaderMap;
use http::header::CONTENT_TYPE;
use serde::Deserialize;

use crate::policy::MediaType;
use crate::proxy::media::media_type;

/// How a body is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Json,
    UrlEncoded,
}

/// What is asked for; other members are not looked at. Never shown: it holds a password.
#[derive(Default, Deserialize, PartialEq, Eq)]
pub struct Form {
    pub username: Option<String>,
    pub password: Option<String>,
}

/// How the body is said to be written; `None` for any other type or coding.
pub fn kind(headers: &HeaderMap) -> Option<Kind> {
    match media_type(headers) {
        MediaType::Json => return Some(Kind::Json),
        MediaType::Encoded => return None,
        MediaType::Other => {}
    }
    let mut values = headers.get_all(CONTENT_TYPE).iter();
    let (Some(value), None) = (values.next(), values.next()) else { return None };
    let essence = value.to_str().ok()?.split(';').next()?.trim();
    essence.eq_ignore_ascii_case("application/x-www-form-urlencoded").then_some(Kind::UrlEncoded)
}

/// Reads a body; `None` for one that is not well-formed, is not UTF-8, or gives a member twice.
pub fn read(kind: Kind, body: &[u8]) -> Option<Form> {
    match kind {
        Kind::Json => serde_json::from_slice(body).ok(),
        Kind::UrlEncoded => url_encoded(body),
    }
}

fn url_encoded(body: &[u8]) -> Option<Form> {
    let mut form = Form::default();
    for pair in body.split(|byte| *byte == b'&').filter(|pair| !pair.is_empty()) {
        let equals = memchr::memchr(b'=', pair).unwrap_or(pair.len());
        let place = match decode(&pair[..equals])?.as_str() {
            "username" => &mut form.username,
            "password" => &mut form.password,
            _ => continue,
        };
        if place.replace(decode(pair.get(equals + 1..).unwrap_or_default())?).is_some() {
            return None;
        }
    }
    Some(form)
}

fn decode(text: &[u8]) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.iter();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'+' => b' ',
            b'%' => {
                let mut digit = || char::from(*rest.next()?).to_digit(16);
                u8::try_from(digit()? * 16 + digit()?).ok()?
            }
            byte => *byte,
        });
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_give_name_and_password() {
        type Found = Option<(Option<&'static str>, Option<&'static str>)>;
        let cases: [(Kind, &str, Found); 16] = [
            (Kind::Json, r#"{"username":"a","password":"b"}"#, Some((Some("a"), Some("b")))),
            (Kind::Json, r#"{"username":"a","remember":1}"#, Some((Some("a"), None))),
            (Kind::Json, "{}", Some((None, None))),
            (Kind::Json, r#"{"username":null}"#, Some((None, None))),
            (Kind::Json, r#"{"username":7}"#, None),
            (Kind::Json, r#"{"username":"a","username":"b"}"#, None),
            (Kind::Json, r#"{"username":"a"} x"#, None),
            (Kind::Json, "", None),
            (Kind::UrlEncoded, "username=a+b&password=%D1%97%26", Some((Some("a b"), Some("ї&")))),
            (Kind::UrlEncoded, "password=b&user%6eame=a&x=y", Some((Some("a"), Some("b")))),
            (Kind::UrlEncoded, "username", Some((Some(""), None))),
            (Kind::UrlEncoded, "", Some((None, None))),
            (Kind::UrlEncoded, "username=a&username=b", None),
            (Kind::UrlEncoded, "username=%ff", None),
            (Kind::UrlEncoded, "username=%f", None),
            (Kind::UrlEncoded, "username=%+1", None),
        ];
        for (kind, body, expected) in cases {
            let form = read(kind, body.as_bytes());
            let found = form.as_ref().map(|form| (form.username.as_deref(), form.password.as_deref()));
            assert!(found == expected, "{kind:?} {body}");
        }
    }

    #[test]
    fn other_types_are_not_read() {
        let cases = [
            ("application/json; charset=utf-8", Some(Kind::Json)),
            ("Application/X-WWW-Form-Urlencoded; charset=UTF-8", Some(Kind::UrlEncoded)),
            ("multipart/form-data; boundary=x", None),
            ("text/plain", None),
        ];
        for (value, expected) in cases {
            let mut headers = HeaderMap::new();
            headers.insert(CONTENT_TYPE, http::HeaderValue::from_static(value));
            assert_eq!(kind(&headers), expected, "{value}");
            headers.insert(http::header::CONTENT_ENCODING, http::HeaderValue::from_static("gzip"));
            assert_eq!(kind(&headers), None, "{value}");
        }
    }
}
