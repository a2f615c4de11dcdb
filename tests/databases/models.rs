//! The model catalogue: every field of every model filtered and sorted by, on every engine.

use mcp_sidecar::store::model::MODELS;
use serde_json::json;

use crate::site::{agreed, agreed_ids, everywhere};

pub const LIST: &str = "evo.model.list";
pub const OPERATORS: [&str; 13] =
    ["=", "like", "like-r", "in", "!=", "like-l", ">", ">=", "not_in", "<", "<=", "null", "!null"];

#[tokio::test]
async fn every_field_is_listed_filtered_and_sorted_the_same_everywhere() {
    let sites = everywhere("models").await;
    for model in &MODELS {
        let name = model.name;
        let list = agreed(&sites, LIST, &json!({"model": name, "limit": 100})).await.expect("valid");
        assert!(list["meta"]["count"].as_i64() > Some(0), "{name}: {list}");
        let keys: Vec<&str> = list["items"][0].as_object().expect("an item").keys().map(String::as_str).collect();
        assert_eq!(keys, model.fields.iter().map(|(key, _)| *key).collect::<Vec<_>>());
        let full = format!("\\EvolutionCMS\\Models\\{name}").to_lowercase();
        let item = agreed(&sites, "evo.model.get", &json!({"model": full, "id": 2})).await.expect("valid");
        assert_eq!(item["meta"]["model"], name);
        for (field, _) in model.fields {
            for direction in ["asc", "desc"] {
                let call = json!({"model": name, "limit": 100, "order_by": field, "order_dir": direction});
                agreed_ids(&sites, LIST, &call).await;
            }
            for (at, op) in OPERATORS.into_iter().enumerate() {
                let value = [json!(1), json!("bLue"), json!("новини")][at % 3].clone();
                let filters = json!({"where": [{"field": field, "op": op, "value": value}]});
                let call = json!({"model": name, "limit": 100, "filters": filters});
                // A word is refused where numbers are compared, everywhere alike.
                agreed(&sites, LIST, &call).await.ok();
            }
        }
    }
    let named = async |op: &str, value: &str| {
        let filters = json!({"where": [{"field": "name", "op": op, "value": value}]});
        agreed_ids(&sites, LIST, &json!({"model": "SiteSnippet", "limit": 100, "filters": filters})).await
    };
    assert_eq!(named("=", "blue").await, [1]);
    assert_eq!(named("like", "НОВИНИ").await, [7, 8, 9]);
    assert_eq!(named("like", "50%").await, [16], "wildcards stand for themselves");
    assert_eq!(named("like-l", "a\\B").await, [20]);
    let flagged =
        json!({"where": [{"field": "locked", "op": "=", "value": 1}, {"field": "disabled", "op": "=", "value": 1}]});
    let flagged = json!({"model": "SitePlugin", "limit": 100, "filters": flagged});
    assert_eq!(agreed_ids(&sites, LIST, &flagged).await, [6, 12, 18, 24, 30]);
}
