//! The calls of the load, and what each must be answered: as SQLite answers them, which is not part of the fleet.

use serde_json::{Value, json};

use crate::data::FIRST;
use crate::site;

pub const METHOD: &str = "tools/call";

/// One call and its one right answer.
pub struct Call {
    pub tool: &'static str,
    pub arguments: Value,
    expected: Value,
}

impl Call {
    /// The JSON-RPC request.
    pub fn body(&self, id: &str) -> Value {
        json!({"jsonrpc": "2.0", "id": id, "method": METHOD, "params": self.params()})
    }

    pub fn params(&self) -> Value {
        json!({"name": self.tool, "arguments": self.arguments})
    }

    /// What is wrong with a JSON-RPC answer, if anything is.
    pub fn wrong(&self, id: &str, answer: &Value) -> Option<String> {
        let result = &answer["result"];
        let text = result["content"][0]["text"].as_str().and_then(|text| serde_json::from_str::<Value>(text).ok());
        let same = answer["id"] == id && result["isError"] == false && result["structuredContent"] == self.expected;
        if same && text.as_ref() == Some(&self.expected) {
            return None;
        }
        Some(format!("{} {} as {id} was answered {answer}", self.tool, self.arguments))
    }
}

/// Calls of all kinds, and one of a tool of its own, which the server `narrow` has.
pub async fn calls() -> (Vec<Call>, Call) {
    let mut wanted: Vec<(&'static str, Value)> = Vec::new();
    let tvs = json!(["price:d", "dirty", "word"]);
    for step in 0..12 {
        let id = FIRST + step * 19;
        wanted.push(("evo.content.get", json!({"id": id, "with_tvs": tvs})));
        wanted.push(("evo.content.search", json!({"limit": 3 + step, "offset": step, "with_tvs": ["word"]})));
        wanted.push(("evo.content.descendants", json!({"id": FIRST, "depth": 6, "limit": 4 + step})));
        wanted.push(("evo.content.ancestors", json!({"id": id, "limit": 9})));
        wanted.push(("evo.content.children", json!({"id": FIRST + step, "limit": 5})));
    }
    for limit in 1..5 {
        wanted.push(("evo.content.root_tree", json!({"depth": 2, "limit": 10 * limit})));
        wanted.push(("evo.model.list", json!({"model": "SiteTmplvarContentvalue", "limit": limit, "order_by": "id"})));
    }
    wanted.push(("evo.model.get", json!({"model": "SiteTmplvarContentvalue", "id": 1})));
    let oracle = site::sqlite().await;
    let mut calls = Vec::new();
    for (tool, arguments) in wanted {
        let expected =
            oracle.result(tool, &arguments).await.unwrap_or_else(|text| panic!("{tool} {arguments}: {text}"));
        calls.push(Call { tool, arguments, expected });
    }
    let narrow = calls.pop().expect("there are some");
    (calls, narrow)
}
