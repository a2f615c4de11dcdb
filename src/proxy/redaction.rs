//! Request targets and other text of clients as the access log may show them.

use std::borrow::Cow;

use crate::policy::Redactor;

/// What a secret's value is replaced by.
const HIDDEN: &str = "[REDACTED]";
/// A parameter is secret when one of these is a word of its name.
const WORDS: [&str; 13] =
    ["key", "code", "auth", "authorization", "sid", "sig", "state", "pwd", "pass", "otp", "pin", "ticket", "nonce"];
/// A parameter is secret when one of these stands anywhere in its name.
const PARTS: [&str; 8] = ["token", "secret", "passw", "jwt", "apikey", "sess", "signature", "credential"];

/// A target or URL without secrets: user information, parameters that are secret by their name or by
/// `logging.redact_keys` (of the query or of a path segment), and whatever looks like a token.
#[must_use]
pub fn target<'a>(text: &'a str, redactor: &Redactor) -> Cow<'a, str> {
    if !text.contains(['?', ';', '=', '@']) {
        return tokens(text);
    }
    let (path, query) = text.split_once('?').map_or((text, None), |(path, query)| (path, Some(query)));
    let (scheme, rest) = path.find("://").map_or(("", path), |at| path.split_at(at + 3));
    let (authority, rest) = rest.split_at(if scheme.is_empty() { 0 } else { rest.find('/').unwrap_or(rest.len()) });
    let mut shown = scheme.to_owned();
    match authority.rsplit_once('@') {
        Some((_, host)) => shown.extend([HIDDEN, "@", host]),
        None => shown.push_str(authority),
    }
    for (index, segment) in rest.split('/').enumerate() {
        shown.push_str(if index > 0 { "/" } else { "" });
        parameters(segment, redactor, &mut shown);
    }
    for (index, piece) in query.into_iter().flat_map(|query| query.split('&')).enumerate() {
        shown.push(if index > 0 { '&' } else { '?' });
        parameters(piece, redactor, &mut shown);
    }
    Cow::Owned(tokens(&shown).into_owned())
}

/// A target on an MCP route, where a query means nothing: none of it is kept. Nor is the handle of a server that does
/// not exist, which is whatever the client put there.
#[must_use]
pub fn mcp_target(text: &str, unknown: Option<&str>) -> String {
    let (path, query) = text.split_once('?').map_or((text, ""), |(path, _)| (path, "?[REDACTED]"));
    let (before, after) = unknown.and_then(|handle| path.rsplit_once(handle)).unwrap_or((path, ""));
    let handle = if unknown.is_some() { "unknown" } else { "" };
    format!("{}{handle}{after}{query}", tokens(before))
}

/// Adds `name=value;name=value`. Behind a secret name everything is hidden, as its value may hold semicolons.
fn parameters(piece: &str, redactor: &Redactor, shown: &mut String) {
    for (index, pair) in piece.split(';').enumerate() {
        shown.push_str(if index > 0 { ";" } else { "" });
        match pair.split_once('=') {
            Some((name, _)) if is_secret(name, redactor) => {
                shown.extend([name, "=", HIDDEN]);
                return;
            }
            Some((name, value)) if holds_parameters(value) => shown.extend([name, "=", HIDDEN]),
            _ => shown.push_str(pair),
        }
    }
}

/// A name in percent-encoding counts as secret: what it says is in the eye of its reader. Of `a[b][c]`, as PHP reads
/// it, each part may be what `logging.redact_keys` names.
fn is_secret(name: &str, redactor: &Redactor) -> bool {
    let name = name.to_ascii_lowercase();
    name.contains('%')
        || name.split(['[', ']', '?', '#']).any(|part| redactor.covers(part.trim_matches(['+', ' '])))
        || PARTS.iter().any(|part| name.contains(part))
        || name.split(|c: char| !c.is_ascii_alphanumeric()).any(|word| WORDS.contains(&word))
        || name.replace(['-', '_'], "").contains("apikey")
}

/// Whether a value is itself an address with a secret in it.
fn holds_parameters(value: &str) -> bool {
    let value = value.to_ascii_lowercase();
    (value.contains('=') || value.contains("%3d")) && PARTS.iter().any(|part| value.contains(part))
}

/// Text in which whatever looks like a signed token (`eyJ….….…`) is hidden.
#[must_use]
pub fn tokens(text: &str) -> Cow<'_, str> {
    let mut shown = String::new();
    let mut rest = text;
    while let Some(at) = rest.find("eyJ") {
        let (before, candidate) = rest.split_at(at);
        shown.push_str(before);
        let length = token_length(candidate);
        shown.push_str(if length > 0 { HIDDEN } else { "eyJ" });
        rest = &candidate[length.max(3)..];
    }
    if rest.len() == text.len() {
        return Cow::Borrowed(text);
    }
    shown.push_str(rest);
    Cow::Owned(shown)
}

/// The length of the token that the text begins with; 0 when it begins with none.
fn token_length(text: &str) -> usize {
    let part =
        |text: &str| text.bytes().take_while(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(byte)).count();
    let header = part(text);
    if header < 10 || text.as_bytes().get(header) != Some(&b'.') {
        return 0;
    }
    // A token cut short shows no less than a whole one.
    let mut length = header;
    while text.as_bytes().get(length) == Some(&b'.') {
        length += 1 + part(&text[length + 1..]);
    }
    length
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOKEN: &str = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJhIn0.c2lnbmF0dXJl-_";

    #[test]
    fn secrets_of_a_target_are_hidden_and_the_rest_is_kept() {
        let cases = [
            ("/page", "/page"),
            ("/page?a=1&b", "/page?a=1&b"),
            ("/?author=x&keyword=y&postcode=1", "/?author=x&keyword=y&postcode=1"),
            ("/x?a=1&Access-Token=s3&%74oken=s3&key", "/x?a=1&Access-Token=[REDACTED]&%74oken=[REDACTED]&key"),
            ("/x?token=a/b?c;d", "/x?token=[REDACTED]"),
            ("/x?a=1;client_secret=s3;b=2", "/x?a=1;client_secret=[REDACTED]"),
            ("/x?user[password]=s3&code=s3", "/x?user[password]=[REDACTED]&code=[REDACTED]"),
            ("/x;jsessionid=s3/y?z", "/x;jsessionid=[REDACTED]/y?z"),
            ("/x?next=/y%3Ftoken%3Ds3", "/x?next=[REDACTED]"),
            ("http://a:s3@host/x?b=1", "http://[REDACTED]@host/x?b=1"),
            ("http://host?x=a@b", "http://host?x=a@b"),
            ("/mail/a@b.test", "/mail/a@b.test"),
            ("/x?api-key=s3&X-Amz-Signature=s3", "/x?api-key=[REDACTED]&X-Amz-Signature=[REDACTED]"),
            ("?", "?"),
            ("", ""),
        ];
        for (sent, shown) in cases {
            assert_eq!(target(sent, &Redactor::default()), shown, "{sent}");
        }
    }

    #[test]
    fn the_policys_keys_are_hidden_beside_the_usual_ones() {
        let redactor = Redactor::new(&["Shoe".to_owned()]);
        for (sent, shown) in [
            ("/x?shoe=s3&shoes=4", "/x?shoe=[REDACTED]&shoes=4"),
            ("/x?SHOE=s3", "/x?SHOE=[REDACTED]"),
            ("/x?a[0][shoe]=s3;b=1", "/x?a[0][shoe]=[REDACTED]"),
            ("/x?user[password][]=s3", "/x?user[password][]=[REDACTED]"),
            ("/x?+shoe+=s3", "/x?+shoe+=[REDACTED]"),
            ("/x??shoe=s3", "/x??shoe=[REDACTED]"),
            ("/x#shoe=s3&a=1", "/x#shoe=[REDACTED]"),
            ("/x?a=1#access_token=s3", "/x?a=[REDACTED]"),
            ("/x?=&&=é", "/x?=&&=é"),
        ] {
            assert_eq!(target(sent, &redactor), shown, "{sent}");
        }
    }

    #[test]
    fn what_looks_like_a_token_is_hidden_anywhere() {
        for (sent, shown) in [
            (format!("/confirm/{TOKEN}/now"), "/confirm/[REDACTED]/now"),
            (format!("/x?q={TOKEN}&a=1"), "/x?q=[REDACTED]&a=1"),
            (format!("/x?q={TOKEN}.é"), "/x?q=[REDACTED]é"),
            ("/eyJ/eyJx.y".to_owned(), "/eyJ/eyJx.y"),
        ] {
            assert_eq!(target(&sent, &Redactor::default()), shown, "{sent}");
        }
        assert_eq!(tokens("eyJeyJeyJ"), "eyJeyJeyJ");
        assert_eq!(tokens(&format!("a ({TOKEN})")), "a ([REDACTED])");
    }

    #[test]
    fn an_mcp_target_keeps_no_query() {
        assert_eq!(mcp_target("/api/v1/mcp/content", None), "/api/v1/mcp/content");
        assert_eq!(mcp_target("/api/v1/mcp/content?a", None), "/api/v1/mcp/content?[REDACTED]");
        assert_eq!(mcp_target("/api/v1/mcp/s3?a", Some("s3")), "/api/v1/mcp/unknown?[REDACTED]");
        assert_eq!(mcp_target("/emcp/s3/dispatch", Some("s3")), "/emcp/unknown/dispatch");
        assert_eq!(mcp_target(&format!("/api/v2/mcp/{TOKEN}"), None), "/api/v2/mcp/[REDACTED]");
    }
}
