//! The alert rules and the dashboard that are shipped: they name only metrics, labels and values that exist, and each
//! rule says what to do.

use std::collections::BTreeSet;

use mcp_sidecar::telemetry::{Kind, Name};
use serde_json::Value;

const RULES: &str = include_str!("../deploy/prometheus/alerts.yml");
/// What PromQL itself says in these rules.
const WORDS: [&str; 10] =
    ["increase", "rate", "sum", "max", "count", "by", "or", "histogram_quantile", "instance", "le"];

/// One rule: its name and its fields, continued lines joined.
struct Rule {
    alert: String,
    lines: Vec<(String, String)>,
}

impl Rule {
    fn field(&self, key: &str) -> &str {
        let found = self.lines.iter().find(|(have, _)| have == key);
        found.map_or_else(|| panic!("{} has no {key}", self.alert), |(_, value)| value)
    }
}

/// Reads the one shape of YAML that the file uses: `key: value`, and `key: >-` with deeper lines.
fn rules() -> Vec<Rule> {
    let mut rules: Vec<Rule> = Vec::new();
    let mut folded_at = None;
    for line in RULES.lines().filter(|line| !line.trim().is_empty() && !line.starts_with('#')) {
        let indent = line.len() - line.trim_start().len();
        let text = line.trim();
        if folded_at.is_some_and(|at| indent > at) {
            let (_, value) = rules.last_mut().and_then(|rule| rule.lines.last_mut()).expect("a key before");
            value.push(' ');
            value.push_str(text);
            continue;
        }
        folded_at = None;
        let (key, value) = text.split_once(':').unwrap_or_else(|| panic!("not understood: {line}"));
        if let Some(alert) = text.strip_prefix("- alert: ") {
            rules.push(Rule { alert: alert.to_owned(), lines: Vec::new() });
        } else if let Some(rule) = rules.last_mut() {
            let value = value.trim();
            if value == ">-" {
                folded_at = Some(indent);
            }
            rule.lines.push((key.to_owned(), value.trim_start_matches(">-").to_owned()));
        }
    }
    rules
}

fn is_word(letter: char) -> bool {
    letter.is_ascii_alphanumeric() || letter == '_'
}

/// The metric of a name in an expression; histograms are asked for by their parts.
fn metric(word: &str) -> Option<Name> {
    Name::ALL.iter().copied().find(|name| match name.kind() {
        Kind::Histogram => {
            ["_bucket", "_sum", "_count"].iter().any(|part| word.strip_suffix(part) == Some(name.as_str()))
        }
        _ => word == name.as_str(),
    })
}

/// Every metric, label and value in an expression exists; `place` names it in a failure.
fn check(place: &str, expression: &str) {
    let page = include_str!("../docs/METRICS.md");
    // Selectors first: `{label op "value", …}` belongs to the name before it.
    let (mut bare, mut labels) = (String::new(), BTreeSet::new());
    let mut rest = expression;
    while let Some((before, after)) = rest.split_once('{') {
        let (selector, after) = after.split_once('}').expect("a closed selector");
        let name = before.rsplit(|letter| !is_word(letter)).next().unwrap_or_default();
        let name = metric(name).unwrap_or_else(|| panic!("{place}: no metric {name}"));
        for matcher in selector.split(',') {
            let (label, value) = matcher.split_once('=').expect("label=value");
            let label = label.trim().trim_end_matches('!');
            if label == "instance" {
                continue;
            }
            assert!(name.labels().contains(&label), "{place}: {} has no label {label}", name.as_str());
            for value in value.trim_start_matches('~').trim_matches('"').split('|') {
                assert!(page.contains(&format!("`{value}`")), "{place}: no value {value} of {label}");
            }
        }
        bare.push_str(before);
        rest = after;
    }
    bare.push_str(rest);
    let mut metrics = BTreeSet::new();
    let bare = bare.replace("[$__rate_interval]", "");
    let words: Vec<&str> = bare.split(|letter| !is_word(letter)).filter(|word| !word.is_empty()).collect();
    for name in words.iter().filter_map(|word| metric(word)) {
        metrics.insert(name.as_str());
        labels.extend(name.labels().iter().copied());
    }
    for word in words.iter().filter(|word| word.starts_with(|letter: char| letter.is_alphabetic())) {
        let known = metric(word).is_some() || labels.contains(word) || WORDS.contains(word);
        assert!(known, "{place}: {word} is no metric, none of its labels, and no word of PromQL");
    }
    assert!(!metrics.is_empty(), "{place} asks for nothing");
    let balance = |open: char, close: char| expression.matches(open).count() == expression.matches(close).count();
    assert!(balance('(', ')') && balance('{', '}') && balance('[', ']') && balance('"', '"'), "{expression}");
}

#[test]
fn every_metric_label_and_value_in_the_rules_exists() {
    for rule in rules() {
        check(&rule.alert, rule.field("expr"));
    }
}

#[test]
fn the_dashboard_asks_for_what_exists_and_shows_most_of_it() {
    let board: Value = serde_json::from_str(include_str!("../deploy/grafana/mcp-sidecar.json")).expect("is JSON");
    let mut asked = String::new();
    for panel in board["panels"].as_array().expect("panels") {
        for target in panel["targets"].as_array().into_iter().flatten() {
            let expression = target["expr"].as_str().expect("an expression");
            check(panel["title"].as_str().expect("a title"), expression);
            asked.push_str(expression);
        }
    }
    let shown = Name::ALL.iter().filter(|name| asked.contains(name.as_str())).count();
    assert!(shown * 4 >= Name::ALL.len() * 3, "{shown} of {}", Name::ALL.len());
}

#[test]
fn every_rule_says_what_happened_and_what_to_do() {
    let rules = rules();
    assert!(rules.len() >= 12, "{}", rules.len());
    let names: BTreeSet<&str> = rules.iter().map(|rule| rule.alert.as_str()).collect();
    assert_eq!(names.len(), rules.len(), "a name stands twice");
    for rule in &rules {
        assert!(["page", "ticket"].contains(&rule.field("severity")), "{}", rule.alert);
        assert!(rule.field("summary").len() > 20 && rule.field("runbook").len() > 60, "{}", rule.alert);
    }
}
