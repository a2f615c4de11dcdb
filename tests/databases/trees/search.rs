//! `search` in memory: every property, and filters and orders of template variables.

use std::cmp::Ordering;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::model::{COLORS, Document, MOST, PRICES, Tree, VARIABLES};

/// Of the contract: as deep as allowed when nothing is said.
const DEEPEST: i64 = 6;
const BY: [&str; 5] = ["id", "menuindex", "createdon", "pub_date", "date"];
const COMPARISONS: [&str; 6] = ["=", "!=", ">", ">=", "<", "<="];
const NUMBERS: [&str; 6] = ["0", "3", "7", "-5", "9.5", "10"];
const NEEDLES: [&str; 6] = ["e", "BLU", "чОр", "ue", "1", "ИЙ"];

#[derive(Clone, Debug)]
enum Test {
    Compare(&'static str, &'static str),
    Number(&'static str, &'static str, &'static str),
    In(&'static str, Vec<&'static str>),
    Like(&'static str, &'static str),
    Null(&'static str),
}

#[derive(Clone, Debug)]
struct Filter {
    variable: usize,
    test: Test,
    use_default: bool,
}

#[derive(Clone, Debug)]
struct Order {
    variable: usize,
    descending: bool,
    number: bool,
    use_default: bool,
}

#[derive(Clone, Debug)]
pub struct Search {
    parent: Option<i64>,
    depth: Option<i64>,
    published: Option<bool>,
    deleted: bool,
    template: Option<i64>,
    hidemenu: Option<bool>,
    filters: Vec<Filter>,
    orders: Vec<Order>,
    by: &'static str,
    descending: bool,
}

fn test() -> impl Strategy<Value = Test> {
    let texts: Vec<&str> = PRICES.iter().chain(&COLORS).copied().filter(|text| !text.is_empty()).collect();
    let text = prop::sample::select(texts);
    let comparison = prop::sample::select(&COMPARISONS[..]);
    let cast = prop::sample::select(&["SIGNED", "UNSIGNED", "DECIMAL(6,1)"][..]);
    prop_oneof![
        (comparison.clone(), text.clone()).prop_map(|(op, text)| Test::Compare(op, text)),
        (comparison, cast, prop::sample::select(&NUMBERS[..])).prop_map(|(op, cast, to)| Test::Number(op, cast, to)),
        (prop::sample::select(&["in", "not_in"][..]), prop::collection::vec(text, 1..4))
            .prop_map(|(op, texts)| Test::In(op, texts)),
        (prop::sample::select(&["like", "like-l", "like-r"][..]), prop::sample::select(&NEEDLES[..]))
            .prop_map(|(op, needle)| Test::Like(op, needle)),
        prop::sample::select(&["null", "!null"][..]).prop_map(Test::Null),
    ]
}

/// Some search; half of them with a condition that leaves out documents without a value.
pub fn search() -> impl Strategy<Value = Search> {
    let filter = (0..2_usize, test(), any::<bool>()).prop_map(|(variable, test, use_default)| Filter {
        variable,
        test,
        use_default,
    });
    let order = (0..2_usize, any::<bool>(), any::<bool>(), any::<bool>())
        .prop_map(|(variable, descending, number, use_default)| Order { variable, descending, number, use_default });
    let place = (prop::option::weighted(0.7, 0..=MOST + 1), prop::option::of(1..=DEEPEST));
    let flag = || prop::option::weighted(0.3, any::<bool>());
    let properties = (flag(), prop::bool::weighted(0.15), prop::option::weighted(0.3, 0..3_i64), flag());
    let variables = (prop::collection::vec(filter, 0..3), prop::collection::vec(order, 0..3));
    (place, properties, variables, prop::sample::select(&BY[..]), any::<bool>()).prop_map(
        |((parent, depth), (published, deleted, template, hidemenu), (filters, orders), by, descending)| Search {
            parent,
            depth,
            published,
            deleted,
            template,
            hidemenu,
            filters,
            orders,
            by,
            descending,
        },
    )
}

impl Search {
    pub fn arguments(&self) -> Value {
        let filters = self.filters.iter().map(|filter| {
            let mut arguments = json!({"tv": VARIABLES[filter.variable].0, "use_default": filter.use_default});
            let (op, value, cast) = match &filter.test {
                Test::Compare(op, text) => (*op, json!(text), None),
                Test::Number(op, cast, number) => (*op, json!(number), Some(*cast)),
                Test::In(op, texts) => (*op, json!(texts), None),
                Test::Like(op, needle) => (*op, json!(needle), None),
                Test::Null(op) => (*op, Value::Null, None),
            };
            arguments["op"] = json!(op);
            arguments["value"] = value;
            arguments["cast"] = json!(cast);
            arguments
        });
        let direction = |descending: bool| if descending { "desc" } else { "asc" };
        let orders = self.orders.iter().map(|order| {
            json!({
                "tv": VARIABLES[order.variable].0,
                "dir": direction(order.descending),
                "cast": order.number.then_some("SIGNED"),
                "use_default": order.use_default,
            })
        });
        let mut arguments = json!({
            "parent": self.parent,
            "depth": self.depth,
            "published": self.published,
            "deleted": self.deleted,
            "template": self.template,
            "hidemenu": self.hidemenu,
            "tv_filters": filters.collect::<Vec<_>>(),
            "tv_order": orders.collect::<Vec<_>>(),
        });
        if self.by == "date" {
            arguments["order_by_date"] = json!(direction(self.descending));
        } else {
            arguments["order_by"] = json!(self.by);
            arguments["order_dir"] = json!(direction(self.descending));
        }
        arguments
    }

    /// The whole list that the search should be paging through.
    pub fn expected<'a>(&self, tree: &'a Tree) -> Vec<&'a Document> {
        let depth = self.depth.unwrap_or(DEEPEST);
        let mut found: Vec<&Document> = tree
            .documents
            .iter()
            .filter(|d| d.deleted == self.deleted)
            .filter(|d| match self.parent {
                None => true,
                Some(0) => tree.below_roots(d, depth, false),
                Some(parent) => tree.below(parent, d, depth),
            })
            .filter(|d| self.published.is_none_or(|published| d.published == published))
            .filter(|d| self.template.is_none_or(|template| d.template == template))
            .filter(|d| self.hidemenu.is_none_or(|hidemenu| d.hidemenu == hidemenu))
            .filter(|d| self.filters.iter().all(|filter| filter.passes(d)))
            .collect();
        found.sort_by(|a, b| self.compare(a, b));
        found
    }

    fn compare(&self, a: &Document, b: &Document) -> Ordering {
        let by_variables = self.orders.iter().map(|order| order.compare(a, b)).find(|ordering| ordering.is_ne());
        let key = |d: &Document| match self.by {
            "menuindex" => d.menuindex,
            "createdon" => d.createdon,
            "pub_date" => d.pub_date,
            "date" if d.pub_date != 0 => d.pub_date,
            "date" => d.createdon,
            _ => d.id,
        };
        let last = directed(key(a).cmp(&key(b)), self.descending);
        by_variables.unwrap_or(last.then(a.id.cmp(&b.id)))
    }
}

impl Filter {
    fn passes(&self, document: &Document) -> bool {
        let value = document.value(self.variable, self.use_default);
        if let Test::Null(op) = self.test {
            return value.is_none() == (op == "null");
        }
        let Some(value) = value else { return false };
        match &self.test {
            Test::Compare(op, text) => holds(op, value.cmp(text)),
            Test::Number(op, cast, to) => {
                let least = if *cast == "UNSIGNED" { 0.0 } else { f64::MIN };
                let to: f64 = to.parse().expect("a number");
                holds(op, (number(value) as f64).max(least).total_cmp(&to))
            }
            Test::In(op, texts) => texts.contains(&value) == (*op == "in"),
            Test::Like(op, needle) => {
                let (value, needle) = (value.to_lowercase(), needle.to_lowercase());
                match *op {
                    "like-l" => value.ends_with(&needle),
                    "like-r" => value.starts_with(&needle),
                    _ => value.contains(&needle),
                }
            }
            Test::Null(_) => false,
        }
    }
}

impl Order {
    fn compare(&self, a: &Document, b: &Document) -> Ordering {
        let value = |d: &Document| d.value(self.variable, self.use_default);
        // No value is less than any.
        let ordering =
            if self.number { value(a).map(number).cmp(&value(b).map(number)) } else { value(a).cmp(&value(b)) };
        directed(ordering, self.descending)
    }
}

/// The number that a text begins with, else 0.
fn number(text: &str) -> i64 {
    let sign = usize::from(text.starts_with('-'));
    let end = text[sign..].find(|character: char| !character.is_ascii_digit()).map_or(text.len(), |at| sign + at);
    text[..end].parse().unwrap_or(0)
}

fn holds(op: &str, ordering: Ordering) -> bool {
    match op {
        "=" => ordering.is_eq(),
        "!=" => ordering.is_ne(),
        ">" => ordering.is_gt(),
        ">=" => ordering.is_ge(),
        "<" => ordering.is_lt(),
        _ => ordering.is_le(),
    }
}

fn directed(ordering: Ordering, descending: bool) -> Ordering {
    if descending { ordering.reverse() } else { ordering }
}
