//! Statements over documents, one per tool, and the row they yield.
//!
//! The closure table has one row per (ancestor, descendant) with their distance, self rows at distance 0 included;
//! roots have parent 0 and no ancestor row for it.

use sea_query::{Condition, Expr, ExprTrait, JoinType, Order, Query, SelectStatement};

use crate::store::{Error, Page, Row, Tables};

const DOCUMENT: &str = "site_content";
const CLOSURE: &str = "site_content_closure";

/// The columns of a document, in the order of the item.
const COLUMNS: [&str; 17] = [
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

/// How [`search`] sorts; ids break ties upwards.
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
    pub sort: Sort,
}

/// Documents by property, and by place when `parent` is given.
#[must_use]
pub fn search(tables: &Tables, search: &Search, page: Page) -> SelectStatement {
    let mut statement = documents(tables, search.deleted);
    match search.parent {
        None => {}
        Some(0) => {
            below_roots(&mut statement, tables, search.depth);
        }
        Some(parent) => {
            below(&mut statement, tables, parent, search.depth);
        }
    }
    if let Some(published) = search.published {
        statement.and_where(column("published").eq(i64::from(published)));
    }
    if let Some(template) = search.template {
        statement.and_where(column("template").eq(template));
    }
    if let Some(hidemenu) = search.hidemenu {
        statement.and_where(column("hidemenu").eq(hidemenu));
    }
    match &search.sort {
        Sort::Column(name, order) => statement.order_by(("c", *name), order.clone()),
        Sort::Date(order) => {
            let date = Expr::case(column("pub_date").ne(0_i64), column("pub_date")).finally(column("createdon"));
            statement.order_by_expr(date.into(), order.clone())
        }
    };
    if !matches!(search.sort, Sort::Column("id", _)) {
        statement.order_by(("c", "id"), Order::Asc);
    }
    paged(statement, page)
}

/// One document, or none.
#[must_use]
pub fn item(tables: &Tables, id: i64) -> SelectStatement {
    let mut statement = documents(tables, false);
    statement.and_where(column("id").eq(id));
    paged(statement, Page { limit: 1, offset: 0 })
}

/// The live roots and what lies at most `depth` levels below each.
#[must_use]
pub fn root_tree(tables: &Tables, depth: i64, page: Page) -> SelectStatement {
    let mut statement = documents(tables, false);
    below_roots(&mut statement, tables, depth);
    statement.and_where(Expr::col(("r", "deleted")).eq(0_i64)).order_by(("c", "id"), Order::Asc);
    paged(statement, page)
}

/// What lies below a document.
#[must_use]
pub fn descendants(tables: &Tables, id: i64, depth: i64, page: Page) -> SelectStatement {
    let mut statement = documents(tables, false);
    below(&mut statement, tables, id, depth);
    statement
        .order_by(("c", "parent"), Order::Asc)
        .order_by(("c", "menuindex"), Order::Asc)
        .order_by(("c", "id"), Order::Asc);
    paged(statement, page)
}

/// What lies above a document, the root first.
#[must_use]
pub fn ancestors(tables: &Tables, id: i64, depth: Option<i64>, page: Page) -> SelectStatement {
    let mut statement = documents(tables, false);
    let on = Condition::all().add(closure("ancestor").equals(("c", "id"))).add(closure("descendant").eq(id));
    statement.join(JoinType::InnerJoin, tables.table(CLOSURE, "k"), on).and_where(closure("depth").gt(0_i64));
    if let Some(depth) = depth {
        statement.and_where(closure("depth").lte(depth));
    }
    statement.order_by(("k", "depth"), Order::Desc).order_by(("c", "id"), Order::Asc);
    paged(statement, page)
}

/// The documents directly below one.
#[must_use]
pub fn children(tables: &Tables, id: i64, page: Page) -> SelectStatement {
    let mut statement = documents(tables, false);
    statement
        .and_where(column("parent").eq(id))
        .order_by(("c", "menuindex"), Order::Asc)
        .order_by(("c", "id"), Order::Asc);
    paged(statement, page)
}

/// The other documents under the same parent; none when the document itself is missing or deleted.
#[must_use]
pub fn siblings(tables: &Tables, id: i64, page: Page) -> SelectStatement {
    let mut statement = documents(tables, false);
    let on = Condition::all()
        .add(Expr::col(("s", "parent")).equals(("c", "parent")))
        .add(Expr::col(("s", "id")).eq(id))
        .add(Expr::col(("s", "deleted")).eq(0_i64));
    statement
        .join(JoinType::InnerJoin, tables.table(DOCUMENT, "s"), on)
        .and_where(column("id").ne(id))
        .order_by(("c", "menuindex"), Order::Asc)
        .order_by(("c", "id"), Order::Asc);
    paged(statement, page)
}

fn documents(tables: &Tables, deleted: bool) -> SelectStatement {
    let mut statement = Query::select();
    for name in COLUMNS {
        statement.column(("c", name));
    }
    statement.from(tables.table(DOCUMENT, "c"));
    statement.and_where(column("deleted").eq(i64::from(deleted)));
    statement
}

fn below(statement: &mut SelectStatement, tables: &Tables, ancestor: i64, depth: i64) {
    let on = Condition::all().add(closure("descendant").equals(("c", "id"))).add(closure("ancestor").eq(ancestor));
    statement
        .join(JoinType::InnerJoin, tables.table(CLOSURE, "k"), on)
        .and_where(closure("depth").gt(0_i64))
        .and_where(closure("depth").lte(depth));
}

fn below_roots(statement: &mut SelectStatement, tables: &Tables, depth: i64) {
    let root = Condition::all()
        .add(Expr::col(("r", "id")).equals(("k", "ancestor")))
        .add(Expr::col(("r", "parent")).eq(0_i64));
    statement
        .join(JoinType::InnerJoin, tables.table(CLOSURE, "k"), closure("descendant").equals(("c", "id")))
        .join(JoinType::InnerJoin, tables.table(DOCUMENT, "r"), root)
        .and_where(closure("depth").lte(depth));
}

fn paged(mut statement: SelectStatement, page: Page) -> SelectStatement {
    statement.limit(page.limit).offset(page.offset);
    statement
}

fn column(name: &'static str) -> Expr {
    Expr::col(("c", name))
}

fn closure(name: &'static str) -> Expr {
    Expr::col(("k", name))
}
