//! A site's documents in memory, and what each tree tool is to make of them, said as simply as can be.

use std::collections::BTreeMap;

use proptest::prelude::*;
use serde_json::{Value, json};

pub const MOST: i64 = 24;
/// The variables, by id from 1 on, with their defaults.
pub const VARIABLES: [(&str, Option<&str>); 2] = [("price", Some("7")), ("color", None)];
/// Values: numbers whose order as texts is another one, and texts that collations take for one another.
pub const PRICES: [&str; 7] = ["3", "7", "10", "-5", "12abc", "", "x"];
pub const COLORS: [&str; 6] = ["red", "blue", "Blue", "Чорний", "чорний", "blue sky"];

#[derive(Clone, Debug)]
pub struct Document {
    pub id: i64,
    pub parent: i64,
    pub menuindex: i64,
    pub deleted: bool,
    pub published: bool,
    pub hidemenu: bool,
    pub template: i64,
    pub createdon: i64,
    pub pub_date: i64,
    /// Of each variable: no row, a row that holds a null, a row that holds a text.
    pub values: [Option<Option<&'static str>>; 2],
}

impl Document {
    /// What a variable is worth.
    pub fn value(&self, variable: usize, or_default: bool) -> Option<&'static str> {
        let default = VARIABLES[variable].1.filter(|_| or_default);
        self.values[variable].flatten().or(default)
    }

    /// What is checked of an answer's item.
    pub fn shown(&self, tvs: &[&str]) -> Value {
        let mut item = json!({
            "id": self.id,
            "parent": self.parent,
            "menuindex": self.menuindex,
            "deleted": i64::from(self.deleted),
            "published": i64::from(self.published),
            "hidemenu": self.hidemenu,
            "template": self.template,
            "createdon": self.createdon,
            "pub_date": self.pub_date,
        });
        for entry in tvs {
            let (name, _) = entry.split_once(':').unwrap_or((entry, ""));
            let default = tvs.contains(&format!("{name}:d").as_str());
            let known = VARIABLES.iter().position(|(known, _)| *known == name);
            item["tvs"][name] = json!(known.and_then(|variable| self.value(variable, default)));
        }
        item
    }
}

#[derive(Clone, Debug)]
pub struct Tree {
    pub documents: Vec<Document>,
    /// Distance by ancestor and descendant.
    pub closure: BTreeMap<(i64, i64), i64>,
}

/// What the calls of one round have in common.
#[derive(Clone, Debug)]
pub struct Call {
    pub id: i64,
    pub depth: i64,
    from: i64,
    width: i64,
    pub limit: usize,
    pub offset: usize,
    pub tvs: Vec<&'static str>,
}

fn stored(texts: &'static [&'static str]) -> impl Strategy<Value = Option<Option<&'static str>>> {
    prop::option::weighted(0.75, prop::option::weighted(0.9, prop::sample::select(texts)))
}

fn document() -> impl Strategy<Value = Document> {
    let place = (0..=MOST, 0..6_i64, 0..3_i64);
    let flags = (prop::bool::weighted(0.15), any::<bool>(), prop::bool::weighted(0.3));
    let times = (0..4_i64, prop_oneof![Just(0), 0..4_i64]);
    (place, flags, times, stored(&PRICES), stored(&COLORS)).prop_map(|(place, flags, times, price, color)| {
        let ((parent, menuindex, template), (deleted, published, hidemenu)) = (place, flags);
        let (createdon, pub_date) = times;
        let values = [price, color];
        Document { id: 0, parent, menuindex, deleted, published, hidemenu, template, createdon, pub_date, values }
    })
}

/// Documents, as a tree or with cycles among the parents, and a closure that may be stale and lack rows.
pub fn tree() -> impl Strategy<Value = Tree> {
    let closure =
        (prop::collection::vec((1..=MOST, 1..=MOST, 0..5_i64), 0..4), prop::collection::vec(0..100_usize, 0..6));
    (prop::collection::vec(document(), 1..=MOST as usize), any::<bool>(), closure).prop_map(
        |(mut documents, acyclic, (stale, missing))| {
            for (id, document) in (1..).zip(&mut documents) {
                document.id = id;
                if acyclic {
                    // A parent with a lower id makes no cycle.
                    document.parent %= id;
                }
            }
            let mut closure = BTreeMap::new();
            for document in &documents {
                let (mut above, mut distance) = (document.id, 0);
                while above != 0 && !closure.contains_key(&(above, document.id)) {
                    closure.insert((above, document.id), distance);
                    distance += 1;
                    above = documents.iter().find(|other| other.id == above).map_or(0, |other| other.parent);
                }
            }
            for (ancestor, descendant, distance) in stale {
                closure.entry((ancestor, descendant)).or_insert(distance);
            }
            for at in missing {
                if let Some(key) = closure.keys().nth(at).copied() {
                    closure.remove(&key);
                }
            }
            Tree { documents, closure }
        },
    )
}

pub fn call() -> impl Strategy<Value = Call> {
    let tvs = prop::sample::subsequence(vec!["price", "color:d", "unknown", "price:d", "color", "Price"], 0..=6);
    ((1..=MOST + 1, 1..=6_i64, 0..6_i64, 0..4_i64), (1..20_usize, 0..4_usize), tvs).prop_map(
        |((id, depth, from, width), (limit, offset), tvs)| Call { id, depth, from, width, limit, offset, tvs },
    )
}

impl Tree {
    pub fn live(&self, id: i64) -> Option<&Document> {
        self.documents.iter().find(|document| document.id == id && !document.deleted)
    }

    /// The live documents that pass, sorted by a key.
    fn found<K: Ord>(&self, pass: impl Fn(&Document) -> bool, key: impl Fn(&Document) -> K) -> Vec<&Document> {
        let mut found: Vec<&Document> = self.documents.iter().filter(|d| !d.deleted && pass(d)).collect();
        found.sort_by_key(|document| key(document));
        found
    }

    fn distance(&self, ancestor: i64, descendant: i64) -> Option<i64> {
        self.closure.get(&(ancestor, descendant)).copied()
    }

    pub fn below(&self, ancestor: i64, document: &Document, depth: i64) -> bool {
        ancestor != document.id && self.distance(ancestor, document.id).is_some_and(|distance| distance <= depth)
    }

    pub fn below_roots(&self, document: &Document, depth: i64, live: bool) -> bool {
        let mut roots = self.documents.iter().filter(|root| root.parent == 0 && !(live && root.deleted));
        roots.any(|root| self.distance(root.id, document.id).is_some_and(|distance| distance <= depth))
    }

    fn siblings(&self, id: i64, pass: impl Fn(i64, i64) -> bool) -> Vec<&Document> {
        let Some(own) = self.live(id) else { return Vec::new() };
        let near = |d: &Document| d.parent == own.parent && d.id != id && pass(d.menuindex, own.menuindex);
        self.found(near, |d| (d.menuindex, d.id))
    }

    /// Each tool beside `search`, its own arguments, and the whole list that it should be paging through.
    pub fn expected(&self, call: &Call) -> Vec<(&'static str, Value, Vec<&Document>)> {
        let Call { id, depth, from, width, .. } = *call;
        let to = from + width;
        let range = |index: i64| (from..=to).contains(&index);
        let menu = |d: &Document| (d.menuindex, d.id);
        let mut previous = self.siblings(id, |index, own| index < own);
        previous.reverse();
        let above = |d: &Document| self.distance(d.id, id).filter(|distance| *distance > 0);
        let ancestors =
            |most: i64| self.found(|d| above(d).is_some_and(|at| at <= most), |d| (-above(d).unwrap_or(0), d.id));
        vec![
            ("root_tree", json!({"depth": depth}), self.found(|d| self.below_roots(d, depth, true), |d| d.id)),
            ("root_tree", json!({}), self.found(|d| self.below_roots(d, 1, true), |d| d.id)),
            (
                "descendants",
                json!({"id": id, "depth": depth}),
                self.found(|d| self.below(id, d, depth), |d| (d.parent, d.menuindex, d.id)),
            ),
            ("ancestors", json!({"id": id}), ancestors(i64::MAX)),
            ("ancestors", json!({"id": id, "depth": depth}), ancestors(depth)),
            ("children", json!({"id": id}), self.found(|d| d.parent == id, menu)),
            ("siblings", json!({"id": id}), self.siblings(id, |_, _| true)),
            ("neighbors", json!({"id": id}), self.siblings(id, |index, own| (index - own).abs() == 1)),
            ("prev_siblings", json!({"id": id}), previous),
            ("next_siblings", json!({"id": id}), self.siblings(id, |index, own| index > own)),
            (
                "children_range",
                json!({"id": id, "from": from, "to": to}),
                self.found(|d| d.parent == id && range(d.menuindex), menu),
            ),
            (
                "children_range",
                json!({"id": id, "from": from}),
                self.found(|d| d.parent == id && d.menuindex >= from, menu),
            ),
            ("siblings_range", json!({"id": id, "from": from, "to": to}), self.siblings(id, |index, _| range(index))),
            ("siblings_range", json!({"id": id, "from": from}), self.siblings(id, |index, _| index >= from)),
        ]
    }
}
