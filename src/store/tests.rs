#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use sea_query::{Order, SelectStatement};

use super::content::{Search, Sort};
use super::model::{Anchor, Comparison, Filter, Listing, Model, Scalar, Test};
use super::{Dialect, Page, Tables, content, demo, model};

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

#[test]
fn each_statement_reads_the_same_in_three_dialects() {
    insta::assert_snapshot!("item", dialects(|t| content::item(t, 7)));
    insta::assert_snapshot!("search", dialects(|t| content::search(t, &everything(2, Sort::Date(Order::Desc)), PAGE)));
    let by_title = everything(0, Sort::Column("pagetitle", Order::Asc));
    insta::assert_snapshot!("search_site", dialects(|t| content::search(t, &by_title, PAGE)));
    insta::assert_snapshot!("root_tree", dialects(|t| content::root_tree(t, 1, PAGE)));
    insta::assert_snapshot!("descendants", dialects(|t| content::descendants(t, 2, 3, PAGE)));
    insta::assert_snapshot!("ancestors", dialects(|t| content::ancestors(t, 8, Some(2), PAGE)));
    insta::assert_snapshot!("children", dialects(|t| content::children(t, 2, PAGE)));
    insta::assert_snapshot!("siblings", dialects(|t| content::siblings(t, 3, PAGE)));
    insta::assert_snapshot!("model_list", dialects(|t| model::list(t, &listing(), PAGE)));
    insta::assert_snapshot!("model_item", dialects(|t| model::item(t, Model::find("User").unwrap(), 1)));
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
