//! What lies below a document, or below the roots: the closure's part in statements.
//!
//! MySQL and MariaDB pay for each row that an index does not answer for, and the closure's index lacks the depth. Where
//! nothing on the site lies deeper than is wanted, a search need not look it up ([`found_first`]). Else a page is told
//! how far it can reach ([`farthest_parent`], [`farthest_below_roots`]), and what lies beyond is left out by the index.
//! That is sound whatever the site's rows say: if as many rows of an answer as a page ends after sort no higher than
//! some key, then so do all the rows of that page, and only rows that meet all conditions of the answer count. The rows
//! that are tried are those likely to sort lowest; where too few of them meet the conditions, there is no bound, and
//! the statement looks at everything.

use sea_query::{Condition, Expr, ExprTrait, Func, JoinType, Order, Query, SelectStatement, UnionType};

use crate::store::content::{CLOSURE, DOCUMENT};
use crate::store::{Dialect, Page, Tables};

/// From how many levels on most of what lies below a document is wanted.
const DEEP: i64 = 3;
/// Pages that end later are not told how far they reach: to find out would cost too much.
const FARTHEST: u64 = 500;
/// How many rows are tried for each row up to the page's end: below a document, and on each level below the roots.
const TRIED: u64 = 4;
const TRIED_PER_LEVEL: u64 = 2;
/// The column of the ids that [`found_first`] yields.
pub(in crate::store) const FOUND: (&str, &str) = ("k", "descendant");
/// What stands for no bound: no id is higher.
const UNBOUND: i64 = i64::MAX;

/// Joins the closure's rows `k` to the documents `c`: those below a document.
pub(in crate::store) fn below(statement: &mut SelectStatement, tables: &Tables, ancestor: i64, depth: i64) {
    let on = Condition::all().add(row("descendant").equals(("c", "id"))).add(row("ancestor").eq(ancestor));
    statement.join(JoinType::InnerJoin, tables.table(CLOSURE, "k"), on);
    within(statement, ancestor, depth);
}

/// The ids below a document, [`FOUND`], before the documents are looked up: `first` joins what leaves fewest of them.
/// Which of the two comes first stays the engine's choice, and the depth comes after both.
pub(in crate::store) fn found_first(
    tables: &Tables,
    ancestor: i64,
    depth: i64,
    first: impl FnOnce(&mut SelectStatement),
) -> SelectStatement {
    let mut statement = Query::select();
    statement.from(tables.table(CLOSURE, "k")).and_where(row("ancestor").eq(ancestor));
    statement.and_where(near(tables, ancestor, row("descendant")));
    first(&mut statement);
    if tables.has(CLOSURE, "closure_id") && tables.indexed(CLOSURE, "depth") {
        within_if_deeper(&mut statement, tables, ancestor, depth);
    } else {
        within(&mut statement, ancestor, depth);
    }
    statement
}

/// Joins the documents `c` to ids that were found, after all else that was joined.
pub(in crate::store) fn documents_last(statement: &mut SelectStatement, tables: &Tables) {
    let document = Expr::col(("c", "id")).equals(FOUND);
    statement.join(JoinType::StraightJoin, tables.table(DOCUMENT, "c"), document);
}

/// The closure's entries `e` for what lies below a document, from the index alone.
fn entries(tables: &Tables, ancestor: i64) -> SelectStatement {
    let mut statement = Query::select();
    statement.from(tables.table(CLOSURE, "e")).and_where(entry("ancestor").eq(ancestor));
    statement
}

/// Joins the documents `c` and then the closure's rows `k` to its entries `e`.
fn rows(statement: &mut SelectStatement, tables: &Tables, ancestor: i64, depth: i64) {
    let document = Expr::col(("c", "id")).equals(("e", "descendant"));
    let same = row("closure_id").equals(("e", "closure_id"));
    statement.join(JoinType::StraightJoin, tables.table(DOCUMENT, "c"), document).join(
        JoinType::StraightJoin,
        tables.table(CLOSURE, "k"),
        same,
    );
    within(statement, ancestor, depth);
}

/// The live documents `c` below a document, as far as a page can reach that is sorted by their parents; `None` where
/// that is not worth finding out. The closure's rows are looked up last.
pub(in crate::store) fn as_far_as(tables: &Tables, ancestor: i64, depth: i64, page: Page) -> Option<SelectStatement> {
    let most = farthest_parent(tables, ancestor, depth, page)?;
    let mut statement = entries(tables, ancestor);
    rows(&mut statement, tables, ancestor, depth);
    statement.and_where(Expr::col(("c", "deleted")).eq(0_i64));
    bounded(&mut statement, most, Expr::col(("c", "parent")));
    Some(statement)
}

/// That a document's id lies between the lowest and the highest below another: what comes from the closure anyway, said
/// in a way that lets the engine begin elsewhere.
fn near(tables: &Tables, ancestor: i64, id: Expr) -> Expr {
    let end = |of: fn(Expr) -> sea_query::FunctionCall| {
        let mut statement = Query::select();
        statement
            .expr(of(Expr::col(("m", "descendant"))))
            .from(tables.table(CLOSURE, "m"))
            .and_where(Expr::col(("m", "ancestor")).eq(ancestor));
        subquery(statement)
    };
    id.between(end(Func::min), end(Func::max))
}

/// Below (or itself) a root. A document that stale rows put below two roots is still one document. `most` is a
/// statement of one row, the highest id that is wanted.
pub(in crate::store) fn below_roots(tables: &Tables, depth: i64, live: bool, most: Option<SelectStatement>) -> Expr {
    let root = |name: &'static str| Expr::col(("r", name));
    let mut descendants = Query::select();
    descendants
        .column(("k", "descendant"))
        .from(tables.table(CLOSURE, "k"))
        .join(JoinType::InnerJoin, tables.table(DOCUMENT, "r"), root("id").equals(("k", "ancestor")))
        .and_where(root("parent").eq(0_i64))
        .and_where(row("depth").lte(depth));
    if live {
        descendants.and_where(root("deleted").eq(0_i64));
    }
    if let Some(most) = most {
        bounded(&mut descendants, most, row("descendant"));
    }
    Expr::col(("c", "id")).in_subquery(descendants)
}

/// Keeps what is at most the one value of `most`.
fn bounded(statement: &mut SelectStatement, most: SelectStatement, what: Expr) {
    // As a table of one row it is read once and before all else, and counts as a constant from then on.
    statement.join_subquery(JoinType::InnerJoin, most, "o", what.lte(Expr::col(("o", "most"))));
}

/// The highest parent that a page of live documents below another can show, when these are sorted by their parents.
fn farthest_parent(tables: &Tables, ancestor: i64, depth: i64, page: Page) -> Option<SelectStatement> {
    // Where few levels are wanted, the depth leaves out more than any bound.
    let worth = tables.dialect() == Dialect::MySql && tables.has(CLOSURE, "closure_id") && depth >= DEEP;
    let end = worth.then(|| end(page)).flatten()?;
    // Documents are mostly made after what they lie below, so that low ids have low parents.
    let mut tried = entries(tables, ancestor);
    tried
        .columns([("e", "closure_id"), ("e", "descendant")])
        .order_by(("e", "descendant"), Order::Asc)
        .limit(end * TRIED);
    let mut found = Query::select();
    found.expr_as(Expr::col(("c", "parent")), "key").from_subquery(tried, "e");
    rows(&mut found, tables, ancestor, depth);
    found.and_where(Expr::col(("c", "deleted")).eq(0_i64));
    Some(farthest(found, end))
}

/// The highest id that a page of the live roots and what lies below them can show, when these are sorted by their ids.
pub(in crate::store) fn farthest_below_roots(tables: &Tables, depth: i64, page: Page) -> Option<SelectStatement> {
    let end = (tables.dialect() == Dialect::MySql).then(|| end(page)).flatten()?;
    // Two levels by their parents; further down, there are only higher ids, or too many.
    let mut level = Query::select();
    level
        .column(("a", "id"))
        .expr_as(Expr::col(("a", "id")), "root")
        .from(tables.table(DOCUMENT, "a"))
        .and_where(Expr::col(("a", "parent")).eq(0_i64));
    let mut tried: Option<SelectStatement> = None;
    for _ in 0..=depth.clamp(0, 2) {
        level.order_by(("a", "id"), Order::Asc).limit(end * TRIED_PER_LEVEL);
        let mut all = Query::select();
        all.columns([("w", "id"), ("w", "root")]).from_subquery(level.clone(), "w");
        match &mut tried {
            None => tried = Some(all),
            Some(tried) => {
                tried.union(UnionType::All, all);
            }
        }
        let mut next = Query::select();
        next.columns([("a", "id"), ("w", "root")]).from_subquery(level, "w").join(
            JoinType::StraightJoin,
            tables.table(DOCUMENT, "a"),
            Expr::col(("a", "parent")).equals(("w", "id")),
        );
        level = next;
    }
    let tried_row =
        Condition::all().add(row("ancestor").equals(("t", "root"))).add(row("descendant").equals(("t", "id")));
    let mut found = Query::select();
    found
        .expr_as(Expr::col(("c", "id")), "key")
        .from_subquery(tried?, "t")
        .join(JoinType::StraightJoin, tables.table(CLOSURE, "k"), tried_row)
        .join(JoinType::StraightJoin, tables.table(DOCUMENT, "c"), Expr::col(("c", "id")).equals(("t", "id")))
        .join(JoinType::StraightJoin, tables.table(DOCUMENT, "r"), Expr::col(("r", "id")).equals(("t", "root")))
        .and_where(row("depth").lte(depth))
        .and_where(Expr::col(("c", "deleted")).eq(0_i64))
        .and_where(Expr::col(("r", "deleted")).eq(0_i64));
    Some(farthest(found, end))
}

/// After how many rows a page ends, unless that is too many.
fn end(page: Page) -> Option<u64> {
    page.offset.checked_add(page.limit).filter(|end| (1..=FARTHEST).contains(end))
}

/// The key of the last of so many rows.
fn farthest(mut found: SelectStatement, end: u64) -> SelectStatement {
    found.order_by("key", Order::Asc).limit(1).offset(end - 1);
    let mut most = Query::select();
    most.expr_as(Func::coalesce([subquery(found), Expr::val(UNBOUND)]), "most");
    most
}

/// Nothing lies below itself.
fn within(statement: &mut SelectStatement, ancestor: i64, depth: i64) {
    statement.and_where(row("descendant").ne(ancestor)).and_where(row("depth").lte(depth));
}

/// The same, where an index knows the deepest of all: if that is not too deep, no row's depth is looked up.
fn within_if_deeper(statement: &mut SelectStatement, tables: &Tables, ancestor: i64, depth: i64) {
    let deepest = || Expr::col(("o", "deepest"));
    let mut most = Query::select();
    most.expr_as(Func::max(Expr::col(("m", "depth"))), "deepest").from(tables.table(CLOSURE, "m"));
    // As a table of one row it is read before all else, and counts as a constant from then on. No row has a null for
    // its key, and engines know it.
    let looked_up = Expr::case(deepest().gt(depth), row("closure_id"));
    statement.join_subquery(JoinType::InnerJoin, most, "o", deepest().is_not_null()).join(
        JoinType::LeftJoin,
        tables.table(CLOSURE, "f"),
        Expr::col(("f", "closure_id")).eq(looked_up),
    );
    let reached = Condition::any().add(deepest().lte(depth)).add(Expr::col(("f", "depth")).lte(depth));
    statement.and_where(row("descendant").ne(ancestor)).cond_where(reached);
}

fn subquery(statement: SelectStatement) -> Expr {
    Expr::SubQuery(None, Box::new(statement.into()))
}

fn row(name: &'static str) -> Expr {
    Expr::col(("k", name))
}

fn entry(name: &'static str) -> Expr {
    Expr::col(("e", name))
}
