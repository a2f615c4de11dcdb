#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use sea_query::{Order, SelectStatement};

use super::content::{Range, Search, Siblings, Sort};
use super::engine::Engine;
use super::model::{Filter, Listing, Model, Scalar, Test};
use super::text::{Anchor, Cast, Comparison};
use super::variable::{self, Found, Output, Tags};
use super::{Dialect, Page, Settings, Tables, content, demo, model};
use crate::base::Secret;

const PAGE: Page = Page { limit: 25, offset: 50 };

/// The statement in each dialect, with its values.
fn dialects(statement: impl Fn(&Tables) -> SelectStatement) -> String {
    [Dialect::MySql, Dialect::Postgres, Dialect::Sqlite]
        .into_iter()
        .map(|dialect| {
            let (sql, values) = dialect.build(&statement(&Tables::new("evo_", dialect)));
            format!("{dialect:?}\n{sql}\n{:?}\n", values.0)
        })
        .collect::<Vec<_>>()
        .join("\n")
}

fn everything(parent: i64, sort: Sort) -> Search {
    Search {
        parent: Some(parent),
        depth: 6,
        published: Some(true),
        deleted: false,
        template: Some(2),
        hidemenu: Some(false),
        tags: None,
        sort,
    }
}

fn listing() -> Listing {
    let model = Model::find("\\EvolutionCMS\\Models\\siteTEMPLATE").unwrap();
    let filter = |name: &str, test| Filter { field: model.field(name).unwrap(), test };
    let filters = vec![
        filter("id", Test::Compare(Comparison::GreaterOrEqual, Scalar::Integer(1))),
        filter("locked", Test::Compare(Comparison::Equal, Scalar::Flag(false))),
        filter("category", Test::In(vec![Scalar::Integer(1), Scalar::Integer(2)])),
        filter("templatename", Test::Like(Anchor::Start, "50%_Ba!".to_owned())),
        filter("category", Test::Like(Anchor::Anywhere, "1".to_owned())),
        filter("icon", Test::NotNull),
    ];
    Listing { model, filters, sort: model.field("templatename").unwrap(), order: Order::Desc }
}

/// Every operator and cast on two variables, a third one with its default, two terms to sort by, and tags.
fn variables() -> (Search, Found) {
    let compare = |comparison| variable::Test::Compare(comparison, "blue".to_owned());
    let number = |comparison, cast| variable::Test::Number(comparison, cast, "-10.5".to_owned());
    let decimal = Cast::Decimal { precision: 8, scale: 2 };
    let tests = [
        (2, compare(Comparison::Equal), false),
        (2, compare(Comparison::NotEqual), false),
        (1, number(Comparison::Greater, Cast::Signed), false),
        (1, number(Comparison::GreaterOrEqual, Cast::Unsigned), true),
        (1, number(Comparison::LessOrEqual, decimal), false),
        (2, variable::Test::In(vec!["blue".to_owned(), "Жовтий".to_owned()]), false),
        (2, variable::Test::NotIn(vec!["red".to_owned()]), true),
        (2, variable::Test::Like(Anchor::Anywhere, "b%U_!".to_owned()), false),
        (2, variable::Test::Like(Anchor::Start, "Жов.*%".to_owned()), false),
        (3, variable::Test::Null, false),
        (2, variable::Test::NotNull, true),
    ];
    let filters = tests.map(|(variable, test, use_default)| variable::Filter { variable, test, use_default });
    let sorts = vec![
        variable::Sort { variable: 1, order: Order::Desc, cast: Some(Cast::Signed), use_default: true },
        variable::Sort { variable: 4, order: Order::Asc, cast: None, use_default: false },
    ];
    let outputs = vec![
        Output { variable: Some(1), default: true },
        Output { variable: Some(3), default: false },
        Output { variable: None, default: false },
    ];
    let tags = Some(Tags { variable: 5, names: vec!["new".to_owned(), "sale".to_owned()] });
    let search = Search { tags, ..everything(2, Sort::Column("pagetitle", Order::Desc)) };
    (search, Found { outputs, filters: filters.into(), sorts })
}

#[test]
fn each_statement_reads_the_same_in_three_dialects() {
    let none = &Found::default();
    let range = Range { from: 1, to: Some(3) };
    insta::assert_snapshot!("item", dialects(|t| content::item(t, 7, none)));
    let by_date = everything(2, Sort::Date(Order::Desc));
    insta::assert_snapshot!("search", dialects(|t| content::search(t, &by_date, none, PAGE)));
    let by_title = everything(0, Sort::Column("pagetitle", Order::Asc));
    insta::assert_snapshot!("search_site", dialects(|t| content::search(t, &by_title, none, PAGE)));
    let (by_variables, wanted) = variables();
    insta::assert_snapshot!("search_variables", dialects(|t| content::search(t, &by_variables, &wanted, PAGE)));
    let below = Search { template: None, ..by_variables };
    insta::assert_snapshot!("search_below", dialects(|t| content::search(t, &below, &wanted, PAGE)));
    insta::assert_snapshot!("root_tree", dialects(|t| content::root_tree(t, 1, none, PAGE)));
    insta::assert_snapshot!("descendants", dialects(|t| content::descendants(t, 2, 3, none, PAGE)));
    insta::assert_snapshot!("ancestors", dialects(|t| content::ancestors(t, 8, Some(2), none, PAGE)));
    insta::assert_snapshot!("children", dialects(|t| content::children(t, 2, None, none, PAGE)));
    insta::assert_snapshot!("children_range", dialects(|t| content::children(t, 2, Some(range), none, PAGE)));
    for (name, which) in [
        ("siblings", Siblings::All),
        ("neighbors", Siblings::Neighbors),
        ("prev_siblings", Siblings::Previous),
        ("next_siblings", Siblings::Next),
        ("siblings_range", Siblings::Within(Range { to: None, ..range })),
    ] {
        insta::assert_snapshot!(name, dialects(|t| content::siblings(t, 3, which, none, PAGE)));
    }
    insta::assert_snapshot!("variable_names", dialects(variable::names));
    insta::assert_snapshot!("model_list", dialects(|t| model::list(t, &listing(), PAGE)));
    insta::assert_snapshot!("model_item", dialects(|t| model::item(t, Model::find("User").unwrap(), 1)));
}

#[test]
fn variables_that_leave_least_are_joined_first() {
    let filter = |variable, test, use_default| variable::Filter { variable, test, use_default };
    let filters = vec![
        filter(1, variable::Test::Null, false),
        filter(2, variable::Test::Number(Comparison::Less, Cast::Signed, "9".to_owned()), false),
        filter(3, variable::Test::In(vec!["a".to_owned()]), true),
        filter(4, variable::Test::Like(Anchor::Start, "a".to_owned()), false),
        filter(5, variable::Test::In(vec!["a".to_owned()]), false),
    ];
    let search = everything(2, Sort::Column("id", Order::Asc));
    let statement =
        content::search(&Tables::new("evo_", Dialect::Sqlite), &search, &Found { filters, ..Found::default() }, PAGE);
    let sql = statement.to_string(sea_query::SqliteQueryBuilder);
    let joined: Vec<&str> = sql.split("\"tmplvarid\" = ").skip(1).map(|rest| &rest[..1]).collect();
    assert_eq!(joined, ["5", "4", "2", "1", "3"], "{sql}");
}

#[test]
fn only_some_pages_are_told_how_far_they_reach() {
    let mysql = Tables::new("evo_", Dialect::MySql);
    let bare = mysql.with(std::sync::Arc::default());
    let sqlite = Tables::new("evo_", Dialect::Sqlite);
    let end = |end: u64| Page { limit: 20, offset: end - 20 };
    let told = |statement: SelectStatement| statement.to_string(sea_query::MysqlQueryBuilder).contains("`most`");
    let none = &Found::default();
    for (tables, depth, page, expected) in [
        (&mysql, 3, end(20), [true, true]),
        (&mysql, 6, end(500), [true, true]),
        (&mysql, 6, end(501), [false, false]),
        (&mysql, 6, Page { limit: 20, offset: u64::MAX }, [false, false]),
        (&mysql, 2, end(20), [false, true]),
        (&bare, 6, end(20), [false, true]),
        (&sqlite, 6, end(20), [false, false]),
    ] {
        let statements =
            [content::descendants(tables, 2, depth, none, page), content::root_tree(tables, depth, none, page)];
        assert_eq!(statements.map(told), expected, "{tables:?} {depth} {page:?}");
    }
}

#[test]
fn no_model_names_a_secret_column() {
    let secret =
        ["password", "cachepwd", "cachepwd_valid_to", "verified_key", "refresh_token", "access_token", "sessionid"];
    for model in &model::MODELS {
        for (name, _) in model.fields {
            assert!(!secret.contains(&name.to_ascii_lowercase().as_str()), "{}.{name}", model.name);
        }
    }
}

#[tokio::test]
async fn a_demo_site_is_made_once() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("new").join("site.sqlite");
    assert!(demo::create(&path, 0).await.unwrap());
    assert!(!demo::create(&path, 0).await.unwrap());
}

/// tests/databases does the same with the sessions of servers.
#[tokio::test]
async fn sessions_of_sqlite_refuse_to_write() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("site.sqlite");
    demo::create(&path, 0).await.unwrap();
    let url = format!("sqlite://{}", path.display());
    for url in [url.clone(), format!("{url}?mode=rwc")] {
        let engine = Engine::open(&Settings::new(Secret::new(url), demo::PREFIX)).unwrap();
        for snapshot in [false, true] {
            let mut session = engine.session().await.unwrap();
            if snapshot {
                session.begin().await.unwrap();
            }
            for statement in [
                "INSERT INTO evo_categories (category) VALUES ('x')",
                "UPDATE evo_site_content SET pagetitle = 'x'",
                "DELETE FROM evo_users",
                "DROP TABLE evo_categories",
                "CREATE TABLE evo_other (id INT)",
            ] {
                let refused = session.run(statement).await.unwrap_err().to_string();
                assert!(refused.contains("attempt to write a readonly database"), "{statement}: {refused}");
            }
        }
    }
}
