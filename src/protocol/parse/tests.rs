use proptest::prelude::*;
use serde_json::Value;

use super::*;

mod reference;

const CALL: &str = r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"t","arguments":{}}}"#;

fn refusal(body: &[u8]) -> Option<Refusal> {
    parse(body).err().map(|refused| refused.refusal)
}

/// A request whose `params.arguments.x` is `value`.
fn with_value(value: &str) -> String {
    format!(r#"{{"jsonrpc":"2.0","id":1,"method":"m","params":{{"arguments":{{"x":{value}}}}}}}"#)
}

fn nested(levels: usize) -> String {
    // The envelope, `params` and `arguments` are three levels.
    with_value(&format!("{}{}", "[".repeat(levels - 3), "]".repeat(levels - 3)))
}

#[test]
fn a_call_is_read_without_copying() {
    let body = r#"{"jsonrpc":"2.0","id":"a-1","method":"tools/call","params":{"_meta":{"progressToken":7,
        "io.modelcontextprotocol/protocolVersion":"2026-07-28"},"name":"evo.content.get","uri":"x://y",
        "ref":{"type":"ref/prompt","name":"hello","uri":"z://"},"arguments":{"id":1,"ref":{"name":"no"}}}}"#;
    let envelope = parse(body.as_bytes()).expect("a request");
    assert_eq!(
        envelope,
        Envelope {
            id: Id::String("a-1".into()),
            method: "tools/call".into(),
            params: Params::Object,
            name: Some("evo.content.get".into()),
            uri: Some("x://y".into()),
            ref_name: Some("hello".into()),
            ref_uri: Some("z://".into()),
            arguments: Arguments::Object,
            has_progress_token: true,
            meta_version: Some("2026-07-28".into()),
        }
    );
    assert!(matches!(envelope.method, Cow::Borrowed(_)) && matches!(envelope.name, Some(Cow::Borrowed(_))));
}

#[test]
fn escapes_are_undone_in_keys_and_values() {
    let body = br#"{"json\u0072pc":"\u0032.0","i\u0064":"\ud83d\ude00","m\u0065thod":"tools\/c\u0061ll","params":{"n\u0061me":"\"\\\/\b\f\n\r\t"}}"#;
    let envelope = parse(body).expect("a request");
    assert_eq!(envelope.id, Id::String("😀".into()));
    assert_eq!(envelope.method, "tools/call");
    assert_eq!(envelope.name.as_deref(), Some("\"\\/\u{8}\u{c}\n\r\t"));
}

#[test]
fn every_refusal_has_its_bodies() {
    use Refusal::*;
    let cases: &[(Refusal, &[&str])] = &[
        (EmptyBody, &["", " ", "\r\n\t "]),
        (
            NotJson,
            &[
                "{",
                "[",
                "\"",
                "{]",
                "[}",
                "{\"a\"}",
                "{\"a\":}",
                "{\"a\":1,}",
                "[1,]",
                "[,1]",
                "{,}",
                "{a:1}",
                "'a'",
                "nul",
                "tru",
                "NaN",
                "Infinity",
                "-Infinity",
                "-",
                "+1",
                ".5",
                "1.",
                "01",
                "-01",
                "1e",
                "1e+",
                "[0x1]",
                "\u{0}",
                "{\"a\":1 \"b\":2}",
                "\"\t\"",
                "\"\u{0}\"",
                "\"\\x\"",
                "\"\\u12\"",
                "\"\\u12g4\"",
                "\"\\u+123\"",
                "\"\\",
                "\"\\ud800\\u12\"",
                "[1 2]",
                "/**/{}",
                "\u{a0}{}",
                "{\"a\":undefined}",
                "True",
                "[NaN]",
            ],
        ),
        (ByteOrderMark, &["\u{feff}{}", "\u{feff}"]),
        (TrailingData, &["{} {}", "{},", "{}x", "null null", "1 2", "[]]", "{}\u{0}", "{}//", "1true"]),
        (
            TooDeep,
            &[&"[".repeat(65), &"{\"a\":".repeat(65), &nested(65), &format!("{}{}", "[".repeat(65), "]".repeat(65))],
        ),
        (Batch, &["[]", "[1]", &format!("[{CALL}]"), "[{\"a\":1,\"a\":1}]"]),
        (NotAnObject, &["null", "1", "\"x\"", "true", "false", " -0.5e1 ", "1e999"]),
        (
            BadVersion,
            &[
                "{}",
                r#"{"jsonrpc":2.0,"method":"m"}"#,
                r#"{"jsonrpc":"2.0 ","method":"m"}"#,
                r#"{"method":"m","id":1}"#,
            ],
        ),
        (
            BadMethod,
            &[
                r#"{"jsonrpc":"2.0"}"#,
                r#"{"jsonrpc":"2.0","id":1,"result":{}}"#,
                r#"{"jsonrpc":"2.0","id":1,"method":1}"#,
                r#"{"jsonrpc":"2.0","id":1,"method":null}"#,
                r#"{"jsonrpc":"2.0","id":1,"method":"m","result":{}}"#,
                r#"{"jsonrpc":"2.0","id":1,"method":"m","error":null}"#,
            ],
        ),
    ];
    for (expected, bodies) in cases {
        for body in *bodies {
            assert_eq!(refusal(body.as_bytes()), Some(*expected), "{body:?}");
        }
    }
    for body in [&b"\"\xff\""[..], b"\xff\xfe{\0}\0", b"\"\xed\xa0\x80\"", b"{\"\xc0\xaf\":1}", b"\x80"] {
        assert_eq!(refusal(body), Some(BadUtf8), "{body:?}");
    }
}

#[test]
fn values_in_arguments_are_judged_at_every_depth() {
    use Refusal::*;
    let long = format!("0.{}1", "0".repeat(400));
    let cases: &[(&str, Option<Refusal>)] = &[
        // Half surrogates.
        (r#""\ud800""#, Some(LoneSurrogate)),
        (r#""\udc00""#, Some(LoneSurrogate)),
        (r#""\ud800\ud800\udc00""#, Some(LoneSurrogate)),
        (r#""\ud800x\udc00""#, Some(LoneSurrogate)),
        (r#""\udc00\ud800""#, Some(LoneSurrogate)),
        (r#"{"\udfff":1}"#, Some(LoneSurrogate)),
        (r#""\uD83D\uDE00\ud7ff\ue000\uffff\u0000""#, None),
        // Numbers.
        ("9007199254740991", None),
        ("-9007199254740991", None),
        ("9007199254740992", Some(LossyNumber)),
        ("-9007199254740992", Some(LossyNumber)),
        ("999999999999999", None),
        ("12345678901234567", Some(LossyNumber)),
        ("9007199254740993.0", None),
        ("0.1234567890123456789012345", None),
        ("1e308", None),
        ("1e309", Some(LossyNumber)),
        ("-1E+309", Some(LossyNumber)),
        ("1.7976931348623157e308", None),
        ("17976931348623157e292", None),
        ("1.7976931348623159e308", Some(LossyNumber)),
        ("0.0017e311", None),
        ("0.0018e311", Some(LossyNumber)),
        ("5e-324", None),
        ("2.4703282292062328e-324", None),
        ("2.47032822920623e-324", Some(LossyNumber)),
        ("0.0005e-320", None),
        ("0.00005e-320", Some(LossyNumber)),
        ("1e-325", Some(LossyNumber)),
        ("1e-99999999999999999999999", Some(LossyNumber)),
        ("1e99999999999999999999999", Some(LossyNumber)),
        ("0e99999999999999999999999", None),
        ("-0.000E-999", None),
        ("-0", None),
        (&long, Some(LossyNumber)),
        // Keys.
        (r#"{"a":1,"a":1}"#, Some(DuplicateKey)),
        (r#"{"a":1,"\u0061":1}"#, Some(DuplicateKey)),
        (r#"[[{"":1,"b":{"":2},"":3}]]"#, Some(DuplicateKey)),
        (r#"{"a":{"a":1},"b":{"a":1},"A":1}"#, None),
        (r#"{"é":1,"e\u0301":2}"#, None),
        (r#"{"Method":1,"NAME":2," id":3}"#, None),
    ];
    for (value, expected) in cases {
        assert_eq!(refusal(with_value(value).as_bytes()), *expected, "{value}");
    }
    assert_eq!(refusal(nested(64).as_bytes()), None, "64 levels are allowed");
}

#[test]
fn many_keys_are_told_apart_and_doubles_are_found_anywhere() {
    for (count, long) in
        [7, 8, 9, 10, 63, 64, 65, 66, 1000].into_iter().flat_map(|count| [(count, ""), (count, "long enough")])
    {
        let keys: Vec<String> = (0..count).map(|n| format!("\"k{long}{n}\":{n}")).collect();
        assert_eq!(refusal(with_value(&format!("{{{}}}", keys.join(","))).as_bytes()), None, "{count}");
        for doubled in [0, count / 2, count - 1] {
            let body = with_value(&format!("{{{},\"\\u006b{long}{doubled}\":0}}", keys.join(",")));
            assert_eq!(refusal(body.as_bytes()), Some(Refusal::DuplicateKey), "{doubled} of {count}");
        }
    }
    // These two are alike in all that is compared first.
    for (second, expected) in [("QPPPPPPPPPPPXPPP", None), ("PPPPPPPPPPPPPPPP", Some(Refusal::DuplicateKey))] {
        let body = with_value(&format!("{{\"PPPPPPPPPPPPPPPP\":0,\"{second}\":0}}"));
        assert_eq!(refusal(body.as_bytes()), expected, "{second}");
    }
}

#[test]
fn keys_that_only_look_like_reserved_ones_are_refused_where_those_mean_something() {
    let envelope = [
        "Method",
        "METHOD",
        "ID",
        "method\\u0000",
        "\\u0000method",
        " method",
        "method ",
        "\\tid",
        "param\u{17f}",
        "Re\u{17f}ult",
        "ERROR",
        "JsonRpc",
        "method\\u0000x",
        "\u{feff}id",
        "id\u{a0}",
        "\u{131}d",
    ];
    for key in envelope {
        let body = CALL.replacen("{", &format!("{{\"{key}\":1,"), 1);
        assert_eq!(refusal(body.as_bytes()), Some(Refusal::LookalikeKey), "{key}");
    }
    let params = [
        "Name",
        "name\\u0000",
        "ARGUMENTS",
        "argument\u{17f}",
        "Uri ",
        "_META",
        "progre\u{17f}sToken",
        "progressTo\u{212a}en",
        "protocolversion",
        "Cursor",
    ];
    for key in params {
        let body = CALL.replace("{\"name\"", &format!("{{\"{key}\":1,\"name\""));
        assert_eq!(refusal(body.as_bytes()), Some(Refusal::LookalikeKey), "{key}");
    }
    for key in ["ProgressToken", "IO.modelcontextprotocol/protocolVersion"] {
        let body = CALL.replace("{\"name\"", &format!("{{\"_meta\":{{\"{key}\":1}},\"name\""));
        assert_eq!(refusal(body.as_bytes()), Some(Refusal::LookalikeKey), "{key}");
    }
    for key in ["methods", "i d", "Name", "ｉd", "m\u{e9}thod", "", " ", "\\u0000"] {
        let body = CALL.replacen("{", &format!("{{\"{key}\":1,"), 1);
        assert_eq!(refusal(body.as_bytes()), None, "{key} is another key");
    }
}

#[test]
fn ids_decide_whom_to_answer() {
    let cases = [
        ("1", Ok(Id::Number(1))),
        ("0", Ok(Id::Number(0))),
        ("-9007199254740991", Ok(Id::Number(-9_007_199_254_740_991))),
        ("\"\"", Ok(Id::String("".into()))),
        ("null", Ok(Id::Null)),
        ("9007199254740992", Err(Refusal::BadId)),
        ("1e999", Err(Refusal::BadId)),
        ("1.0", Err(Refusal::BadId)),
        ("1e1", Err(Refusal::BadId)),
        ("-0", Err(Refusal::BadId)),
        ("true", Err(Refusal::BadId)),
        ("[1]", Err(Refusal::BadId)),
        ("{}", Err(Refusal::BadId)),
    ];
    for (id, expected) in cases {
        let body = format!(r#"{{"id":{id},"jsonrpc":"2.0","method":"ping"}}"#);
        let found = parse(body.as_bytes());
        match expected {
            Ok(id) => assert_eq!(found.expect("a request").id, id),
            Err(refusal) => assert_eq!(found, Err(Refused { refusal, id: Id::Absent }), "{id}"),
        }
    }
    for (length, expected) in [(256, None), (257, Some(Refusal::BadId))] {
        let body = format!(r#"{{"id":"{}","jsonrpc":"2.0","method":"ping"}}"#, "x".repeat(length));
        assert_eq!(refusal(body.as_bytes()), expected, "{length}");
    }
    assert_eq!(parse(br#"{"jsonrpc":"2.0","method":"ping"}"#).expect("a notification").id, Id::Absent);
}

#[test]
fn a_refusal_carries_the_id_only_when_it_is_beyond_doubt() {
    let cases = [
        (r#"{"jsonrpc":"1.0","id":7,"method":"m"}"#, Refusal::BadVersion, Id::Number(7)),
        (r#"{"id":"a","result":{},"jsonrpc":"2.0"}"#, Refusal::BadMethod, Id::String("a".into())),
        (r#"{"jsonrpc":"1.0","id":null}"#, Refusal::BadVersion, Id::Null),
        (r#"{"jsonrpc":"1.0","id":1.5}"#, Refusal::BadVersion, Id::Absent),
        (r#"{"jsonrpc":"1.0","id":7,"id":8}"#, Refusal::DuplicateKey, Id::Absent),
        (r#"{"jsonrpc":"1.0","id":7,"Id":8}"#, Refusal::LookalikeKey, Id::Absent),
        (r#"{"jsonrpc":"1.0","id":7"#, Refusal::NotJson, Id::Absent),
    ];
    for (body, refusal, id) in cases {
        assert_eq!(parse(body.as_bytes()), Err(Refused { refusal, id }), "{body}");
    }
}

#[test]
fn syntax_weighs_more_than_ambiguity_wherever_it_stands() {
    for body in [r#"{"a":1,"a":1"#, r#"{"Id":1,"x":NaN}"#, r#"["\ud800",]"#, r#"{"a":1e999,}"#, r#"[1,2"#] {
        assert_eq!(refusal(body.as_bytes()), Some(Refusal::NotJson), "{body}");
    }
    assert_eq!(refusal(br#"{"a":1,"a":1} x"#), Some(Refusal::TrailingData));
    assert_eq!(refusal(b"{\"a\":1,\"a\":\"\xff\"}"), Some(Refusal::BadUtf8));
}

#[test]
fn params_and_arguments_are_told_by_kind() {
    let cases = [
        ("{}", Params::Object, Arguments::Absent),
        ("[]", Params::Array, Arguments::Absent),
        (r#"[{"name":"x","name2":1}]"#, Params::Array, Arguments::Absent),
        ("null", Params::Absent, Arguments::Absent),
        ("3", Params::Other, Arguments::Absent),
        (r#""s""#, Params::Other, Arguments::Absent),
        (r#"{"arguments":{}}"#, Params::Object, Arguments::Object),
        (r#"{"arguments":null}"#, Params::Object, Arguments::Absent),
        (r#"{"arguments":[]}"#, Params::Object, Arguments::Other),
        (r#"{"name":1,"uri":null,"_meta":3}"#, Params::Object, Arguments::Absent),
        (r#"{"_meta":{"progressToken":1.5}}"#, Params::Object, Arguments::Absent),
        (r#"{"a":{"name":"x","_meta":{"progressToken":1}}}"#, Params::Object, Arguments::Absent),
    ];
    for (params, kind, arguments) in cases {
        let body = format!(r#"{{"jsonrpc":"2.0","method":"m","params":{params}}}"#);
        let envelope = parse(body.as_bytes()).expect("a notification");
        assert_eq!((envelope.params, envelope.arguments), (kind, arguments), "{params}");
        assert_eq!((envelope.name, envelope.uri, envelope.has_progress_token), (None, None, false), "{params}");
    }
}

#[test]
fn a_progress_token_is_no_longer_than_an_id_may_be() {
    let token = |json: &str| {
        let body = format!(r#"{{"jsonrpc":"2.0","method":"m","params":{{"_meta":{{"progressToken":{json}}}}}}}"#);
        parse(body.as_bytes()).expect("a notification").has_progress_token
    };
    let text = |bytes: usize| format!("\"{}\"", "t".repeat(bytes));
    for (json, expected) in [
        (text(0), true),
        (text(256), true),
        (text(257), false),
        (format!("\"{}\"", "\\u0074".repeat(256)), true),
        (format!("\"{}\"", "\\u00e9".repeat(129)), false),
        ("-7".to_owned(), true),
        ("1.5".to_owned(), false),
        ("null".to_owned(), false),
        ("[\"t\"]".to_owned(), false),
    ] {
        assert_eq!(token(&json), expected, "{json}");
    }
}

fn text() -> impl Strategy<Value = String> {
    prop_oneof!["[a-z]{0,6}", "\\PC{0,12}", "[\\x00-\\x1f\"\\\\/é😀]{0,6}", "x{7,40}"]
}

fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        (-9_007_199_254_740_991_i64..=9_007_199_254_740_991).prop_map(Value::from),
        any::<f64>().prop_filter_map("finite", |number| number.is_finite().then(|| Value::from(number))),
        text().prop_map(Value::from),
    ];
    leaf.prop_recursive(6, 60, 20, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..8).prop_map(Value::from),
            proptest::collection::btree_map(text(), inner, 0..20)
                .prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

/// What must hold of every accepted body, whoever reads it.
fn agrees_with_other_readers(body: &[u8]) -> Result<(), TestCaseError> {
    let Ok(envelope) = parse(body) else { return Ok(()) };
    prop_assert!(reference::keys_are_unique(body), "a doubled key was accepted: {:?}", String::from_utf8_lossy(body));
    let value: Value = serde_json::from_slice(body).map_err(|error| TestCaseError::fail(error.to_string()))?;
    prop_assert_eq!(value["jsonrpc"].as_str(), Some("2.0"));
    prop_assert_eq!(value["method"].as_str(), Some(&*envelope.method));
    match &envelope.id {
        Id::Absent => prop_assert!(value.get("id").is_none()),
        Id::Null => prop_assert!(value["id"].is_null() && value.get("id").is_some()),
        Id::Number(number) => prop_assert_eq!(value["id"].as_i64(), Some(*number)),
        Id::String(text) => prop_assert_eq!(value["id"].as_str(), Some(&**text)),
    }
    prop_assert_eq!(value["params"]["name"].as_str(), envelope.name.as_deref());
    prop_assert_eq!(value["params"]["uri"].as_str(), envelope.uri.as_deref());
    prop_assert_eq!(value["params"]["ref"]["name"].as_str(), envelope.ref_name.as_deref());
    prop_assert_eq!(value["params"]["ref"]["uri"].as_str(), envelope.ref_uri.as_deref());
    prop_assert_eq!(value["params"]["arguments"].is_object(), envelope.arguments == Arguments::Object);
    prop_assert_eq!(value["params"].is_object(), envelope.params == Params::Object);
    prop_assert_eq!(value["params"]["_meta"][META_VERSION].as_str(), envelope.meta_version.as_deref());
    Ok(())
}

proptest! {
    #[test]
    fn every_unambiguous_request_is_accepted(arguments in value(), id in 0..1_000_i64, name in text(), pretty: bool) {
        let request = serde_json::json!({"jsonrpc": "2.0", "id": id, "method": "tools/call",
            "params": {"name": name, "arguments": {"x": arguments}}});
        let body = if pretty { serde_json::to_vec_pretty(&request) } else { serde_json::to_vec(&request) };
        let body = body.expect("serialisable");
        let envelope = parse(&body);
        prop_assert!(envelope.is_ok(), "{:?}: {}", envelope, String::from_utf8_lossy(&body));
        agrees_with_other_readers(&body)?;
    }

    #[test]
    fn what_is_accepted_after_a_mutation_means_the_same_to_others(
        arguments in value(),
        edits in proptest::collection::vec((any::<prop::sample::Index>(), 0..3_u8, prop_oneof![
            any::<u8>(), prop::sample::select(&b"\"\\{}[],:0123456789eE.-+untfdD8 "[..])]), 1..4),
    ) {
        let mut body = CALL.replace("\"arguments\":{}", &format!("\"arguments\":{{\"x\":{arguments}}}")).into_bytes();
        for (index, kind, byte) in edits {
            let at = index.index(body.len());
            match kind {
                0 => body[at] = byte,
                1 => body.insert(at, byte),
                _ => drop(body.remove(at)),
            }
        }
        agrees_with_other_readers(&body)?;
    }

    #[test]
    fn fragments_in_any_order_mean_the_same_to_others(
        parts in proptest::collection::vec(prop::sample::select(&[
            r#""jsonrpc":"2.0""#, r#""method":"a""#, r#""m\u0065thod":"b""#, r#""Method":"c""#, r#""id":1"#, r#""id":"x""#,
            r#""params":{"name":"n"}"#, r#""params":{"name":"n","n\u0061me":"m"}"#, r#""x":{"k":1,"\u006b":2}"#,
            r#""y":[1,{"a":[]}]"#, r#""z":1e400"#, r#""params":[]"#,
        ][..]), 2..7),
    ) {
        agrees_with_other_readers(format!("{{{}}}", parts.join(",")).as_bytes())?;
    }

    #[test]
    fn numbers_survive_exactly_when_a_double_neither_overflows_nor_vanishes(
        whole in "0|[1-9][0-9]{0,24}", fraction in "|\\.[0-9]{1,24}|\\.0{300,330}[0-9]{1,4}", exponent in "|[eE][-+]?[0-9]{1,3}|e-3[0-4][0-9]",
    ) {
        let literal = format!("{whole}{fraction}{exponent}");
        let scanned = number::scan(literal.as_bytes(), 0).expect("a number");
        let double: f64 = literal.parse().expect("a double");
        let mantissa_is_zero = !format!("{whole}{fraction}").bytes().any(|byte| (b'1'..=b'9').contains(&byte));
        let survives = if fraction.is_empty() && exponent.is_empty() {
            whole.parse::<u128>().expect("25 digits") < 1 << 53
        } else {
            double.is_finite() && (double != 0.0 || mantissa_is_zero)
        };
        prop_assert_eq!(!scanned.lossy, survives, "{}", literal);
        prop_assert_eq!(scanned.end, literal.len());
    }

    #[test]
    fn no_bytes_make_it_panic(body in proptest::collection::vec(any::<u8>(), 0..64)) {
        agrees_with_other_readers(&body)?;
    }
}
