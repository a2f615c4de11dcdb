//! The model catalogue: which tables may be listed, and which of their columns.
//!
//! The lists are closed: what is not named here cannot be selected, filtered or sorted by. Passwords, tokens and
//! session ids are in none of them.

use sea_query::{Expr, ExprTrait, LikeExpr, Order, Query, SelectStatement};

use crate::store::{Dialect, Error, Page, Row, Tables};

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
    table: &'static str,
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
            Self::Flag(value) => Expr::val(*value),
            Self::Text(value) => Expr::val(value.clone()),
        }
    }
}

/// How a field is compared with one value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Comparison {
    Equal,
    NotEqual,
    Greater,
    GreaterOrEqual,
    Less,
    LessOrEqual,
}

/// Where the text of a `like` must stand; compared without regard to case (of ASCII, in SQLite), `%` and `_` standing for themselves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Anchor {
    Anywhere,
    End,
    Start,
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
        statement.and_where(condition(tables, filter));
    }
    match listing.sort {
        // No such column: nothing to sort by.
        (_, Kind::Missing) => {}
        (name, _) => {
            statement.order_by(("m", name), listing.order.clone());
        }
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
pub fn read(model: &Model, row: &Row) -> Result<serde_json::Value, Error> {
    let mut object = serde_json::Map::with_capacity(model.fields.len());
    let mut column = 0;
    for (name, kind) in model.fields {
        let value = match kind {
            Kind::Missing => serde_json::Value::Null,
            Kind::Integer => row.integer(column)?.into(),
            Kind::Flag => i64::from(row.integer(column)? != 0).into(),
            Kind::Text => row.text(column)?.into(),
        };
        if *kind != Kind::Missing {
            column += 1;
        }
        object.insert((*name).to_owned(), value);
    }
    Ok(object.into())
}

fn rows(tables: &Tables, model: &Model) -> SelectStatement {
    let mut statement = Query::select();
    for (name, kind) in model.fields {
        if *kind != Kind::Missing {
            statement.column(("m", *name));
        }
    }
    statement.from(tables.table(model.table, "m"));
    statement
}

fn condition(tables: &Tables, filter: &Filter) -> Expr {
    let (name, kind) = filter.field;
    if kind == Kind::Missing {
        return Expr::val(1_i64).eq(0_i64);
    }
    let field = Expr::col(("m", name));
    match &filter.test {
        Test::Compare(comparison, value) => {
            let value = value.bound();
            match comparison {
                Comparison::Equal => field.eq(value),
                Comparison::NotEqual => field.ne(value),
                Comparison::Greater => field.gt(value),
                Comparison::GreaterOrEqual => field.gte(value),
                Comparison::Less => field.lt(value),
                Comparison::LessOrEqual => field.lte(value),
            }
        }
        Test::In(values) => field.is_in(values.iter().map(Scalar::bound)),
        Test::NotIn(values) => field.is_not_in(values.iter().map(Scalar::bound)),
        Test::Like(anchor, text) => {
            let field = if kind == Kind::Text { field } else { field.cast_as(tables.dialect().text_type()) };
            lower(field).like(LikeExpr::new(pattern(tables.dialect(), *anchor, text)).escape('!'))
        }
        Test::Null => field.is_null(),
        Test::NotNull => field.is_not_null(),
    }
}

fn lower(text: Expr) -> Expr {
    sea_query::Func::lower(text).into()
}

/// SQLite's `LOWER` knows ASCII only; the others lower all of Unicode.
fn pattern(dialect: Dialect, anchor: Anchor, text: &str) -> String {
    let text = match dialect {
        Dialect::Sqlite => text.to_ascii_lowercase(),
        Dialect::MySql | Dialect::Postgres => text.to_lowercase(),
    };
    let mut literal = String::with_capacity(text.len() + 2);
    for character in text.chars() {
        if matches!(character, '%' | '_' | '!') {
            literal.push('!');
        }
        literal.push(character);
    }
    match anchor {
        Anchor::Anywhere => format!("%{literal}%"),
        Anchor::End => format!("%{literal}"),
        Anchor::Start => format!("{literal}%"),
    }
}
