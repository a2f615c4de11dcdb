//! Statements over documents, one per tool, and the row they yield.
//!
//! The closure table has one row per (ancestor, descendant) with their distance, self rows at distance 0 included;
//! roots have parent 0 and no ancestor row for it.

use sea_query::{Alias, Condition, Expr, ExprTrait, JoinType, Order, Query, SelectStatement};

use crate::store::below::{self, below, below_roots};
use crate::store::text::{self, Key};
use crate::store::variable::{self, Found, Joins, Tags};
use crate::store::{Dialect, Error, Page, Row, Tables};

pub(in crate::store) const DOCUMENT: &str = "site_content";
pub(in crate::store) const CLOSURE: &str = "site_content_closure";
pub(in crate::store) const TABLES: [&str; 2] = [DOCUMENT, CLOSURE];

/// The columns of a document, in the order of the item.
pub const COLUMNS: [&str; 17] = [
    "id",
    "parent",
    "pagetitle",
    "longtitle",
    "description",
    "alias",
    "published",
    "deleted",
    "hidemenu",
    "menuindex",
    "template",
    "createdon",
    "editedon",
    "pub_date",
    "unpub_date",
    "isfolder",
    "type",
];

/// A document as the tools show it (never its body).
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Document {
    pub id: i64,
    pub parent: i64,
    pub pagetitle: String,
    pub longtitle: String,
    pub description: String,
    pub alias: Option<String>,
    pub published: i64,
    pub deleted: i64,
    pub hidemenu: bool,
    pub menuindex: i64,
    pub template: i64,
    pub createdon: i64,
    pub editedon: i64,
    pub pub_date: i64,
    pub unpub_date: i64,
    pub isfolder: i64,
    #[serde(rename = "type")]
    pub kind: String,
}

impl Document {
    /// Reads a row of any statement of this module.
    ///
    /// # Errors
    /// When a column is missing or holds no UTF-8.
    pub fn read(row: &Row) -> Result<Self, Error> {
        let text = |column| row.text(column).map(Option::unwrap_or_default);
        Ok(Self {
            id: row.integer(0)?,
            parent: row.integer(1)?,
            pagetitle: text(2)?,
            longtitle: text(3)?,
            description: text(4)?,
            alias: row.text(5)?,
            published: row.integer(6)?,
            deleted: row.integer(7)?,
            hidemenu: row.integer(8)? != 0,
            menuindex: row.integer(9)?,
            template: row.integer(10)?,
            createdon: row.integer(11)?,
            editedon: row.integer(12)?,
            pub_date: row.integer(13)?,
            unpub_date: row.integer(14)?,
            isfolder: row.integer(15)?,
            kind: text(16)?,
        })
    }
}

/// How [`search`] sorts after its variables; ids break ties upwards.
#[derive(Clone, Debug, PartialEq)]
pub enum Sort {
    /// By one of the sortable columns.
    Column(&'static str, Order),
    /// By `pub_date` where it is set, else by `createdon`.
    Date(Order),
}

/// What [`search`] looks for.
#[derive(Clone, Debug, PartialEq)]
pub struct Search {
    /// Below this document (0: below the site), at most `depth` levels.
    pub parent: Option<i64>,
    pub depth: i64,
    pub published: Option<bool>,
    pub deleted: bool,
    pub template: Option<i64>,
    pub hidemenu: Option<bool>,
    pub tags: Option<Tags>,
    pub sort: Sort,
}

/// Menu indexes, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    pub from: i64,
    /// `None`: open.
    pub to: Option<i64>,
}

/// Which documents under the same parent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Siblings {
    All,
    /// Those whose menu index is one less or one more.
    Neighbors,
    /// Those with a lower one, the nearest first.
    Previous,
    /// Those with a higher one.
    Next,
    Within(Range),
}

/// A statement before it is sorted and cut into pages.
struct Selection {
    statement: SelectStatement,
    /// The first key counts most; the last one must be unique.
    order: Vec<Key>,
}

/// Documents by property, and by place when `parent` is given.
#[must_use]
pub fn search(tables: &Tables, search: &Search, wanted: &Found, page: Page) -> SelectStatement {
    let joins = Joins::of(tables, wanted);
    let narrowing = joins.narrowing();
    let mysql = tables.dialect() == Dialect::MySql;
    let mut statement = match search.parent {
        // A template has an index to begin with.
        Some(parent) if parent != 0 && search.template.is_none() && narrowing > 0 && mysql => {
            let mut statement = below::found_first(tables, parent, search.depth, |statement| {
                joins.join(statement, below::FOUND, ..1, JoinType::InnerJoin);
            });
            joins.join(&mut statement, below::FOUND, 1..narrowing, JoinType::StraightJoin);
            below::documents_last(&mut statement, tables);
            joins.join(&mut statement, ("c", "id"), narrowing.., JoinType::InnerJoin);
            live(&mut statement, search.deleted);
            statement
        }
        parent => {
            let mut statement = documents(tables, search.deleted);
            match parent {
                None => {}
                Some(0) => {
                    statement.and_where(below_roots(tables, search.depth, false, None));
                }
                Some(parent) => below(&mut statement, tables, parent, search.depth),
            }
            joins.join(&mut statement, ("c", "id"), .., JoinType::InnerJoin);
            statement
        }
    };
    if let Some(published) = search.published {
        statement.and_where(column("published").eq(i64::from(published)));
    }
    if let Some(template) = search.template {
        statement.and_where(column("template").eq(template));
    }
    if let Some(hidemenu) = search.hidemenu {
        statement.and_where(text::flag(tables.dialect(), column("hidemenu")).eq(i64::from(hidemenu)));
    }
    if let Some(tags) = &search.tags {
        statement.and_where(variable::tagged(tables, tags));
    }
    for filter in &wanted.filters {
        statement.and_where(joins.condition(filter));
    }
    let mut order: Vec<Key> = wanted.sorts.iter().map(|sort| joins.key(sort)).collect();
    order.push(match &search.sort {
        Sort::Column("pagetitle", order) => Key::of(text::exact(tables.dialect(), column("pagetitle")), order.clone()),
        Sort::Column(name, order) => Key::of(column(name), order.clone()),
        Sort::Date(order) => {
            let date = Expr::case(column("pub_date").ne(0_i64), column("pub_date")).finally(column("createdon"));
            Key::of(date.into(), order.clone())
        }
    });
    if !matches!(search.sort, Sort::Column("id", _)) {
        order.push(Key::of(column("id"), Order::Asc));
    }
    Selection { statement, order }.page(tables, wanted, page)
}

/// One document, or none.
#[must_use]
pub fn item(tables: &Tables, id: i64, wanted: &Found) -> SelectStatement {
    let mut statement = Query::select();
    show(&mut statement, tables, wanted);
    statement
        .from(tables.table(DOCUMENT, "d"))
        .and_where(Expr::col(("d", "id")).eq(id))
        .and_where(Expr::col(("d", "deleted")).eq(0_i64))
        .limit(1);
    statement
}

/// The live roots and what lies at most `depth` levels below each.
#[must_use]
pub fn root_tree(tables: &Tables, depth: i64, wanted: &Found, page: Page) -> SelectStatement {
    let mut statement = documents(tables, false);
    statement.and_where(below_roots(tables, depth, true, below::farthest_below_roots(tables, depth, page)));
    Selection { statement, order: vec![Key::of(column("id"), Order::Asc)] }.page(tables, wanted, page)
}

/// What lies below a document.
#[must_use]
pub fn descendants(tables: &Tables, id: i64, depth: i64, wanted: &Found, page: Page) -> SelectStatement {
    let statement = below::as_far_as(tables, id, depth, page).unwrap_or_else(|| {
        let mut statement = documents(tables, false);
        below(&mut statement, tables, id, depth);
        statement
    });
    let order = ["parent", "menuindex", "id"].map(|name| Key::of(column(name), Order::Asc));
    Selection { statement, order: order.into() }.page(tables, wanted, page)
}

/// What lies above a document, the root first.
#[must_use]
pub fn ancestors(tables: &Tables, id: i64, depth: Option<i64>, wanted: &Found, page: Page) -> SelectStatement {
    let mut statement = documents(tables, false);
    let on = Condition::all().add(closure("ancestor").equals(("c", "id"))).add(closure("descendant").eq(id));
    statement.join(JoinType::InnerJoin, tables.table(CLOSURE, "k"), on).and_where(closure("depth").gt(0_i64));
    if let Some(depth) = depth {
        statement.and_where(closure("depth").lte(depth));
    }
    let order = vec![Key::of(closure("depth"), Order::Desc), Key::of(column("id"), Order::Asc)];
    Selection { statement, order }.page(tables, wanted, page)
}

/// The documents directly below one.
#[must_use]
pub fn children(tables: &Tables, id: i64, range: Option<Range>, wanted: &Found, page: Page) -> SelectStatement {
    let mut statement = documents(tables, false);
    statement.and_where(column("parent").eq(id));
    if let Some(range) = range {
        within(&mut statement, range);
    }
    Selection { statement, order: menu(Order::Asc) }.page(tables, wanted, page)
}

/// Other documents under the same parent; none when the document itself is missing or deleted.
#[must_use]
pub fn siblings(tables: &Tables, id: i64, which: Siblings, wanted: &Found, page: Page) -> SelectStatement {
    let mut statement = documents(tables, false);
    let own = |name: &'static str| Expr::col(("s", name));
    let on =
        Condition::all().add(own("parent").equals(("c", "parent"))).add(own("id").eq(id)).add(own("deleted").eq(0_i64));
    statement.join(JoinType::InnerJoin, tables.table(DOCUMENT, "s"), on).and_where(column("id").ne(id));
    match which {
        Siblings::All => {}
        Siblings::Neighbors => {
            // Sums only: an unsigned column has nothing below 0.
            let before = column("menuindex").add(1_i64).eq(own("menuindex"));
            let after = own("menuindex").add(1_i64).eq(column("menuindex"));
            statement.cond_where(Condition::any().add(before).add(after));
        }
        Siblings::Previous => {
            statement.and_where(column("menuindex").lt(own("menuindex")));
        }
        Siblings::Next => {
            statement.and_where(column("menuindex").gt(own("menuindex")));
        }
        Siblings::Within(range) => within(&mut statement, range),
    }
    let order = if which == Siblings::Previous { menu(Order::Desc) } else { menu(Order::Asc) };
    Selection { statement, order }.page(tables, wanted, page)
}

impl Selection {
    /// The page's statement: its ids are found and sorted first, and what is shown is fetched for these alone. The keys
    /// go along, since the order of a subquery promises nothing about what is made of it.
    fn page(self, tables: &Tables, wanted: &Found, page: Page) -> SelectStatement {
        let Self { statement: mut inner, order } = self;
        let dialect = tables.dialect();
        let mut outer = Query::select();
        show(&mut outer, tables, wanted);
        inner.expr_as(column("id"), "id");
        let mut sorted = Vec::with_capacity(order.len());
        for (at, key) in order.into_iter().enumerate() {
            let name = Alias::new(format!("key{at}"));
            inner.expr_as(key.by, name.clone());
            Key { by: Expr::col(name.clone()), order: key.order.clone(), ..key }.sort(dialect, &mut inner);
            sorted.push(Key { by: Expr::col(("p", name)), order: key.order, ..key });
        }
        inner.limit(page.limit).offset(page.offset);
        let same = Expr::col(("d", "id")).equals(("p", "id"));
        outer.from_subquery(inner, "p").join(JoinType::InnerJoin, tables.table(DOCUMENT, "d"), same);
        for key in sorted {
            key.sort(dialect, &mut outer);
        }
        outer
    }
}

/// What answers show of the document `d`.
fn show(statement: &mut SelectStatement, tables: &Tables, wanted: &Found) {
    for name in COLUMNS {
        statement.expr(tables.column(DOCUMENT, "d", name));
    }
    for output in &wanted.outputs {
        statement.expr(variable::shown(tables, output));
    }
}

/// The documents `c` among which a statement selects.
fn documents(tables: &Tables, deleted: bool) -> SelectStatement {
    let mut statement = Query::select();
    statement.from(tables.table(DOCUMENT, "c"));
    live(&mut statement, deleted);
    statement
}

/// Live documents, or deleted ones.
fn live(statement: &mut SelectStatement, deleted: bool) {
    statement.and_where(column("deleted").eq(i64::from(deleted)));
}

fn within(statement: &mut SelectStatement, range: Range) {
    statement.and_where(column("menuindex").gte(range.from));
    if let Some(to) = range.to {
        statement.and_where(column("menuindex").lte(to));
    }
}

fn menu(order: Order) -> Vec<Key> {
    vec![Key::of(column("menuindex"), order.clone()), Key::of(column("id"), order)]
}

fn column(name: &'static str) -> Expr {
    Expr::col(("c", name))
}

fn closure(name: &'static str) -> Expr {
    Expr::col(("k", name))
}
