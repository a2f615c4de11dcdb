use std::sync::Arc;

use sea_query::{
    Alias, Expr, IntoIden, IntoTableRef, MysqlQueryBuilder, PostgresQueryBuilder, SelectStatement, SqliteQueryBuilder,
    TableRef, Values,
};

use crate::store::Schema;

/// The SQL that a database speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    MySql,
    Postgres,
    Sqlite,
}

impl Dialect {
    /// The statement's text with placeholders, and the values to bind in order.
    #[must_use]
    pub fn build(self, statement: &SelectStatement) -> (String, Values) {
        match self {
            Self::MySql => statement.build(MysqlQueryBuilder),
            Self::Postgres => statement.build(PostgresQueryBuilder),
            Self::Sqlite => statement.build(SqliteQueryBuilder),
        }
    }
}

/// Names the site's tables: the prefix, the dialect that statements are built for, and what columns there are.
#[derive(Clone, Debug)]
pub struct Tables {
    prefix: Arc<str>,
    dialect: Dialect,
    /// `None`: as the contract has them.
    schema: Option<Arc<Schema>>,
}

impl Tables {
    /// Tables whose names start with `prefix`, with every column that the contract knows.
    #[must_use]
    pub fn new(prefix: impl Into<Arc<str>>, dialect: Dialect) -> Self {
        Self { prefix: prefix.into(), dialect, schema: None }
    }

    /// The same tables with the columns that are really there.
    #[must_use]
    pub fn with(&self, schema: Arc<Schema>) -> Self {
        Self { schema: Some(schema), ..self.clone() }
    }

    /// The dialect.
    #[must_use]
    pub const fn dialect(&self) -> Dialect {
        self.dialect
    }

    /// Whether the site has the table of this unprefixed name.
    #[must_use]
    pub fn has_table(&self, table: &str) -> bool {
        self.schema.as_ref().is_none_or(|schema| schema.has_table(table))
    }

    /// Whether the site has the table and the table has the column.
    #[must_use]
    pub fn has(&self, table: &str, column: &str) -> bool {
        self.schema.as_ref().is_none_or(|schema| schema.has(table, column))
    }

    /// Whether an index of the table begins with the column, as far as the engine's own catalogue says so.
    pub(in crate::store) fn indexed(&self, table: &str, column: &str) -> bool {
        self.schema.as_ref().is_none_or(|schema| schema.indexed(table, column))
    }

    /// The table of this unprefixed name under an alias.
    pub(in crate::store) fn table(&self, name: &str, alias: impl IntoIden) -> TableRef {
        Alias::new(self.prefixed(name)).into_table_ref().alias(alias)
    }

    /// The column of the aliased table, or a null where there is none.
    pub(in crate::store) fn column(&self, table: &str, alias: &'static str, column: &'static str) -> Expr {
        if self.has(table, column) { Expr::col((alias, column)) } else { Expr::null() }
    }

    pub(in crate::store) fn prefixed(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }
}
