//! Template variables: values kept beside documents, by which a search may filter and sort, and which answers may show
//! (emcp.md 8.7).
//!
//! A variable's value is joined once per statement however often it is asked for, by its id: names are looked up
//! before. Values that are only shown are fetched for the rows of the page alone.

use std::collections::HashMap;
use std::ops::RangeBounds;

use sea_query::{Condition, Expr, ExprTrait, Func, IntoIden, JoinType, Order, Query, SelectStatement};

use crate::store::text::{self, Anchor, Cast, Comparison, Key, Wildcards};
use crate::store::{Error, Row, Tables};

pub(in crate::store) const DEFINITION: &str = "site_tmplvars";
pub(in crate::store) const VALUE: &str = "site_tmplvar_contentvalues";
/// The tables of an add-on.
const TAG: &str = "tags";
const TAGGED: &str = "site_content_tags";
pub(in crate::store) const TABLES: [&str; 4] = [DEFINITION, VALUE, TAG, TAGGED];

/// The ids of a site's template variables by name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Variables(HashMap<String, i64>);

impl Variables {
    /// Reads the rows of [`names`]; of two variables with one name, the older one counts.
    ///
    /// # Errors
    /// When a row is malformed.
    pub fn read(rows: &[Row]) -> Result<Self, Error> {
        let mut ids = HashMap::with_capacity(rows.len());
        for row in rows {
            ids.entry(row.text(1)?.unwrap_or_default()).or_insert(row.integer(0)?);
        }
        Ok(Self(ids))
    }

    /// The id of the variable of this exact name.
    #[must_use]
    pub fn id(&self, name: &str) -> Option<i64> {
        self.0.get(name).copied()
    }
}

/// A variable that answers show.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Output<V> {
    pub variable: V,
    /// The default stands in where a document has no value.
    pub default: bool,
}

/// A condition on a variable; a document without a value meets [`Test::Null`] only.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Filter<V> {
    pub variable: V,
    pub test: Test,
    /// The default stands in where a document has no value.
    pub use_default: bool,
}

/// What a filter asks of a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Test {
    Compare(Comparison, String),
    /// As numbers; the text is an optional minus, digits and an optional fraction.
    Number(Comparison, Cast, String),
    In(Vec<String>),
    NotIn(Vec<String>),
    Like(Anchor, String),
    Null,
    NotNull,
}

impl Test {
    /// How much a test is likely to leave, the least first.
    const fn breadth(&self) -> u8 {
        match self {
            Self::Compare(Comparison::Equal, _) | Self::Number(Comparison::Equal, ..) | Self::In(_) => 0,
            Self::Like(..) => 1,
            Self::Compare(..) | Self::Number(..) => 2,
            Self::NotIn(_) | Self::NotNull => 3,
            Self::Null => 4,
        }
    }
}

/// A term to sort by; nulls are lowest.
#[derive(Clone, Debug, PartialEq)]
pub struct Sort<V> {
    pub variable: V,
    pub order: Order,
    pub cast: Option<Cast>,
    pub use_default: bool,
}

/// What a call wants of variables; `V` names those that it must find, `O` those that it may show.
#[derive(Clone, Debug, PartialEq)]
pub struct Wanted<O, V> {
    pub outputs: Vec<Output<O>>,
    /// All must hold.
    pub filters: Vec<Filter<V>>,
    /// These come before all else.
    pub sorts: Vec<Sort<V>>,
}

/// As a caller says it.
pub type Named = Wanted<String, String>;
/// As statements need it: ids, and `None` for what is shown as null.
pub type Found = Wanted<Option<i64>, i64>;

impl<O, V> Default for Wanted<O, V> {
    fn default() -> Self {
        Self { outputs: Vec::new(), filters: Vec::new(), sorts: Vec::new() }
    }
}

/// A variable that the site does not have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unknown {
    Filter(String),
    Sort(String),
}

impl Named {
    /// Every name, as often as it stands there.
    #[must_use]
    pub fn names(&self) -> Vec<&str> {
        let outputs = self.outputs.iter().map(|output| &output.variable);
        let filters = self.filters.iter().map(|filter| &filter.variable);
        outputs.chain(filters).chain(self.sorts.iter().map(|sort| &sort.variable)).map(String::as_str).collect()
    }

    /// Looks the names up.
    ///
    /// # Errors
    /// When one to filter or sort by is not there.
    pub fn find(&self, variables: &Variables) -> Result<Found, Unknown> {
        let outputs = self
            .outputs
            .iter()
            .map(|output| Output { variable: variables.id(&output.variable), default: output.default });
        let filters = self.filters.iter().map(|filter| {
            let variable = variables.id(&filter.variable).ok_or_else(|| Unknown::Filter(filter.variable.clone()))?;
            Ok(Filter { variable, test: filter.test.clone(), use_default: filter.use_default })
        });
        let sorts = self.sorts.iter().map(|sort| {
            let variable = variables.id(&sort.variable).ok_or_else(|| Unknown::Sort(sort.variable.clone()))?;
            Ok(Sort { variable, order: sort.order.clone(), cast: sort.cast, use_default: sort.use_default })
        });
        Ok(Wanted {
            outputs: outputs.collect(),
            filters: filters.collect::<Result<_, _>>()?,
            sorts: sorts.collect::<Result<_, _>>()?,
        })
    }
}

/// Documents that have one tag of several.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tags {
    pub variable: i64,
    pub names: Vec<String>,
}

impl Tags {
    /// Whether the site keeps tags at all.
    #[must_use]
    pub fn served(tables: &Tables) -> bool {
        tables.has_table(TAG) && tables.has_table(TAGGED)
    }
}

/// Every variable's id and name, the oldest first.
#[must_use]
pub fn names(tables: &Tables) -> SelectStatement {
    let mut statement = Query::select();
    statement
        .columns([("t", "id"), ("t", "name")])
        .from(tables.table(DEFINITION, "t"))
        .order_by(("t", "id"), Order::Asc);
    statement
}

/// The variables that a statement over `c` joins.
pub(in crate::store) struct Joins<'a> {
    tables: &'a Tables,
    /// Variable, and whether only documents with a value matter; these come first.
    joined: Vec<(i64, bool)>,
}

impl<'a> Joins<'a> {
    pub(in crate::store) fn of(tables: &'a Tables, wanted: &Found) -> Self {
        let mut joins = Self { tables, joined: Vec::new() };
        // Where they expect the same of two joins, engines take them in this order: what leaves least comes first.
        let mut filters: Vec<&Filter<i64>> = wanted.filters.iter().collect();
        filters.sort_by_key(|filter| (filter.use_default, filter.test.breadth()));
        for filter in filters {
            joins.need(filter.variable, !filter.use_default && filter.test != Test::Null);
        }
        for sort in &wanted.sorts {
            joins.need(sort.variable, false);
        }
        joins
    }

    fn need(&mut self, variable: i64, present: bool) {
        match self.joined.iter_mut().find(|(joined, _)| *joined == variable) {
            Some((_, inner)) => *inner |= present,
            None => self.joined.push((variable, present)),
        }
    }

    /// How many variables there are without whose value a document does not matter.
    pub(in crate::store) fn narrowing(&self) -> usize {
        self.joined.iter().take_while(|(_, present)| *present).count()
    }

    /// Joins variables to the documents whose ids stand in a column; `narrowing` says how those without whose value a
    /// document does not matter.
    pub(in crate::store) fn join(
        &self,
        statement: &mut SelectStatement,
        document: (&'static str, &'static str),
        which: impl RangeBounds<usize>,
        narrowing: JoinType,
    ) {
        for (at, (id, present)) in self.joined.iter().enumerate().filter(|(at, _)| which.contains(at)) {
            let on = Condition::all()
                .add(Expr::col((alias(at), "contentid")).equals(document))
                .add(Expr::col((alias(at), "tmplvarid")).eq(*id));
            let kind = if *present { narrowing } else { JoinType::LeftJoin };
            statement.join(kind, self.tables.table(VALUE, alias(at)), on);
        }
    }

    /// What a variable is worth to a document.
    fn value(&self, variable: i64, use_default: bool) -> Expr {
        let at = self.joined.iter().position(|(joined, _)| *joined == variable);
        let at = at.expect("every variable that is asked for was joined");
        or_default(self.tables, Expr::col((alias(at), "value")), variable, use_default)
    }

    pub(in crate::store) fn condition(&self, filter: &Filter<i64>) -> Expr {
        let dialect = self.tables.dialect();
        let value = self.value(filter.variable, filter.use_default);
        match &filter.test {
            Test::Compare(comparison, text) => comparison.of(text::exact(dialect, value), Expr::val(text.clone())),
            Test::Number(comparison, cast, digits) => {
                comparison.of(text::number(dialect, value, *cast), text::digits(dialect, digits, *cast))
            }
            Test::In(texts) => text::exact(dialect, value).is_in(texts.iter().cloned()),
            Test::NotIn(texts) => text::exact(dialect, value).is_not_in(texts.iter().cloned()),
            Test::Like(anchor, text) => text::like(dialect, value, *anchor, text, Wildcards::Active),
            Test::Null => value.is_null(),
            Test::NotNull => value.is_not_null(),
        }
    }

    pub(in crate::store) fn key(&self, sort: &Sort<i64>) -> Key {
        let dialect = self.tables.dialect();
        let value = self.value(sort.variable, sort.use_default);
        let by = match sort.cast {
            Some(cast) => text::number(dialect, value, cast),
            None => text::exact(dialect, value),
        };
        Key { by, order: sort.order.clone(), nullable: true }
    }
}

/// Documents of `c` with one of the tags.
pub(in crate::store) fn tagged(tables: &Tables, tags: &Tags) -> Expr {
    let name = text::exact(tables.dialect(), Expr::col(("g", "name")));
    let mut statement = Query::select();
    statement
        .expr(Expr::cust("1"))
        .from(tables.table(TAGGED, "x"))
        .join(JoinType::InnerJoin, tables.table(TAG, "g"), Expr::col(("g", "id")).equals(("x", "tag_id")))
        .and_where(Expr::col(("x", "doc_id")).equals(("c", "id")))
        .and_where(Expr::col(("x", "tv_id")).eq(tags.variable))
        .and_where(name.is_in(tags.names.iter().cloned()));
    Expr::exists(statement)
}

/// The value that the document of alias `d` shows.
pub(in crate::store) fn shown(tables: &Tables, output: &Output<Option<i64>>) -> Expr {
    let Some(id) = output.variable else { return Expr::null() };
    let mut value = Query::select();
    value
        .column(("v", "value"))
        .from(tables.table(VALUE, "v"))
        .and_where(Expr::col(("v", "contentid")).equals(("d", "id")))
        .and_where(Expr::col(("v", "tmplvarid")).eq(id))
        .limit(1);
    or_default(tables, subquery(value), id, output.default)
}

fn or_default(tables: &Tables, value: Expr, id: i64, use_default: bool) -> Expr {
    if !use_default {
        return value;
    }
    let mut default = Query::select();
    default.column(("t", "default_text")).from(tables.table(DEFINITION, "t")).and_where(Expr::col(("t", "id")).eq(id));
    Func::coalesce([value, subquery(default)]).into()
}

fn subquery(statement: SelectStatement) -> Expr {
    Expr::SubQuery(None, Box::new(statement.into()))
}

fn alias(at: usize) -> impl IntoIden + Clone {
    sea_query::Alias::new(format!("v{at}"))
}
