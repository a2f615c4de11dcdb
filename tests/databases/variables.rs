//! Template variables: every operator and cast over every value, by one set of rules, on every engine.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::data::{FIRST, NUMBERS, WORDS};
use crate::site::{Site, agreed, agreed_ids, everywhere};

const SEARCH: &str = "evo.content.search";
const COMPARISONS: [&str; 6] = ["=", "!=", ">", ">=", "<", "<="];

/// The documents that one filter finds, everywhere the same.
async fn found(sites: &[Site], filter: Value) -> Vec<i64> {
    agreed_ids(sites, SEARCH, &json!({"limit": 100, "tv_filters": [filter]})).await
}

#[tokio::test]
async fn shown_values_and_their_defaults() {
    let sites = everywhere("shown").await;
    let call =
        json!({"id": 4, "with_tvs": ["price", "color:d", "note:d", "color", " never:d ", "", "unknown", "content"]});
    let item = agreed(&sites, "evo.content.get", &call).await.expect("valid");
    let expected = json!({"price": "20", "color": "red", "note": null, "never": "", "unknown": null, "content": null});
    assert_eq!(item["item"]["tvs"], expected);
    let item = agreed(&sites, "evo.content.get", &json!({"id": 4, "with_tvs": []})).await.expect("valid");
    assert!(item["item"].get("tvs").is_none());
    let item = agreed(&sites, "evo.content.get", &json!({"id": 4, "with_tvs": ["Price:d", "PRICE"]})).await;
    assert_eq!(item.expect("valid")["item"]["tvs"], json!({"Price": "8", "PRICE": null}), "names are exact");
    // One statement, however many are shown.
    let before = sites[0].pool.statements();
    let many: Vec<String> = (0..90).map(|at| format!("unknown{at}")).chain(["price:d".into(), "word".into()]).collect();
    let call = json!({"limit": 100, "with_tvs": many, "order_by": "pagetitle"});
    let list = agreed(&sites, SEARCH, &call).await.expect("valid");
    assert_eq!(list["items"][0]["tvs"].as_object().map(serde_json::Map::len), Some(92));
    // Unknown names cost a second one, which looks whether they are new.
    assert_eq!(sites[0].pool.statements() - before, 2);
    let before = sites[0].pool.statements();
    let filter = json!([{"tv": "price", "op": ">", "value": 1, "cast": "SIGNED"}]);
    let call =
        json!({"limit": 100, "with_tvs": ["price:d", "word"], "tv_filters": filter, "tv_order": [{"tv": "word"}]});
    agreed(&sites, SEARCH, &call).await.expect("valid");
    assert_eq!(sites[0].pool.statements() - before, 1);
}

#[tokio::test]
async fn filters_by_text() {
    let sites = everywhere("by_text").await;
    let word = |op: &str, value: &str| json!({"tv": "word", "op": op, "value": value});
    for value in WORDS {
        for op in COMPARISONS.into_iter().chain(["like", "like-l", "like-r", "in", "not_in"]) {
            let trimmed = value.trim();
            found(&sites, word(op, trimmed)).await;
        }
        found(&sites, json!({"tv": "word", "op": "not_in", "value": value, "use_default": true})).await;
    }
    let at = |word: &str| WORDS.iter().position(|other| *other == word).map(|at| FIRST + 20 + at as i64);
    let first = |ids: &[i64]| ids.iter().copied().filter(|id| *id < FIRST + 50).collect::<Vec<_>>();
    let is = |words: &[&str]| -> Vec<i64> {
        // Every seventh document's value is null, and every eleventh document is deleted.
        words.iter().filter_map(|word| at(word)).filter(|id| id % 7 != 0 && (id - FIRST) % 11 != 10).collect()
    };
    let table: [(&str, &str, &[&str]); 12] = [
        ("=", "blue", &["blue"]),
        ("in", "blue, BLUE ,", &["blue", "BLUE"]),
        ("like", "LUE", &["blue", "Blue", "BLUE", "blue "]),
        ("like-l", "LUE", &["blue", "Blue", "BLUE"]),
        ("like-r", "bLU", &["blue", "Blue", "BLUE", "blue "]),
        ("like", "новинИ", &["Новини", "новини", "НОВИНИ"]),
        ("like-r", "ё", &["Ёлка", "ёлка"]),
        ("like-l", "Ή", &[]),
        ("like", "%ra_e", &["Straße", "(paren) {brace} | pipe"]),
        ("like", "0% ", &["50% off", "50 off"]),
        ("like", "A\\b", &["a\\b"]),
        ("like", "É", &["é", "É"]),
    ];
    for (op, value, words) in table {
        let mut expected = is(words);
        expected.sort_unstable();
        assert_eq!(first(&found(&sites, word(op, value)).await), expected, "{op} {value}");
    }
    let nulls = found(&sites, json!({"tv": "word", "op": "null"})).await;
    let set = found(&sites, json!({"tv": "word", "op": "!null", "value": "ignored"})).await;
    assert!(nulls.contains(&1) && nulls.contains(&(FIRST + 25)) && !set.contains(&(FIRST + 25)));
    assert!(found(&sites, json!({"tv": "word", "op": "null", "use_default": true})).await.is_empty());
    // Null differs from nothing.
    assert!(!found(&sites, word("!=", "blue")).await.contains(&1));
    let use_default = json!({"tv": "color", "op": "=", "value": "red", "use_default": true});
    assert_eq!(found(&sites, use_default).await[..4], [1, 2, 4, 6]);
}

#[tokio::test]
async fn filters_by_number() {
    let sites = everywhere("by_number").await;
    let casts =
        ["SIGNED", "unsigned", "DECIMAL(10,2)", "decimal(4,1)", "DECIMAL(65,30)", "DECIMAL(1,0)", "DECIMAL(3,3)"];
    // SQLite has no decimals: beyond 15 digits, its doubles would round.
    let values = ["0", "-5", "7", "3.7", "1.01", "2.68", "1000000.00", "-42.42", "0.3", "9.9", "999.9"];
    let large = ["9223372036854775807", "99999999999999999999", "-9223372036854775808"];
    for cast in casts {
        let large = large.iter().filter(|_| !cast.to_uppercase().starts_with("DECIMAL"));
        for (at, value) in values.iter().chain(large).enumerate() {
            for op in [COMPARISONS[at % 6], "=", "<"] {
                let filter = json!({"tv": "dirty", "op": op, "value": value, "cast": cast});
                found(&sites, filter).await;
            }
        }
        let filter = json!({"tv": "dirty", "op": ">=", "value": 12, "cast": cast, "use_default": true});
        found(&sites, filter).await;
    }
    // Which values have which number; each stands at two documents, of which one may be deleted.
    let with = async |op: &str, value: &str, cast: &str| -> Vec<&str> {
        let ids = found(&sites, json!({"tv": "dirty", "op": op, "value": value, "cast": cast})).await;
        let at: BTreeSet<usize> = ids.iter().filter_map(|id| usize::try_from(id - FIRST).ok()).collect();
        let at: BTreeSet<usize> = at.into_iter().map(|at| at % NUMBERS.len()).collect();
        at.into_iter().map(|at| NUMBERS[at]).collect()
    };
    assert_eq!(with("=", "12", "SIGNED").await, [" 12", "12abc"]);
    assert_eq!(with("=", "1", "SIGNED").await, ["1e3", "1E3", "1.005", "1.995", "1,000", "1.2.3"]);
    assert_eq!(with("=", "3", "SIGNED").await, ["3.7"]);
    assert_eq!(with("<", "0", "SIGNED").await, ["-5", "-3.7", "-99999999999999999999", "  -42.42xyz"]);
    assert_eq!(with("<", "0", "UNSIGNED").await, [""; 0]);
    assert_eq!(with("=", "1.01", "DECIMAL(8,2)").await, ["1.005"]);
    assert_eq!(with("=", "2.68", "DECIMAL(8,2)").await, ["2.675"]);
    assert_eq!(with("=", "1000000", "DECIMAL(9,2)").await, ["999999.995"]);
    assert_eq!(with(">", "9000000000000000000", "SIGNED").await.len(), 3);
    // A number is text until it is cast, and 0 is a value like any other.
    assert_eq!(found(&sites, json!({"tv": "price", "op": "=", "value": 0})).await.first(), Some(&6));
    let above = found(&sites, json!({"tv": "price", "op": ">", "value": 25, "cast": "SIGNED"})).await;
    assert_eq!(above[..2], [3, 5]);
    assert!(!above.contains(&4));
}

#[tokio::test]
async fn sorts_by_variables() {
    let sites = everywhere("sorts").await;
    for tv in ["dirty", "word", "price", "note"] {
        for dir in ["asc", "desc", " DESC "] {
            for cast in [json!(null), json!("SIGNED"), json!("unsigned")] {
                for use_default in [false, true] {
                    let order = json!([{"tv": tv, "dir": dir, "cast": cast, "use_default": use_default}]);
                    let mut call = json!({"limit": 100, "parent": FIRST, "tv_order": order, "order_by": "pagetitle"});
                    agreed_ids(&sites, SEARCH, &call).await;
                    call["with_tvs"] = json!(["word", "dirty:d"]);
                    call["offset"] = json!(13);
                    agreed_ids(&sites, SEARCH, &call).await;
                }
            }
        }
    }
    let by_price =
        |dir: &str| json!({"limit": 6, "parent": 2, "tv_order": [{"tv": "price", "cast": "SIGNED", "dir": dir}]});
    assert_eq!(agreed_ids(&sites, SEARCH, &by_price("asc")).await, [7, 8, 6, 4, 3, 5], "unset is lowest");
    assert_eq!(agreed_ids(&sites, SEARCH, &by_price("desc")).await, [5, 3, 4, 6, 7, 8]);
    // As many filters and terms as are allowed, on as many variables as there are.
    let names = ["price", "color", "note", "dirty", "word", "never", "Price", "content", "with-dash_1"];
    let filters: Vec<Value> =
        (0..20).map(|at| json!({"tv": names[at % 9], "op": "null", "use_default": at % 2 == 0})).collect();
    let sorts: Vec<Value> = (0..20).map(|at| json!({"tv": names[at % 9], "use_default": at % 2 == 1})).collect();
    agreed_ids(&sites, SEARCH, &json!({"limit": 100, "parent": 0, "tv_filters": filters, "tv_order": sorts})).await;
}

#[tokio::test]
async fn tags() {
    let sites = everywhere("tags").await;
    let tagged = async |variable: i64, tags: Value| {
        let call = json!({"limit": 100, "tags_data": {"tv_id": variable, "tags": tags}});
        agreed_ids(&sites, SEARCH, &call).await
    };
    let new = tagged(1, json!(["new"])).await;
    let both = tagged(1, json!(["new", " sale "])).await;
    let sale = tagged(1, json!(["sale"])).await;
    let mut sum: Vec<i64> = [new.clone(), sale].concat();
    sum.sort_unstable();
    let overlap = sum.len();
    sum.dedup();
    assert_eq!(sum, both);
    assert!(overlap > sum.len(), "one document has both tags and appears once");
    assert!(new.iter().all(|id| id % 2 == 0));
    assert_ne!(tagged(1, json!(["New"])).await, new);
    assert!(!tagged(2, json!(["розпродаж"])).await.is_empty());
    assert_eq!(tagged(3, json!(["new"])).await, [0; 0]);
    // A site without the add-on says so.
    let site = crate::site::sqlite_without(&["tags", "site_content_tags"]).await;
    let call = json!({"limit": 1, "tags_data": {"tv_id": 1, "tags": ["new"]}});
    let refusal = site.result(SEARCH, &call).await.expect_err("there are none");
    assert_eq!(refusal, "The tags_data field cannot be used: this site keeps no tags.");
}

#[tokio::test]
async fn what_is_refused_is_told() {
    let site = crate::site::sqlite().await;
    let filters = |filter: Value| json!({"limit": 1, "tv_filters": [filter]});
    let order = |term: Value| json!({"limit": 1, "tv_order": [term]});
    let tags = |data: Value| json!({"limit": 1, "tags_data": data});
    let many = |count: usize| -> Vec<Value> { vec![json!({"tv": "price", "op": "null"}); count] };
    let names = |count: usize| -> Vec<String> { (0..count).map(|at| format!("name{at}")).collect() };
    let long = vec!["x".repeat(1000) + ":q"; 100];
    let table = [
        (json!({"limit": 1, "with_tvs": "price"}), "The with_tvs field must be an array."),
        (json!({"limit": 1, "with_tvs": [1]}), "The with_tvs.0 field must be a string."),
        (json!({"limit": 1, "with_tvs": ["a b"]}), "with_tvs field has an invalid entry: a b."),
        (json!({"limit": 1, "with_tvs": ["a:x"]}), "invalid entry: a:x."),
        (json!({"limit": 1, "with_tvs": ["a:d:d"]}), "invalid entry: a:d:d."),
        (json!({"limit": 1, "with_tvs": [":d"]}), "invalid entry: :d."),
        (json!({"limit": 1, "with_tvs": long}), "invalid entry: xxx"),
        (json!({"limit": 1, "with_tvs": names(101)}), "with_tvs field takes at most 100 names."),
        (json!({"limit": 1, "tv_filters": "price:=:1"}), "The tv_filters field must be an array."),
        (
            json!({"limit": 1, "tv_filters": ["price:=:1"]}),
            "The tv_filters.0.tv field is required. The tv_filters.0.op field is required.",
        ),
        (json!({"limit": 1, "tv_filters": many(21)}), "The tv_filters field must not have more than 20 entries."),
        (json!({"limit": 1, "tv_order": many(21)}), "The tv_order field must not have more than 20 entries."),
        (filters(json!({"tv": 7, "op": "="})), "The tv_filters.0.tv field must be a string."),
        (filters(json!({"tv": "a;b", "op": "null"})), "a;b is no name of a template variable"),
        (
            filters(json!({"tv": "absent", "op": "null"})),
            "tv_filters field names an unknown template variable: absent.",
        ),
        (filters(json!({"tv": "price", "op": "~", "value": 1})), "operator ~ is not known"),
        (filters(json!({"tv": "price", "op": "="})), "a scalar value is needed"),
        (filters(json!({"tv": "price", "op": "=", "value": " "})), "the value must not be empty"),
        (filters(json!({"tv": "price", "op": "=", "value": "1;2"})), "must not contain : or ;"),
        (filters(json!({"tv": "price", "op": "like", "value": "1:2"})), "must not contain : or ;"),
        (filters(json!({"tv": "price", "op": "=", "value": [1]})), "a scalar value is needed"),
        (filters(json!({"tv": "price", "op": "in", "value": " , "})), "in needs at least one value"),
        (filters(json!({"tv": "price", "op": "in"})), "in needs at least one value"),
        (filters(json!({"tv": "price", "op": "in", "value": [[1]]})), "in needs scalars"),
        (filters(json!({"tv": "price", "op": "like", "value": 1, "cast": "SIGNED"})), "cast is for comparisons only"),
        (filters(json!({"tv": "price", "op": "=", "value": "x", "cast": "SIGNED"})), "cast needs a number, not x"),
        (filters(json!({"tv": "price", "op": "=", "value": "1e3", "cast": "SIGNED"})), "cast needs a number, not 1e3"),
        (filters(json!({"tv": "price", "op": "=", "value": 1, "cast": "FLOAT"})), "cast FLOAT is not known"),
        (filters(json!({"tv": "price", "op": "=", "value": 1, "cast": "DECIMAL(8, 2)"})), "is not known"),
        (filters(json!({"tv": "price", "op": "=", "value": 1, "cast": "DECIMAL(99,2)"})), "is out of range"),
        (filters(json!({"tv": "price", "op": "=", "value": 1, "cast": "DECIMAL(2,3)"})), "is out of range"),
        (
            filters(json!({"tv": "price", "op": "null", "use_default": "maybe"})),
            "use_default field must be true or false.",
        ),
        (order(json!({"tv": "absent"})), "The tv_order field names an unknown template variable: absent."),
        (order(json!({"tv": "price", "dir": "up"})), "invalid direction: up"),
        (order(json!({"tv": "price", "cast": "DECIMAL(8,2)"})), "cast DECIMAL is for filters only"),
        (tags(json!([])), "The tags_data field must be an object."),
        (tags(json!({})), "The tags_data.tv_id field is required. The tags_data.tags field is required."),
        (tags(json!({"tv_id": 0, "tags": ["a"]})), "The tags_data.tv_id field must be at least 1."),
        (tags(json!({"tv_id": 1, "tags": []})), "tags takes 1 to 200 tags"),
        (tags(json!({"tv_id": 1, "tags": [" "]})), "a tag must not be empty"),
        (tags(json!({"tv_id": 1, "tags": ["a;b"]})), "a tag must not contain : or ;"),
        (
            json!({"tv_filters": 1, "with_tvs": 1}),
            "The limit field is required. The with_tvs field must be an array. The tv_",
        ),
    ];
    for (call, expected) in table {
        let text = site.result(SEARCH, &call).await.expect_err(expected);
        assert!(text.contains(expected), "{call}: {text}");
    }
    let to = site.result("evo.content.children_range", &json!({"id": 1, "limit": 1, "from": 3, "to": 2})).await;
    assert!(to.expect_err("reversed").contains("to must be greater than or equal to from"));
}
