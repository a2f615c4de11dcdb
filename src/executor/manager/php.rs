//! What a PHP session says about the manager, read as PHP itself reads it: by lengths, never by search. A visitor may
//! have text in a session that looks like the rest of one.

/// Nesting beyond this is refused.
const MAX_DEPTH: usize = 64;

/// A manager's user as a session tells of one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::executor) struct Login {
    pub user: u64,
    /// The token that forms of this session carry.
    pub csrf: Option<String>,
}

/// Reads a session; `None` when it is malformed, or nobody is logged in to the manager.
///
/// Both forms are read: `name|value` one after the other, and one array.
pub(in crate::executor) fn login(session: &[u8]) -> Option<Login> {
    let variables = variables(session)?;
    let once = |name: &str| {
        let mut found = variables.iter().filter(|(known, _)| *known == name.as_bytes()).map(|(_, value)| value);
        // Twice is as good as never: readers might take different ones.
        found.next().filter(|_| found.next().is_none())
    };
    let validated = match once("mgrValidated")? {
        Value::Boolean(value) => *value,
        Value::Integer(value) => *value != 0,
        Value::Text(value) => !value.is_empty() && *value != b"0",
        Value::Other => false,
    };
    if !validated || !matches!(once("usertype")?, Value::Text(b"manager")) {
        return None;
    }
    let user = match once("mgrInternalKey")? {
        Value::Integer(value) => u64::try_from(*value).ok()?,
        Value::Text(digits) if digits.iter().all(u8::is_ascii_digit) => {
            std::str::from_utf8(digits).ok()?.parse().ok()?
        }
        _ => return None,
    };
    let csrf = match once("_token") {
        Some(Value::Text(token)) => String::from_utf8(token.to_vec()).ok(),
        _ => None,
    };
    (user > 0).then_some(Login { user, csrf })
}

/// Whether a session can be read to its end.
pub(in crate::executor) fn is_whole(session: &[u8]) -> bool {
    variables(session).is_some()
}

/// A value, as far as anything here depends on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Value<'a> {
    Boolean(bool),
    Integer(i64),
    Text(&'a [u8]),
    Other,
}

fn variables(session: &[u8]) -> Option<Vec<(&[u8], Value<'_>)>> {
    let mut rest = Rest(session);
    let mut found = Vec::new();
    if session.starts_with(b"a:") {
        rest.take(b"a:")?;
        let count = rest.number(b':')?;
        rest.take(b"{")?;
        for _ in 0..count {
            let name = rest.value(1)?;
            let value = rest.value(1)?;
            if let Value::Text(name) = name {
                found.push((name, value));
            }
        }
        rest.take(b"}")?;
        return rest.0.is_empty().then_some(found);
    }
    while !rest.0.is_empty() {
        let end = memchr::memchr(b'|', rest.0)?;
        let (name, after) = rest.0.split_at(end);
        rest = Rest(&after[1..]);
        found.push((name, rest.value(0)?));
    }
    Some(found)
}

/// What has not been read yet.
struct Rest<'a>(&'a [u8]);

impl<'a> Rest<'a> {
    fn take(&mut self, expected: &[u8]) -> Option<()> {
        self.0 = self.0.strip_prefix(expected)?;
        Some(())
    }

    /// What stands before a letter, which is read, too.
    fn until(&mut self, letter: u8) -> Option<&'a [u8]> {
        let end = memchr::memchr(letter, self.0)?;
        let (before, after) = self.0.split_at(end);
        self.0 = &after[1..];
        Some(before)
    }

    fn number(&mut self, end: u8) -> Option<usize> {
        let digits = self.until(end)?;
        let plain = !digits.is_empty() && digits.iter().all(u8::is_ascii_digit);
        if plain { std::str::from_utf8(digits).ok()?.parse().ok() } else { None }
    }

    fn bytes(&mut self, length: usize) -> Option<&'a [u8]> {
        let (bytes, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(bytes)
    }

    /// `LENGTH:"BYTES"`
    fn quoted(&mut self) -> Option<&'a [u8]> {
        let length = self.number(b':')?;
        self.take(b"\"")?;
        let bytes = self.bytes(length)?;
        self.take(b"\"")?;
        Some(bytes)
    }

    fn value(&mut self, depth: usize) -> Option<Value<'a>> {
        if depth > MAX_DEPTH {
            return None;
        }
        let kind = *self.0.first()?;
        if kind == b'N' {
            self.take(b"N;")?;
            return Some(Value::Other);
        }
        self.take(&[kind, b':'])?;
        Some(match kind {
            b'b' => {
                let value = self.until(b';')?;
                Value::Boolean(match value {
                    b"0" => false,
                    b"1" => true,
                    _ => return None,
                })
            }
            b'i' => Value::Integer(std::str::from_utf8(self.until(b';')?).ok()?.parse().ok()?),
            b'd' | b'r' | b'R' => {
                let word = self.until(b';')?;
                let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"+-.".contains(byte);
                if word.is_empty() || !word.iter().all(plain) {
                    return None;
                }
                Value::Other
            }
            b's' => {
                let text = self.quoted()?;
                self.take(b";")?;
                Value::Text(text)
            }
            b'E' => {
                self.quoted()?;
                self.take(b";")?;
                Value::Other
            }
            b'a' => {
                self.members(depth)?;
                Value::Other
            }
            b'O' => {
                self.quoted()?;
                self.take(b":")?;
                self.members(depth)?;
                Value::Other
            }
            b'C' => {
                self.quoted()?;
                self.take(b":")?;
                let length = self.number(b':')?;
                self.take(b"{")?;
                self.bytes(length)?;
                self.take(b"}")?;
                Value::Other
            }
            _ => return None,
        })
    }

    /// `COUNT:{key value …}`
    fn members(&mut self, depth: usize) -> Option<()> {
        let count = self.number(b':')?;
        self.take(b"{")?;
        for _ in 0..count {
            self.value(depth + 1)?;
            self.value(depth + 1)?;
        }
        self.take(b"}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOGIN: &str = r#"mgrValidated|i:1;usertype|s:7:"manager";mgrInternalKey|i:7;"#;

    fn user(session: impl AsRef<[u8]>) -> Option<u64> {
        login(session.as_ref()).map(|login| login.user)
    }

    fn text(text: &str) -> String {
        format!("s:{}:\"{text}\";", text.len())
    }

    #[test]
    fn a_manager_is_told_in_both_forms() {
        let csrf = login(format!("{LOGIN}_token|{}", text("abc")).as_bytes()).expect("is logged in").csrf;
        assert_eq!(csrf.as_deref(), Some("abc"));
        let array = r#"a:4:{s:12:"mgrValidated";s:1:"1";s:8:"usertype";s:7:"manager";s:14:"mgrInternalKey";s:1:"7";i:0;a:1:{i:0;N;}}"#;
        for session in [
            LOGIN,
            r#"x|a:2:{i:0;d:0.5;s:1:"k";O:3:"Foo":1:{s:1:"p";b:0;}}mgrValidated|b:1;usertype|s:7:"manager";mgrInternalKey|s:1:"7";e|E:5:"A:One";r|r:1;c|C:3:"Foo":2:{};}"#,
            array,
        ] {
            let session = session.replace("c|C:3:\"Foo\":2:{};}", "c|C:3:\"Foo\":3:{};}}");
            assert_eq!(user(&session), Some(7), "{session}");
        }
    }

    #[test]
    fn what_a_visitor_wrote_is_text() {
        let typed = [LOGIN.to_owned(), format!("\";{LOGIN}"), format!("x\";{LOGIN}y|s:1:\""), format!("}}{LOGIN}")];
        for typed in typed {
            for session in [
                format!("search|{}", text(&typed)),
                format!("search|a:1:{{s:1:\"q\";{}}}", text(&typed)),
                format!("a:1:{{s:6:\"search\";{}}}", text(&typed)),
                format!("webValidated|i:1;q|O:1:\"X\":1:{{{}{}}}", text("p"), text(&typed)),
            ] {
                assert_eq!(user(&session), None, "{session}");
            }
        }
        let nested = r#"x|a:3:{s:12:"mgrValidated";i:1;s:8:"usertype";s:7:"manager";s:14:"mgrInternalKey";i:7;}"#;
        assert_eq!(user(nested), None, "only the session's own variables count");
    }

    #[test]
    fn whoever_is_not_logged_in_to_the_manager_is_nobody() {
        for (from, to) in [
            ("mgrValidated|i:1;", ""),
            ("mgrValidated|i:1;", "mgrValidated|i:0;"),
            ("mgrValidated|i:1;", "mgrValidated|N;"),
            ("mgrValidated|i:1;", "mgrValidated|s:1:\"0\";"),
            ("mgrValidated|i:1;", "mgrValidated|a:1:{i:0;i:1;}"),
            ("mgrValidated|i:1;", "mgrValidated|i:1;mgrValidated|i:1;"),
            ("s:7:\"manager\"", "s:3:\"web\""),
            ("s:7:\"manager\"", "s:8:\"manager\""),
            ("i:7;", "i:0;"),
            ("i:7;", "i:-7;"),
            ("i:7;", "s:2:\"+7\";"),
            ("i:7;", "s:0:\"\";"),
            ("i:7;", "d:7;"),
            ("i:7;", "i:99999999999999999999;"),
            ("i:7;", "i:7;rubbish"),
            ("i:7;", "i:7;!x|"),
            ("i:7;", "i:7;x|s:99:\"a\";"),
            ("i:7;", "i:7;x|a:99999999999:{"),
        ] {
            let session = LOGIN.replace(from, to);
            assert_eq!(user(&session), None, "{session}");
        }
        assert_eq!(user(""), None);
        let deep = format!("{LOGIN}x|{}N;{}", "a:1:{i:0;".repeat(10_000), "}".repeat(10_000));
        assert_eq!(user(deep), None);
        for end in 0..LOGIN.len() {
            assert_eq!(user(&LOGIN[..end]), None, "{end}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_text_of_a_visitor_logs_in(typed in ".{0,200}", before in 0..3_usize) {
            let noise = ["", "a|i:1;", "b|N;"][before];
            let session = format!("{noise}q|{}{LOGIN}", text(&typed));
            proptest::prop_assert_eq!(user(&session), Some(7));
            proptest::prop_assert_eq!(user(session.replace(LOGIN, "")), None);
        }

        #[test]
        fn any_bytes_are_read_without_harm(bytes: Vec<u8>) {
            let _ = login(&bytes);
        }
    }
}
