//! What a request says its body is.

use http::HeaderMap;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE};

use crate::policy::MediaType;

/// Reads `Content-Type` and `Content-Encoding`. A repeated or unreadable header is never [`MediaType::Json`].
#[must_use]
pub fn media_type(headers: &HeaderMap) -> MediaType {
    for coding in headers.get_all(CONTENT_ENCODING) {
        if !coding.to_str().is_ok_and(|text| text.trim().eq_ignore_ascii_case("identity")) {
            return MediaType::Encoded;
        }
    }
    let mut values = headers.get_all(CONTENT_TYPE).iter();
    let (Some(value), None) = (values.next(), values.next()) else { return MediaType::Other };
    let Ok(value) = value.to_str() else { return MediaType::Other };
    let value = value.trim().to_ascii_lowercase();
    if !value.starts_with("application/json") {
        return MediaType::Other;
    }
    let foreign_charset = value.split(';').skip(1).any(|parameter| {
        let (name, charset) = parameter.split_once('=').unwrap_or((parameter, ""));
        name.trim() == "charset" && !matches!(charset.trim().trim_matches('"'), "utf-8" | "utf8")
    });
    if foreign_charset { MediaType::Other } else { MediaType::Json }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn the_media_type_is_read_as_written_down() {
        let cases: [(Option<&str>, Option<&str>, MediaType); 14] = [
            (Some("application/json"), None, MediaType::Json),
            (Some(" Application/JSON "), None, MediaType::Json),
            (Some("application/json; charset=UTF-8"), None, MediaType::Json),
            (Some("application/json;charset=\"utf-8\"; x=y"), None, MediaType::Json),
            (Some("application/json-rpc"), None, MediaType::Json),
            (Some("application/json"), Some("identity"), MediaType::Json),
            (Some("application/json; charset=utf-16"), None, MediaType::Other),
            (Some("application/json; charset"), None, MediaType::Other),
            (Some("application/json; a=b; charset = latin1"), None, MediaType::Other),
            (Some("text/plain"), None, MediaType::Other),
            (Some("text/plain, application/json"), None, MediaType::Other),
            (None, None, MediaType::Other),
            (Some("application/json"), Some("gzip"), MediaType::Encoded),
            (Some("text/plain"), Some("identity, br"), MediaType::Encoded),
        ];
        for (content_type, coding, expected) in cases {
            let mut headers = HeaderMap::new();
            if let Some(value) = content_type {
                headers.insert(CONTENT_TYPE, HeaderValue::from_static(value));
            }
            if let Some(value) = coding {
                headers.insert(CONTENT_ENCODING, HeaderValue::from_static(value));
            }
            assert_eq!(media_type(&headers), expected, "{content_type:?} {coding:?}");
        }
    }
}
