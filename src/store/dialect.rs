use sea_query::{
    Alias, MysqlQueryBuilder, PostgresQueryBuilder, SelectStatement, SqliteQueryBuilder, TableRef, Values,
};

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

    /// The type that a number is cast to where text is compared.
    pub(in crate::store) const fn text_type(self) -> &'static str {
        match self {
            Self::MySql => "CHAR",
            Self::Postgres | Self::Sqlite => "TEXT",
        }
    }
}

/// Names the site's tables: the prefix, and the dialect that statements are built for.
#[derive(Clone, Debug)]
pub struct Tables {
    prefix: String,
    dialect: Dialect,
}

impl Tables {
    /// Tables whose names start with `prefix`.
    #[must_use]
    pub fn new(prefix: impl Into<String>, dialect: Dialect) -> Self {
        Self { prefix: prefix.into(), dialect }
    }

    /// The dialect.
    #[must_use]
    pub const fn dialect(&self) -> Dialect {
        self.dialect
    }

    /// The table of this unprefixed name under an alias.
    pub(in crate::store) fn table(&self, name: &str, alias: &'static str) -> TableRef {
        use sea_query::IntoTableRef;
        Alias::new(format!("{}{name}", self.prefix)).into_table_ref().alias(alias)
    }
}
