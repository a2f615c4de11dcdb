//! The model catalogue: which tables may be listed, and which of their columns.
//!
//! The lists are closed: what is not named here cannot be selected, filtered or sorted by. Passwords, tokens and
//! session ids are in none of them.

use sea_query::{Expr, ExprTrait, Order, Query, SelectStatement};

use serde_json::Value;

use crate::store::text::{self, Anchor, Comparison, Key, Wildcards};
use crate::store::{Error, Page, Row, Tables};

/// What a field holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Integer,
    /// An integer or a boolean, by engine; shown as 0 or 1.
    Flag,
    Text,
    /// A key that eMCP names but no table has: always null.
    Missing,
}

/// A field of a model: its key, which is its column's name, and what it holds.
pub type Field = (&'static str, Kind);

/// One model.
#[derive(Debug, PartialEq, Eq)]
pub struct Model {
    /// The canonical short name.
    pub name: &'static str,
    pub(in crate::store) table: &'static str,
    /// In the order of the output.
    pub fields: &'static [Field],
}

use Kind::{Flag, Integer, Missing, Text};

const SCRIPT: &[Field] = &[
    ("id", Integer),
    ("name", Text),
    ("description", Text),
    ("category", Integer),
    ("locked", Flag),
    ("disabled", Flag),
    ("createdon", Integer),
    ("editedon", Integer),
];

/// Every model, in the catalogue's order.
pub const MODELS: [Model; 13] = [
    Model {
        name: "SiteTemplate",
        table: "site_templates",
        fields: &[
            ("id", Integer),
            ("templatename", Text),
            ("description", Text),
            ("editor_type", Integer),
            ("icon", Text),
            ("category", Integer),
            ("locked", Flag),
        ],
    },
    Model {
        name: "SiteTmplvar",
        table: "site_tmplvars",
        fields: &[
            ("id", Integer),
            ("name", Text),
            ("caption", Text),
            ("description", Text),
            ("type", Text),
            ("default_text", Text),
            ("display", Text),
            ("elements", Text),
            ("rank", Integer),
            ("category", Integer),
            ("locked", Flag),
        ],
    },
    Model {
        name: "SiteTmplvarContentvalue",
        table: "site_tmplvar_contentvalues",
        fields: &[("id", Integer), ("contentid", Integer), ("tmplvarid", Integer), ("value", Text)],
    },
    Model { name: "SiteSnippet", table: "site_snippets", fields: SCRIPT },
    Model { name: "SitePlugin", table: "site_plugins", fields: SCRIPT },
    Model {
        name: "SiteModule",
        table: "site_modules",
        fields: &[
            ("id", Integer),
            ("name", Text),
            ("description", Text),
            ("category", Integer),
            ("disabled", Flag),
            ("createdon", Integer),
            ("editedon", Integer),
        ],
    },
    Model { name: "Category", table: "categories", fields: &[("id", Integer), ("category", Text)] },
    Model {
        name: "User",
        table: "users",
        fields: &[
            ("id", Integer),
            ("username", Text),
            ("isfrontend", Missing),
            ("createdon", Missing),
            ("editedon", Missing),
            ("blocked", Missing),
            ("blockeduntil", Missing),
            ("blockedafter", Missing),
        ],
    },
    Model {
        name: "UserAttribute",
        table: "user_attributes",
        fields: &[
            ("id", Integer),
            ("internalKey", Integer),
            ("fullname", Text),
            ("email", Text),
            ("phone", Text),
            ("mobilephone", Text),
            ("blocked", Integer),
            ("blockeduntil", Integer),
            ("blockedafter", Integer),
            ("failedlogincount", Integer),
            ("logincount", Integer),
            ("lastlogin", Integer),
        ],
    },
    Model {
        name: "UserRole",
        table: "user_roles",
        fields: &[
            ("id", Integer),
            ("name", Text),
            ("description", Text),
            ("frames", Missing),
            ("home", Missing),
            ("rank", Missing),
            ("locked", Missing),
        ],
    },
    Model {
        name: "Permissions",
        table: "permissions",
        fields: &[("id", Integer), ("name", Text), ("description", Missing)],
    },
    Model { name: "PermissionsGroups", table: "permissions_groups", fields: &[("id", Integer), ("name", Text)] },
    Model {
        name: "RolePermissions",
        table: "role_permissions",
        fields: &[("id", Integer), ("role_id", Integer), ("permission", Text)],
    },
];

impl Model {
    /// The model of this short or full class name, whatever its casing; a leading backslash counts for nothing.
    #[must_use]
    pub fn find(name: &str) -> Option<&'static Self> {
        let name = name.trim().trim_start_matches('\\');
        let short = name.strip_prefix_ignore_case("EvolutionCMS\\Models\\").unwrap_or(name);
        MODELS.iter().find(|model| model.name.eq_ignore_ascii_case(short))
    }

    /// The field of this exact key.
    #[must_use]
    pub fn field(&self, key: &str) -> Option<Field> {
        self.fields.iter().copied().find(|(name, _)| *name == key)
    }
}

trait StripPrefix {
    fn strip_prefix_ignore_case(&self, prefix: &str) -> Option<&str>;
}

impl StripPrefix for str {
    fn strip_prefix_ignore_case(&self, prefix: &str) -> Option<&str> {
        let head = self.get(..prefix.len())?;
        head.eq_ignore_ascii_case(prefix).then(|| &self[prefix.len()..])
    }
}

/// A value to compare with, already of the field's kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scalar {
    Integer(i64),
    Flag(bool),
    Text(String),
}

impl Scalar {
    fn bound(&self) -> Expr {
        match self {
            Self::Integer(value) => Expr::val(*value),
            Self::Flag(value) => Expr::val(i64::from(*value)),
            Self::Text(value) => Expr::val(value.clone()),
        }
    }
}

/// What a filter asks of its field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Test {
    Compare(Comparison, Scalar),
    In(Vec<Scalar>),
    NotIn(Vec<Scalar>),
    Like(Anchor, String),
    Null,
    NotNull,
}

/// One condition on one field; all conditions must hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Filter {
    pub field: Field,
    pub test: Test,
}

/// What to list of a model.
#[derive(Clone, Debug, PartialEq)]
pub struct Listing {
    pub model: &'static Model,
    pub filters: Vec<Filter>,
    pub sort: Field,
    pub order: Order,
}

/// Rows of a model.
#[must_use]
pub fn list(tables: &Tables, listing: &Listing, page: Page) -> SelectStatement {
    let mut statement = rows(tables, listing.model);
    for filter in &listing.filters {
        statement.and_where(condition(tables, listing.model, filter));
    }
    // Where there is no such column, there is nothing to sort by.
    if let Some(by) = field(tables, listing.model, listing.sort) {
        let key = Key { by, order: listing.order.clone(), nullable: listing.sort.0 != "id" };
        key.sort(tables.dialect(), &mut statement);
    }
    if listing.sort.0 != "id" {
        statement.order_by(("m", "id"), Order::Asc);
    }
    statement.limit(page.limit).offset(page.offset);
    statement
}

/// One row of a model, or none.
#[must_use]
pub fn item(tables: &Tables, model: &'static Model, id: i64) -> SelectStatement {
    let mut statement = rows(tables, model);
    statement.and_where(Expr::col(("m", "id")).eq(id)).limit(1);
    statement
}

/// A row as an object: every key of the model, in order.
///
/// # Errors
/// When a column is missing or holds no UTF-8.
pub fn read(tables: &Tables, model: &Model, row: &Row) -> Result<Value, Error> {
    let mut object = serde_json::Map::with_capacity(model.fields.len());
    let mut column = 0;
    for (name, kind) in model.fields {
        let value = match kind {
            _ if !there(tables, model, (*name, *kind)) => Value::Null,
            Kind::Missing => Value::Null,
            Kind::Integer => row.integer(column)?.into(),
            Kind::Flag => i64::from(row.integer(column)? != 0).into(),
            Kind::Text => row.text(column)?.into(),
        };
        if there(tables, model, (*name, *kind)) {
            column += 1;
        }
        object.insert((*name).to_owned(), value);
    }
    Ok(object.into())
}

/// Whether the site's version of the table has the field.
fn there(tables: &Tables, model: &Model, (name, kind): Field) -> bool {
    kind != Kind::Missing && tables.has(model.table, name)
}

/// Only what is shown is fetched.
fn rows(tables: &Tables, model: &Model) -> SelectStatement {
    let mut statement = Query::select();
    for field in model.fields {
        if there(tables, model, *field) {
            statement.column(("m", field.0));
        }
    }
    statement.from(tables.table(model.table, "m"));
    statement
}

/// The field as it is compared and sorted.
fn field(tables: &Tables, model: &Model, (name, kind): Field) -> Option<Expr> {
    let field = Expr::col(("m", name));
    there(tables, model, (name, kind)).then(|| match kind {
        Kind::Text => text::exact(tables.dialect(), field),
        Kind::Flag => text::flag(tables.dialect(), field),
        Kind::Integer | Kind::Missing => field,
    })
}

fn condition(tables: &Tables, model: &Model, filter: &Filter) -> Expr {
    let dialect = tables.dialect();
    let Some(field) = field(tables, model, filter.field) else { return Expr::cust("1 = 0") };
    let raw = Expr::col(("m", filter.field.0));
    match &filter.test {
        Test::Compare(comparison, value) => comparison.of(field, value.bound()),
        Test::In(values) => field.is_in(values.iter().map(Scalar::bound)),
        Test::NotIn(values) => field.is_not_in(values.iter().map(Scalar::bound)),
        Test::Like(anchor, needle) => {
            let raw = if filter.field.1 == Kind::Text { raw } else { field.cast_as(text::text_type(dialect)) };
            text::like(dialect, raw, *anchor, needle, Wildcards::Literal)
        }
        Test::Null => raw.is_null(),
        Test::NotNull => raw.is_not_null(),
    }
}
