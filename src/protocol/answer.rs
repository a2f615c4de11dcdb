use std::io::Write as _;

use crate::protocol::Id;

/// The body of a transport error: `{"error":{"code":…,"message":…,"trace_id":…}}`.
#[must_use]
pub fn transport_error(code: &str, message: &str, trace_id: &str) -> Vec<u8> {
    let mut body = Vec::with_capacity(48 + code.len() + message.len() + trace_id.len());
    body.extend_from_slice(b"{\"error\":{\"code\":");
    push_string(&mut body, code);
    body.extend_from_slice(b",\"message\":");
    push_string(&mut body, message);
    body.extend_from_slice(b",\"trace_id\":");
    push_string(&mut body, trace_id);
    body.extend_from_slice(b"}}");
    body
}

/// A JSON-RPC error; `data_code` becomes `error.data.code`. The id is left out when unknown.
#[must_use]
pub fn rpc_error(id: &Id<'_>, code: i32, message: &str, data_code: Option<&str>) -> Vec<u8> {
    let mut body = Vec::with_capacity(96 + message.len());
    push_rpc_error(&mut body, id, code, message, data_code);
    body
}

/// A JSON-RPC error as one SSE event, its closing blank line included: the last event of a stream that we cut.
#[must_use]
pub fn rpc_error_event(id: &Id<'_>, code: i32, message: &str, data_code: Option<&str>) -> Vec<u8> {
    let mut event = Vec::with_capacity(104 + message.len());
    event.extend_from_slice(b"data: ");
    // JSON escapes line ends, so the event is one line whatever the message holds.
    push_rpc_error(&mut event, id, code, message, data_code);
    event.extend_from_slice(b"\n\n");
    event
}

fn push_rpc_error(body: &mut Vec<u8>, id: &Id<'_>, code: i32, message: &str, data_code: Option<&str>) {
    body.extend_from_slice(b"{\"jsonrpc\":\"2.0\"");
    match id {
        Id::Absent | Id::Null => {}
        Id::Number(number) => {
            body.extend_from_slice(b",\"id\":");
            push_number(body, *number);
        }
        Id::String(text) => {
            body.extend_from_slice(b",\"id\":");
            push_string(body, text);
        }
    }
    body.extend_from_slice(b",\"error\":{\"code\":");
    push_number(body, i64::from(code));
    body.extend_from_slice(b",\"message\":");
    push_string(body, message);
    if let Some(data_code) = data_code {
        body.extend_from_slice(b",\"data\":{\"code\":");
        push_string(body, data_code);
        body.push(b'}');
    }
    body.extend_from_slice(b"}}");
}

fn push_number(body: &mut Vec<u8>, number: i64) {
    body.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
}

fn push_string(body: &mut Vec<u8>, text: &str) {
    body.push(b'"');
    let mut plain = 0;
    for (at, byte) in text.bytes().enumerate() {
        let escape: &[u8] = match byte {
            b'"' => b"\\\"",
            b'\\' => b"\\\\",
            b'\n' => b"\\n",
            b'\r' => b"\\r",
            b'\t' => b"\\t",
            0..=0x1F | 0x7F => b"",
            _ => continue,
        };
        body.extend_from_slice(&text.as_bytes()[plain..at]);
        plain = at + 1;
        if escape.is_empty() {
            write!(body, "\\u{byte:04x}").expect("a Vec takes every write");
        } else {
            body.extend_from_slice(escape);
        }
    }
    body.extend_from_slice(&text.as_bytes()[plain..]);
    body.push(b'"');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_transport_error_has_exactly_three_members() {
        assert_eq!(
            String::from_utf8(transport_error("scope_denied", "Scope denied", "t-1")).expect("UTF-8"),
            r#"{"error":{"code":"scope_denied","message":"Scope denied","trace_id":"t-1"}}"#
        );
    }

    #[test]
    fn an_rpc_error_names_the_id_only_when_an_answer_is_owed() {
        let cases = [
            (Id::Absent, None, r#"{"jsonrpc":"2.0","error":{"code":-32600,"message":"m"}}"#),
            (Id::Null, None, r#"{"jsonrpc":"2.0","error":{"code":-32600,"message":"m"}}"#),
            (Id::Number(-7), None, r#"{"jsonrpc":"2.0","id":-7,"error":{"code":-32600,"message":"m"}}"#),
            (
                Id::String("a\"b".into()),
                Some("batch"),
                r#"{"jsonrpc":"2.0","id":"a\"b","error":{"code":-32600,"message":"m","data":{"code":"batch"}}}"#,
            ),
        ];
        for (id, data, expected) in cases {
            let body = rpc_error(&id, -32600, "m", data);
            assert_eq!(String::from_utf8(body).expect("UTF-8"), expected);
            let event = String::from_utf8(rpc_error_event(&id, -32600, "m", data)).expect("UTF-8");
            assert_eq!(event, format!("data: {expected}\n\n"));
        }
    }

    proptest::proptest! {
        #[test]
        fn whatever_text_goes_in_comes_out_of_another_reader(text in "\\PC*|[\\x00-\\xff]*", code: i32) {
            let body = rpc_error(&Id::String(text.as_str().into()), code, &text, Some(&text));
            let value: serde_json::Value = serde_json::from_slice(&body).expect("JSON");
            proptest::prop_assert_eq!(&value["id"], &text);
            proptest::prop_assert_eq!(&value["error"]["message"], &text);
            proptest::prop_assert_eq!(&value["error"]["code"], code);
            proptest::prop_assert_eq!(&value["error"]["data"]["code"], &text);
            let event = rpc_error_event(&Id::Absent, code, &text, None);
            proptest::prop_assert_eq!(event.iter().filter(|byte| matches!(byte, b'\n' | b'\r')).count(), 2);
        }
    }
}
