use proptest::prelude::*;

use super::*;
use crate::executor::argument::{Arguments, Caps};
use crate::executor::registry;

/// Every tool that the policy of these tests allows, with the least that it accepts.
fn least(tool: &str) -> Value {
    match tool {
        "evo.content.search" | "evo.content.root_tree" => json!({"limit": 1}),
        "evo.content.get" => json!({"id": 1}),
        "evo.model.list" => json!({"model": "SiteTemplate", "limit": 1}),
        "evo.model.get" => json!({"model": "SiteTemplate", "id": 1}),
        "evo.content.children_range" | "evo.content.siblings_range" => json!({"id": 1, "from": 0, "limit": 1}),
        _ => json!({"id": 1, "limit": 1}),
    }
}

impl Site {
    /// The text of a refusal, `None` when the call went well; anything else is a failed test.
    async fn refusal(&self, tool: &str, arguments: &Value) -> Option<String> {
        let result = self.tool(tool, arguments.clone()).await;
        if result["isError"] == false {
            return None;
        }
        assert_eq!(result["isError"], true, "{tool} {arguments}: {result}");
        assert!(result.get("structuredContent").is_none(), "{tool} {arguments}");
        let [block] = result["content"].as_array().unwrap().as_slice() else { panic!("one block: {result}") };
        let text = block["text"].as_str().unwrap().to_owned();
        Some(text)
    }

    /// (tool, argument, its schema) of every published argument of a tool that may be called.
    async fn published(&self) -> Vec<(String, String, Value)> {
        let list = self.json(r#"{"jsonrpc":"2.0","id":1,"method":"tools/list"}"#).await;
        let mut found = Vec::new();
        for tool in list["result"]["tools"].as_array().unwrap() {
            let name = tool["name"].as_str().unwrap();
            for (argument, schema) in tool["inputSchema"]["properties"].as_object().unwrap() {
                found.push((name.to_owned(), argument.clone(), schema.clone()));
            }
        }
        found
    }

    async fn with(&self, tool: &str, argument: &str, value: &Value) -> Option<String> {
        let mut arguments = least(tool);
        arguments[argument] = value.clone();
        self.refusal(tool, &arguments).await
    }
}

async fn open_site() -> Site {
    let site = site(0).await;
    let mut policy = snapshot();
    Arc::get_mut(&mut policy.servers[0]).unwrap().deny_tools = PatternSet::default();
    site.policy.store(Arc::new(policy));
    site
}

fn is(schema: &Value, kind: &str) -> bool {
    schema["type"] == kind || schema["type"].as_array().is_some_and(|kinds| kinds.contains(&json!(kind)))
}

#[tokio::test]
async fn integers_are_read_the_same_way_everywhere() {
    let site = open_site().await;
    let good = [json!(1), json!(1.0), json!("1"), json!(" 1 "), json!("\t1\n"), json!("+1")];
    let wrong = [
        json!(1.5),
        json!(-0.5),
        json!(1e300),
        json!("1.0"),
        json!("1e0"),
        json!("0x1"),
        json!("01"),
        json!("--1"),
        json!("1 2"),
        json!("1;--"),
        json!("one"),
        json!("１"),
        json!("\u{a0}1"),
        json!("9223372036854775808"),
        json!("-9223372036854775809"),
        json!(true),
        json!(false),
        json!([1]),
        json!({"a": 1}),
    ];
    let mut seen = 0;
    for (tool, argument, schema) in site.published().await.iter().filter(|(_, _, schema)| is(schema, "integer")) {
        seen += 1;
        let minimum = schema["minimum"].as_i64().unwrap();
        for value in &good {
            assert_eq!(site.with(tool, argument, value).await, None, "{tool} {argument} {value}");
        }
        for value in &wrong {
            let expected = format!("The {argument} field must be an integer.");
            assert_eq!(site.with(tool, argument, value).await, Some(expected), "{tool} {argument} {value}");
        }
        for value in [json!(minimum - 1), json!("-1"), json!(-2.0), json!(-9_007_199_254_740_991_i64)] {
            let expected = format!("The {argument} field must be at least {minimum}.");
            assert_eq!(site.with(tool, argument, &value).await, Some(expected), "{tool} {argument} {value}");
        }
        for huge in [json!(9_007_199_254_740_991_i64), json!("9223372036854775807")] {
            let refusal = site.with(tool, argument, &huge).await;
            let cap = schema["maximum"].as_i64();
            let expected = cap.map(|cap| format!("The {argument} field must be between {minimum} and {cap}."));
            assert_eq!(refusal, expected, "{tool} {argument} {huge}");
        }
        if let Some(cap) = schema["maximum"].as_i64() {
            assert_eq!(site.with(tool, argument, &json!(cap)).await, None, "{tool} {argument} {cap}");
            let over = site.with(tool, argument, &json!(cap + 1)).await;
            assert!(over.is_some_and(|text| text.contains(" between ")), "{tool} {argument} {cap}");
        }
    }
    assert!(seen >= 26, "{seen}");
}

#[tokio::test]
async fn booleans_are_six_values() {
    let site = open_site().await;
    for argument in ["published", "deleted", "hidemenu"] {
        for good in [json!(true), json!(false), json!(0), json!(1), json!("0"), json!("1"), Value::Null] {
            assert_eq!(site.with("evo.content.search", argument, &good).await, None, "{argument} {good}");
        }
        for wrong in
            [json!("true"), json!("on"), json!(" 1"), json!(""), json!(2), json!(-1), json!(1.0), json!([]), json!({})]
        {
            let expected = format!("The {argument} field must be true or false.");
            assert_eq!(site.with("evo.content.search", argument, &wrong).await, Some(expected), "{argument} {wrong}");
        }
    }
}

#[tokio::test]
async fn null_is_absent_and_what_is_unknown_is_ignored() {
    let site = open_site().await;
    for (tool, argument, _) in site.published().await {
        let required = least(&tool).get(&argument).is_some();
        let expected = required.then(|| format!("The {argument} field is required."));
        assert_eq!(site.with(&tool, &argument, &Value::Null).await, expected, "{tool} {argument}");
        for empty in [json!(""), json!(" \t"), json!([]), json!({})].iter().filter(|_| required) {
            assert_eq!(site.with(&tool, &argument, empty).await, expected, "{tool} {argument} {empty}");
        }
        for unknown in ["raw", "where", "sql", "Limit", "limit ", "__proto__"] {
            assert_eq!(site.with(&tool, unknown, &json!("1; DROP TABLE x")).await, None, "{tool} {unknown}");
        }
    }
}

#[tokio::test]
async fn rules_are_told_together_and_meanings_one_by_one() {
    let site = open_site().await;
    let table = [
        (
            "evo.content.search",
            json!({
                "parent": "x", "depth": 1.5, "published": "yes", "deleted": 2, "template": -1, "hidemenu": [],
                "order_by": 7, "order_dir": [1], "order_by_date": {"a": 1}, "limit": true, "offset": -1,
            }),
            "The parent field must be an integer. The depth field must be an integer. \
             The published field must be true or false. The deleted field must be true or false. \
             The template field must be at least 0. The hidemenu field must be true or false. \
             The order_by field must be a string. The order_dir field must be a string. \
             The order_by_date field must be a string. The limit field must be an integer. \
             The offset field must be at least 0.",
        ),
        (
            "evo.content.search",
            json!({"limit": 101, "offset": 5001, "depth": 7, "order_by": "content", "order_dir": "up"}),
            "The limit field must be between 1 and 100.",
        ),
        (
            "evo.content.search",
            json!({"limit": 1, "offset": 5001, "depth": 7, "order_by": "content", "order_dir": "up"}),
            "The offset field must be between 0 and 5000.",
        ),
        (
            "evo.content.search",
            json!({"limit": 1, "depth": 7, "order_by": "content", "order_dir": "up"}),
            "The depth field must be between 1 and 6.",
        ),
        (
            "evo.content.search",
            json!({"limit": 1, "order_by": "content", "order_dir": "up"}),
            "The order_by field must be one of id, pagetitle, menuindex, createdon, pub_date.",
        ),
        (
            "evo.content.search",
            json!({"limit": 1, "order_dir": "up\u{0}\n' --"}),
            "The order_dir field has an invalid direction: up' --.",
        ),
        (
            "evo.content.search",
            json!({"limit": 1, "order_by_date": "later"}),
            "The order_by_date field has an invalid direction: later.",
        ),
        (
            "evo.content.ancestors",
            json!({"id": 0, "depth": 0}),
            "The id field must be at least 1. The depth field must be at least 1. The limit field is required.",
        ),
        ("evo.content.siblings", json!({}), "The id field is required. The limit field is required."),
        ("evo.model.get", json!({}), "The model field is required. The id field is required."),
        (
            "evo.model.list",
            json!({"model": 7, "limit": [], "order_by": 1, "filters": "x"}),
            "The model field must be a string. The limit field is required. The order_by field must be a string. \
             The filters field must be an array.",
        ),
        (
            "evo.model.list",
            json!({"model": "Secrets", "limit": 101, "filters": {"where": [1]}}),
            "The limit field must be between 1 and 100.",
        ),
        (
            "evo.model.list",
            json!({"model": "Secrets", "limit": 1, "filters": {"where": [1]}, "order_by": "x"}),
            "The model field names a model that is not allowed: Secrets.",
        ),
        (
            "evo.model.list",
            json!({"model": "User", "limit": 1, "filters": {"where": [1]}, "order_by": "password"}),
            "The filters field is invalid: each condition must be an object.",
        ),
        (
            "evo.model.list",
            json!({"model": "User", "limit": 1, "order_by": "password", "order_dir": "up"}),
            "The order_by field is not allowed for User: password.",
        ),
    ];
    for (tool, arguments, expected) in table {
        assert_eq!(site.refusal(tool, &arguments).await.as_deref(), Some(expected), "{tool} {arguments}");
    }
    assert_eq!(site.pool.statements(), 0, "nothing is queried before all is validated");
}

#[tokio::test]
async fn refusals_can_be_errors_for_those_who_want_it() {
    let site = open_site().await;
    let mut policy = snapshot();
    policy.compat.validation_as_rpc_error = true;
    site.policy.store(Arc::new(policy));
    let body = r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"evo.content.get"}}"#;
    let error = json!({
        "code": -32602, "message": "Invalid arguments", "data": {"messages": ["The id field is required."]},
    });
    assert_eq!(site.json(body).await["error"], error);
}

/// Texts that mean something to a database, a shell, a log or a screen.
fn hostile() -> Vec<String> {
    let mut texts: Vec<String> = [
        "' OR '1'='1",
        "'; DROP TABLE evo_site_content; --",
        "\" OR 1=1 --",
        "`id`",
        "id) UNION SELECT username FROM evo_users --",
        "id;--",
        "id desc, (SELECT 1)",
        "1/**/OR/**/1",
        "%",
        "_",
        "\\",
        "\\'",
        "?",
        "$1",
        ":id",
        "\u{0}",
        "id\u{0}",
        "id\nx",
        "\u{feff}id",
        "\u{202e}di",
        "ｉｄ",
        "ID",
        "Новини",
        "日本語",
        "e\u{301}",
        "👩‍👩‍👧‍👦",
        "../../etc/passwd",
        "<script>",
        "{{7*7}}",
    ]
    .map(str::to_owned)
    .to_vec();
    texts.push("'".repeat(100_000));
    texts
}

#[tokio::test]
async fn no_text_reaches_the_database_as_more_than_a_value() {
    let site = open_site().await;
    let everything = site.ids("evo.content.search", json!({"limit": 100})).await;
    let texts: Vec<_> = site.published().await.into_iter().filter(|(_, _, schema)| is(schema, "string")).collect();
    assert_eq!(texts.len(), 7, "three orders of search, model and two orders of list, model of get");
    for hostile in hostile() {
        let value = json!(hostile);
        for (tool, argument, _) in &texts {
            let refusal = site.with(tool, argument, &value).await.unwrap_or_else(|| panic!("{argument} {value}"));
            assert!(refusal.len() < 400, "{argument}: a refusal repeats little of what it refuses");
            let unseen = |c: char| c.is_control() || matches!(c, '\u{202e}' | '\u{feff}');
            assert!(!refusal.contains(unseen), "{argument} {value}");
        }
        let condition = |field: &Value, op: &Value, value: &Value| {
            let filters = json!({"where": [{"field": field, "op": op, "value": value}]});
            json!({"model": "SiteTmplvar", "limit": 9, "filters": filters})
        };
        for refused in [condition(&value, &json!("="), &json!(1)), condition(&json!("name"), &value, &json!(1))] {
            assert!(site.refusal("evo.model.list", &refused).await.is_some(), "{refused}");
        }
        assert!(site.refusal("evo.model.list", &condition(&json!("id"), &json!("="), &value)).await.is_some());
        for op in ["=", "like", "like-l", "like-r", "in", "<"] {
            let condition = condition(&json!("name"), &json!(op), &value);
            if hostile.contains('\0') || (op.starts_with("like") && hostile.len() > 10_000) {
                assert!(site.refusal("evo.model.list", &condition).await.is_some(), "{op}");
                continue;
            }
            let found = site.ids("evo.model.list", condition).await;
            assert!(found.is_empty() || op == "<", "{op} {}: {found:?}", &hostile[..hostile.len().min(60)]);
        }
    }
    assert_eq!(site.ids("evo.content.search", json!({"limit": 100})).await, everything);
}

#[tokio::test]
async fn no_text_about_template_variables_is_more_than_a_value() {
    let site = open_site().await;
    for hostile in hostile() {
        let value = json!(hostile);
        let filter = |tv: &Value, op: &Value, value: &Value, cast: &Value| json!({"tv_filters": [{"tv": tv, "op": op, "value": value, "cast": cast}]});
        let (name, null) = (json!("price"), Value::Null);
        let mut table = vec![
            json!({"with_tvs": [value]}),
            json!({"tv_order": [{"tv": value}]}),
            json!({"tv_order": [{"tv": "price", "dir": value}]}),
            json!({"tv_order": [{"tv": "price", "cast": value}]}),
            json!({"tags_data": {"tv_id": value, "tags": ["x"]}}),
            json!({"tags_data": {"tv_id": 1, "tags": [value]}}),
            filter(&value, &json!("="), &json!(1), &null),
            filter(&name, &value, &json!(1), &null),
            filter(&name, &json!("="), &json!(1), &value),
            filter(&name, &json!("="), &value, &json!("SIGNED")),
        ];
        for op in ["=", "!=", "<", "in", "not_in", "like", "like-l", "like-r"] {
            table.push(filter(&name, &json!(op), &value, &null));
        }
        for mut arguments in table {
            arguments["limit"] = json!(100);
            let refusal = site.refusal("evo.content.search", &arguments).await.unwrap_or_default();
            let start: String = arguments.to_string().chars().take(200).collect();
            assert!(refusal.len() < 400 && !refusal.contains(char::is_control), "{start}");
        }
    }
    let everything = site.ids("evo.content.search", json!({"limit": 100})).await;
    assert_eq!(everything, [1, 2, 3, 4, 5, 6, 7, 8, 11, 12]);
}

#[tokio::test]
async fn filters_are_conditions_and_nothing_else() {
    let site = open_site().await;
    let one = |condition: Value| json!({"where": [condition]});
    let many = |count: usize| json!({"where": vec![json!({"field": "id", "op": "=", "value": 1}); count]});
    let members = |count: usize| one(json!({"field": "id", "op": "in", "value": (0..count).collect::<Vec<_>>()}));
    let of = |op: &str, value: Value| one(json!({"field": "id", "op": op, "value": value}));
    for good in [
        json!({}),
        json!([]),
        json!({"where": []}),
        json!({"where": null}),
        many(20),
        members(200),
        of(" IN ", json!(" 1 ,, 2 ")),
        of("null", json!({"anything": 1})),
        of("!null", Value::Null),
        of("=", json!("0")),
        of("!=", json!(-1)),
        of("=", json!(true)),
        of("like", json!("%".repeat(10_000))),
    ] {
        assert_eq!(site.with("evo.model.list", "filters", &good).await, None, "{good}");
    }
    for (wrong, expected) in [
        (json!("id = 1"), "must be an array"),
        (json!(1), "must be an array"),
        (json!([{"field": "id", "op": "=", "value": 1}]), "may hold where only"),
        (json!({"where": "id = 1"}), "filters.where field must be an array"),
        (json!({"where": {"id": 1}}), "filters.where field must be an array"),
        (json!({"raw": "1=1"}), "may hold where only"),
        (json!({"where": [], "or": []}), "may hold where only"),
        (json!({"where": ["id = 1"]}), "each condition must be an object"),
        (one(json!({})), "a condition needs a field"),
        (one(json!({"field": 1, "op": "="})), "a condition needs a field"),
        (one(json!({"field": "id"})), "a condition needs an op"),
        (one(json!({"field": "content", "op": "=", "value": 1})), "field content is not allowed for SiteTemplate"),
        (one(json!({"field": "id", "op": "~", "value": 1})), "operator ~ is not known"),
        (of("=", Value::Null), "needs a scalar value"),
        (of("=", json!([1])), "needs a scalar value"),
        (of("=", json!("1.5")), "needs an integer value"),
        (of("=", json!(1e300)), "needs an integer value"),
        (of("=", json!("9223372036854775808")), "needs an integer value"),
        (of("like", json!("")), "like needs a value"),
        (of("like", json!({})), "like needs a value"),
        (of("like", json!("a\u{0}b")), "must not hold U+0000"),
        (of("in", json!(["1", "\u{0}"])), "must not hold U+0000"),
        (of("like", json!("x".repeat(10_001))), "at most 10000 bytes"),
        (of("in", json!(" , ")), "in needs at least one value"),
        (of("in", json!([])), "in needs at least one value"),
        (of("in", json!([[1]])), "in needs scalars"),
        (of("in", json!(7)), "in needs an array"),
        (many(21), "more than 20 conditions"),
        (members(201), "at most 200 values"),
    ] {
        let refusal = site.with("evo.model.list", "filters", &wrong).await;
        assert!(refusal.as_deref().is_some_and(|text| text.contains(expected)), "{wrong}: {refusal:?}");
    }
}

#[tokio::test]
async fn results_are_told_twice_the_same() {
    let site = open_site().await;
    let text = |result: &Value| result["content"][0]["text"].as_str().unwrap().to_owned();
    let result = site.tool("evo.content.get", json!({"id": 12})).await;
    assert_eq!(result["content"].as_array().unwrap().len(), 1);
    assert_eq!(result["content"][0]["type"], "text");
    assert_eq!(text(&result), result["structuredContent"].to_string());
    assert!(text(&result).contains("Новини"), "raw Unicode");
    assert_eq!(result["structuredContent"]["meta"], json!({"toolsetVersion": "1.0"}));
    let fields: Vec<&str> =
        result["structuredContent"]["item"].as_object().unwrap().keys().map(String::as_str).collect();
    let expected = "id parent pagetitle longtitle description alias published deleted hidemenu menuindex template \
        createdon editedon pub_date unpub_date isfolder type";
    assert_eq!(fields, expected.split_whitespace().collect::<Vec<_>>());

    let list = site.tool("evo.content.search", json!({"limit": "2", "offset": 1})).await;
    assert_eq!(
        list["structuredContent"]["meta"],
        json!({"limit": 2, "offset": 1, "count": 2, "toolsetVersion": "1.0"})
    );
    let rows = site.tool("evo.model.list", json!({"model": "sitetemplate", "limit": 1})).await;
    let meta = json!({"limit": 1, "offset": 0, "count": 1, "toolsetVersion": "1.0", "model": "SiteTemplate"});
    assert_eq!(rows["structuredContent"]["meta"], meta);
    let none = site.tool("evo.model.get", json!({"model": "\\EvolutionCMS\\Models\\USER", "id": 999})).await;
    assert_eq!(none["structuredContent"], json!({"item": null, "meta": {"toolsetVersion": "1.0", "model": "User"}}));
    assert_eq!(none["isError"], false);
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        (-3..120_i64).prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        "\\PC{0,12}".prop_map(Value::from),
        "[-+ 0-9.]{0,6}".prop_map(Value::from),
        prop::sample::select(vec!["id", "asc", " DESC ", "User", "SiteTemplate", "in", "like", "name"])
            .prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 24, 4, |inner| {
        let key = prop::sample::select(vec!["where", "field", "op", "value", "x"]);
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map(key, inner, 0..4)
                .prop_map(|members| members.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()),
        ]
    })
}

proptest! {
    #[test]
    fn whatever_the_arguments_a_tool_refuses_in_words_or_stays_within_the_caps(
        tool in 0..registry::TOOLS.len(),
        values in prop::collection::vec((0..12_usize, any_json()), 0..12),
    ) {
        let policy = snapshot();
        let caps = Caps::of(&policy, &policy.servers[0]);
        let tool = &registry::TOOLS[tool];
        let schema = (tool.schema)(&caps);
        let names: Vec<&String> = schema["properties"].as_object().unwrap().keys().collect();
        let mut arguments = least(tool.name).as_object().unwrap().clone();
        for (at, value) in values {
            arguments.insert(names[at % names.len()].clone(), value);
        }
        match (tool.validate)(&mut Arguments::new(&arguments), &caps) {
            Ok(plan) => {
                let page = plan.page.unwrap_or(store::Page { limit: 1, offset: 0 });
                prop_assert!((1..=100).contains(&page.limit) && page.offset <= 5000);
            }
            Err(invalid) => {
                let text = invalid.text();
                prop_assert!(text.ends_with('.') && text.len() < 2000 && !text.contains(char::is_control), "{}", text);
            }
        }
    }
}
