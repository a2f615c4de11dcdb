//! Every content tool, with what it is known to answer on the demo documents, and the same answer everywhere on all.

use serde_json::{Value, json};

use crate::data::FIRST;
use crate::site::{Site, agreed, agreed_ids, everywhere};

#[tokio::test]
async fn every_content_tool_answers_the_same_everywhere() {
    every_content_tool(&everywhere("corpus").await).await;
}

/// Calls of every content tool, which all of these sites answer alike.
pub async fn every_content_tool(sites: &[Site]) {
    let known: [(&str, Value, &[i64]); 30] = [
        ("search", json!({"limit": 4}), &[1, 2, 3, 4]),
        ("search", json!({"limit": 9, "parent": 2}), &[3, 4, 5, 6, 7, 8]),
        ("search", json!({"limit": 9, "parent": 2, "depth": 1, "published": 0}), &[5]),
        ("search", json!({"limit": 2, "hidemenu": true}), &[4, 101]),
        ("search", json!({"limit": 2, "deleted": true}), &[9, 10]),
        ("search", json!({"limit": 3, "parent": 0, "depth": 1, "template": 1}), &[1, 2, 11]),
        ("search", json!({"limit": 9, "parent": 2, "order_by": "pagetitle", "order_dir": "DESC"}), &[6, 4, 5, 7, 3, 8]),
        ("search", json!({"limit": 2, "parent": 2, "order_by_date": "desc"}), &[5, 8]),
        ("root_tree", json!({"limit": 9}), &[1, 2, 3, 4, 5, 6, 12, 101, 102]),
        ("descendants", json!({"id": 2, "limit": 9}), &[3, 4, 5, 6]),
        ("descendants", json!({"id": 2, "limit": 9, "depth": 3}), &[3, 4, 5, 6, 7, 8]),
        ("ancestors", json!({"id": 8, "limit": 9}), &[2, 3, 7]),
        ("ancestors", json!({"id": 8, "limit": 9, "depth": 1}), &[7]),
        ("ancestors", json!({"id": 11, "limit": 9}), &[]),
        ("children", json!({"id": 2, "limit": 9}), &[3, 4, 5, 6]),
        ("children", json!({"id": 10, "limit": 9}), &[11]),
        ("siblings", json!({"id": 4, "limit": 9}), &[3, 5, 6]),
        ("neighbors", json!({"id": 4, "limit": 9}), &[3, 5]),
        ("neighbors", json!({"id": 3, "limit": 9}), &[4]),
        ("neighbors", json!({"id": 6, "limit": 9}), &[]),
        ("prev_siblings", json!({"id": 6, "limit": 9}), &[5, 4, 3]),
        ("next_siblings", json!({"id": 3, "limit": 9}), &[4, 5, 6]),
        ("children_range", json!({"id": 2, "from": 1, "to": 2, "limit": 9}), &[4, 5]),
        ("children_range", json!({"id": 2, "from": 2, "limit": 9}), &[5, 6]),
        ("siblings_range", json!({"id": 5, "from": 0, "to": 4, "limit": 9}), &[3, 4, 6]),
        ("siblings_range", json!({"id": 9, "from": 0, "limit": 9}), &[]),
        ("siblings", json!({"id": 9, "limit": 9}), &[]),
        ("neighbors", json!({"id": 9, "limit": 9}), &[]),
        ("prev_siblings", json!({"id": 999_999, "limit": 9}), &[]),
        ("next_siblings", json!({"id": 9, "limit": 9}), &[]),
    ];
    for (tool, arguments, expected) in known {
        assert_eq!(agreed_ids(sites, &format!("evo.content.{tool}"), &arguments).await, expected, "{tool} {arguments}");
    }

    let tvs = json!(["price:d", "dirty", "word", "nothing", "content"]);
    for id in [1, 3, 9, 12, 999, FIRST, FIRST + 1, FIRST + 7, FIRST + 50, FIRST + 110, FIRST + 239] {
        for tool in ["descendants", "ancestors", "children", "siblings", "neighbors", "prev_siblings", "next_siblings"]
        {
            let name = format!("evo.content.{tool}");
            agreed_ids(sites, &name, &json!({"id": id, "limit": 100})).await;
            agreed_ids(sites, &name, &json!({"id": id, "limit": 3, "offset": 1, "with_tvs": tvs})).await;
        }
        for tool in ["children_range", "siblings_range"] {
            let name = format!("evo.content.{tool}");
            agreed_ids(sites, &name, &json!({"id": id, "from": 1, "to": 3, "limit": 100, "with_tvs": tvs})).await;
        }
        let name = "evo.content.get";
        agreed(sites, name, &json!({"id": id, "with_tvs": tvs})).await.expect("valid arguments");
    }
    for depth in 1..=6 {
        for offset in [0, 7, 200] {
            let page = json!({"limit": 100, "offset": offset, "depth": depth, "with_tvs": tvs});
            agreed_ids(sites, "evo.content.root_tree", &page).await;
            let below = json!({"id": FIRST, "limit": 100, "offset": offset, "depth": depth});
            agreed_ids(sites, "evo.content.descendants", &below).await;
        }
    }
    for order in ["id", "pagetitle", "menuindex", "createdon", "pub_date"] {
        for direction in ["asc", "desc"] {
            for parent in [Value::Null, json!(0), json!(FIRST)] {
                let mut call = json!({"limit": 100, "order_by": order, "order_dir": direction, "parent": parent});
                agreed_ids(sites, "evo.content.search", &call).await;
                call["with_tvs"] = tvs.clone();
                call["offset"] = json!(30);
                agreed_ids(sites, "evo.content.search", &call).await;
            }
        }
    }
}

#[tokio::test]
async fn odd_arguments_are_answered_the_same_everywhere() {
    let sites = everywhere("odd").await;
    let strings =
        ["'; DROP TABLE x; --", "\" OR 1=1", "` OR 1=1", "\\", "%", "_", "\u{0}", "😀", "$1", "?", "/*", "{p}"];
    for text in strings {
        let filters = json!([{"tv": "word", "op": "=", "value": text}, {"tv": "word", "op": "like", "value": text}]);
        for filter in filters.as_array().expect("a list") {
            let call = json!({"limit": 5, "tv_filters": [filter]});
            let answer = agreed(&sites, "evo.content.search", &call).await;
            assert!(answer.is_ok() || text.contains([';', '\0']), "{text}: {answer:?}");
        }
        for call in [
            json!({"limit": 5, "with_tvs": [format!("{text}.")]}),
            json!({"limit": 5, "order_by": text}),
            json!({"limit": 5, "order_dir": text}),
            json!({"limit": 5, "tv_filters": [{"tv": text, "op": "=", "value": 1}]}),
            json!({"limit": 5, "tv_order": [{"tv": text}]}),
            json!({"limit": 5, "tv_filters": text}),
            json!({"limit": text}),
        ] {
            assert!(agreed(&sites, "evo.content.search", &call).await.is_err(), "{call}");
        }
        agreed(&sites, "evo.content.search", &json!({"limit": 5, "tags_data": {"tv_id": 1, "tags": [text]}}))
            .await
            .ok();
        for (model, field) in [("SiteSnippet", "name"), ("User", "username")] {
            for op in ["=", "like", "in", ">"] {
                let filters = json!({"where": [{"field": field, "op": op, "value": text}]});
                let call = json!({"model": model, "limit": 9, "filters": filters});
                agreed(&sites, "evo.model.list", &call).await.ok();
            }
        }
    }
    for id in [json!((1_i64 << 53) - 1), json!(1_u64 << 40), json!("2147483648"), json!(4_294_967_296_i64)] {
        assert_eq!(agreed(&sites, "evo.content.get", &json!({"id": id})).await.expect("valid")["item"], Value::Null);
        assert!(agreed_ids(&sites, "evo.content.children", &json!({"id": id, "limit": 1})).await.is_empty());
        assert!(agreed_ids(&sites, "evo.content.neighbors", &json!({"id": id, "limit": 1})).await.is_empty());
        let range = json!({"id": 2, "from": id, "limit": 1});
        assert!(agreed_ids(&sites, "evo.content.children_range", &range).await.is_empty());
        assert!(agreed_ids(&sites, "evo.content.search", &json!({"template": id, "limit": 1})).await.is_empty());
    }
    for (at, id) in [json!(-1), json!(1.5), json!(true), json!([]), json!("1e3"), json!(1e300)].iter().enumerate() {
        let call = json!({"id": id, "limit": 1});
        assert!(agreed(&sites, "evo.content.children", &call).await.is_err(), "{at}: {id}");
    }
}
