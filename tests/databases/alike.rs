//! What else is the same on every engine: letters of all alphabets in all their cases, how many statements a tool
//! takes, and tables of any prefix.

use mcp_sidecar::base::Secret;
use mcp_sidecar::store::{Dialect, Settings};
use serde_json::{Value, json};

use crate::data::{self, FIRST};
use crate::schema;
use crate::server::{Kind, shared};
use crate::site::{Site, agreed, agreed_ids, dialect, everywhere, filled, run_sqlite, script, settings, sqlite_script};

/// Letters whose cases are one letter each, in pairs, and what looks like one of them.
const LETTERS: [(char, char); 45] = [
    ('a', 'A'),
    ('z', 'Z'),
    ('é', 'É'),
    ('ñ', 'Ñ'),
    ('ø', 'Ø'),
    ('ÿ', 'Ÿ'),
    ('ő', 'Ő'),
    ('š', 'Š'),
    ('ж', 'Ж'),
    ('і', 'І'),
    ('ї', 'Ї'),
    ('ґ', 'Ґ'),
    ('ё', 'Ё'),
    ('ѣ', 'Ѣ'),
    ('ω', 'Ω'),
    ('ή', 'Ή'),
    ('ա', 'Ա'),
    ('և', 'և'),
    ('א', 'א'),
    ('ი', 'ი'),
    ('日', '日'),
    ('😀', '😀'),
    // Newer than the table that MySQL lowers by unless told otherwise.
    ('ƀ', 'Ƀ'),
    ('ⱥ', 'Ⱥ'),
    ('ӏ', 'Ӏ'),
    ('ԁ', 'Ԁ'),
    // Capitals whose small letter has another capital.
    ('i', 'I'),
    ('İ', 'İ'),
    ('ı', 'ı'),
    ('k', 'K'),
    ('\u{212a}', '\u{212a}'),
    ('å', 'Å'),
    ('\u{212b}', '\u{212b}'),
    ('\u{2126}', '\u{2126}'),
    ('θ', 'Θ'),
    ('ϴ', 'ϴ'),
    ('ß', 'ß'),
    ('ẞ', 'ẞ'),
    ('ǆ', 'Ǆ'),
    ('ǅ', 'ǅ'),
    // Small letters whose capital has another small letter.
    ('s', 'S'),
    ('ſ', 'ſ'),
    ('σ', 'Σ'),
    ('ς', 'ς'),
    ('µ', 'µ'),
];
/// Letters of which MySQL's table knows nothing.
const UNKNOWN: [char; 4] = ['Ა', 'Ꭰ', 'Ԩ', '𞤀'];

#[tokio::test]
async fn letters_are_found_in_both_their_cases_and_no_others() {
    // Each letter in the midst of a value, at a document of its own.
    let texts = LETTERS.iter().flat_map(|(small, large)| [*small, *large]).chain(UNKNOWN);
    let rows: Vec<String> =
        (FIRST..).zip(texts).map(|(id, letter)| format!("(9{id}, 6, {id}, '1{letter}2')")).collect();
    let values = format!(
        "UPDATE evo_site_content SET deleted = 0, deletedon = 0; \
         INSERT INTO evo_site_tmplvar_contentvalues (id, tmplvarid, contentid, value) VALUES {};",
        rows.join(", ")
    );
    let (mariadb, postgres) = (shared(Kind::MariaDb).await, shared(Kind::Postgres).await);
    let mut sites = vec![sqlite_script(&(script(Dialect::Sqlite) + &values)).await];
    let c = "TEMPLATE template0 LC_COLLATE 'C' LC_CTYPE 'C'";
    for (server, database, name, options) in [
        (&mariadb, "letters", "mariadb", ""),
        (&mariadb, "letters_bin", "mariadb, binary", "CHARACTER SET utf8mb4 COLLATE utf8mb4_bin"),
        (&postgres, "letters", "postgres", ""),
        (&postgres, "letters_c", "postgres in the C locale", c),
    ] {
        sites.push(filled(server, database, name, options).await);
        server.run(database, &values).await;
    }
    for (at, (small, large)) in (0_i64..).zip(LETTERS) {
        // What has no cases stands there twice.
        let both = vec![FIRST + 2 * at, FIRST + 2 * at + 1];
        for letter in [small, large] {
            for (op, value) in [
                ("like", letter.to_string()),
                ("like", format!("1{letter}")),
                ("like-r", format!("1{letter}")),
                ("like-l", format!("{letter}2")),
                ("like", format!("_{letter}%")),
            ] {
                let filter = json!([{"tv": "never", "op": op, "value": value}]);
                let call = json!({"limit": 100, "tv_filters": filter});
                assert_eq!(agreed_ids(&sites, "evo.content.search", &call).await, both, "{op} {value}");
            }
            let filter = json!([{"tv": "never", "op": "=", "value": format!("1{letter}2")}]);
            let call = json!({"limit": 100, "tv_filters": filter});
            let own = if small == large { both.clone() } else { vec![both[usize::from(letter == large)]] };
            assert_eq!(agreed_ids(&sites, "evo.content.search", &call).await, own, "= {letter}");
        }
    }
    for (id, letter) in (FIRST + 2 * LETTERS.len() as i64..).zip(UNKNOWN) {
        let filter = json!([{"tv": "never", "op": "like", "value": format!("1{letter}")}]);
        for site in &sites {
            let found = site.ids("evo.content.search", &json!({"limit": 9, "tv_filters": filter})).await;
            assert_eq!(found, [id], "{}: {letter} finds itself", site.name);
        }
    }
    // By code point, whatever a collation would make of it.
    for direction in ["asc", "desc"] {
        let filters = json!([{"tv": "never", "op": "!null"}]);
        let order = json!([{"tv": "never", "dir": direction}]);
        let call = json!({"limit": 100, "tv_filters": filters, "tv_order": order, "with_tvs": ["never"]});
        let list = agreed(&sites, "evo.content.search", &call).await.expect("valid");
        let items = list["items"].as_array().expect("a list");
        let mut told: Vec<&str> = items.iter().filter_map(|item| item["tvs"]["never"].as_str()).collect();
        if direction == "desc" {
            told.reverse();
        }
        assert!(told.len() == 2 * LETTERS.len() + UNKNOWN.len() && told.is_sorted(), "{direction}: {told:?}");
    }
}

#[tokio::test]
async fn every_tool_takes_one_statement_on_every_engine() {
    let sites = everywhere("statements").await;
    let tvs = json!(["price:d", "color", "word:d"]);
    let place = json!({"id": FIRST, "depth": 4, "from": 0, "limit": 50, "with_tvs": tvs});
    let search = json!({
        "parent": FIRST, "limit": 50, "with_tvs": tvs, "order_by_date": "desc",
        "tv_filters": [{"tv": "price", "op": ">", "value": 1, "cast": "SIGNED", "use_default": true}],
        "tv_order": [{"tv": "word"}, {"tv": "dirty", "cast": "SIGNED"}],
    });
    let list = json!({"model": "UserAttribute", "limit": 50, "order_by": "internalKey"});
    // The names of variables are known for a while; they are read once before.
    let warm = json!({"limit": 1, "with_tvs": tvs, "tv_order": [{"tv": "dirty"}]});
    let mut calls: Vec<(&str, &Value)> = vec![
        ("evo.content.search", &search),
        ("evo.model.list", &list),
        ("evo.content.get", &place),
        ("evo.content.root_tree", &place),
        ("evo.content.descendants", &place),
        ("evo.content.ancestors", &place),
        ("evo.content.children", &place),
        ("evo.content.siblings", &place),
        ("evo.content.neighbors", &place),
        ("evo.content.prev_siblings", &place),
        ("evo.content.next_siblings", &place),
        ("evo.content.children_range", &place),
        ("evo.content.siblings_range", &place),
    ];
    let one = json!({"model": "User", "id": 1});
    calls.push(("evo.model.get", &one));
    assert_eq!(calls.len(), 14);
    for site in &sites {
        for (tool, arguments) in &calls {
            site.result("evo.content.search", &warm).await.expect("valid");
            let before = site.pool.statements();
            site.result(tool, arguments).await.expect("valid");
            assert_eq!(site.pool.statements() - before, 1, "{}: {tool}", site.name);
        }
    }
}

#[tokio::test]
async fn tables_of_any_prefix_are_found_on_every_engine() {
    let filled = |dialect: Dialect, prefix: &str| {
        let rows: String = data::all().iter().map(|rows| data::insert(dialect, prefix, rows)).collect();
        schema::statements(dialect, prefix) + &rows
    };
    for (at, prefix) in ["", "Ab9_", "x", "select_"].into_iter().enumerate() {
        let over = |url: &str| Settings { max_connections: 2, ..Settings::new(Secret::new(url), prefix) };
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path().join("site.sqlite");
        run_sqlite(&path, &filled(Dialect::Sqlite, prefix)).await;
        let url = format!("sqlite://{}", path.display());
        let mut sites = vec![Site::over("sqlite", &over(&url), (None, Some(directory)))];
        for (kind, name) in [(Kind::MariaDb, "mariadb"), (Kind::Postgres, "postgres")] {
            let server = shared(kind).await;
            let database = format!("prefix{at}");
            let first = if kind == Kind::MariaDb { "mysql" } else { "postgres" };
            server.run(first, &format!("CREATE DATABASE {database}")).await;
            server.run(&database, &filled(dialect(kind), prefix)).await;
            // Another site's tables beside them are not seen.
            server.run(&database, &schema::statements(dialect(kind), "other_")).await;
            sites.push(Site::over(name, &over(&server.url(&database)), (Some(server), None)));
        }
        let tree = json!({"depth": 6, "limit": 100, "with_tvs": ["price:d"]});
        assert_eq!(agreed_ids(&sites, "evo.content.root_tree", &tree).await.len(), 100, "{prefix:?}");
        for model in &mcp_sidecar::store::model::MODELS {
            let call = json!({"model": model.name, "limit": 5, "order_by": "id"});
            assert!(!agreed_ids(&sites, "evo.model.list", &call).await.is_empty(), "{prefix:?} {}", model.name);
        }
        for site in &sites {
            site.ready().await.unwrap_or_else(|reason| panic!("{}: {reason}", site.name));
        }
    }
    let wrong = Settings { prefix: "evo_; --".to_owned(), ..settings("sqlite://x") };
    assert!(mcp_sidecar::store::Pool::open(&wrong).is_err());
}

/// Texts of what makes and breaks numbers; the same ones each time.
fn dirty(count: usize) -> Vec<String> {
    let parts = [
        "0", "1", "5", "9", "12", "00", "-", "+", ".", "e", "E", "x", " ", "\t", "\n", "\u{b}", "\r", ",", "_",
        "\u{a0}", "٣", "½", "a", "'", "\\", "1e3", "0x1", "-5", ".5", "Inf", "nan",
    ];
    let mut state = 7_u64;
    let mut next = |below: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(state >> 33).expect("31 bits") % below
    };
    (0..count)
        .map(|_| {
            let length = next(7);
            (0..length).map(|_| parts[next(parts.len())]).collect()
        })
        .collect()
}

/// The number that a text begins with: blanks, a sign, digits and a fraction; no exponent.
fn begins_with(text: &str) -> f64 {
    let text = text.trim_start_matches([' ', '\t', '\n', '\u{b}', '\u{c}', '\r']);
    let sign = usize::from(text.starts_with(['-', '+']));
    let digits = |from: usize| from + text[from..].bytes().take_while(u8::is_ascii_digit).count();
    let mut end = digits(sign);
    if text[end..].starts_with('.') {
        end = digits(end + 1);
    }
    text[..end].parse().unwrap_or(0.0)
}

#[tokio::test]
async fn dirty_texts_are_the_same_numbers_everywhere() {
    let texts = dirty(200);
    let values = |dialect: Dialect| {
        let rows = (FIRST..).zip(&texts).map(|(id, text)| {
            [90_000 + id, 6, id].map(data::Cell::Int).into_iter().chain([data::Cell::Text(text.clone())]).collect()
        });
        let columns = vec!["id", "tmplvarid", "contentid", "value"];
        let rows = data::Rows { table: "site_tmplvar_contentvalues", columns, rows: rows.collect() };
        format!("UPDATE evo_site_content SET deleted = 0; {}", data::insert(dialect, "evo_", &rows))
    };
    let mut sites = vec![sqlite_script(&(script(Dialect::Sqlite) + &values(Dialect::Sqlite))).await];
    for (kind, name) in [(Kind::MariaDb, "mariadb"), (Kind::Postgres, "postgres")] {
        let server = shared(kind).await;
        sites.push(filled(&server, "dirty", name, "").await);
        server.run("dirty", &values(dialect(kind))).await;
    }
    let found = async |op: &str, value: &str, cast: &str| {
        let filters = json!([{"tv": "never", "op": op, "value": value, "cast": cast}]);
        let mut found = Vec::new();
        for offset in [0, 100] {
            let call = json!({"limit": 100, "offset": offset, "tv_filters": filters});
            found.extend(agreed_ids(&sites, "evo.content.search", &call).await);
        }
        found
    };
    let expected = |holds: &dyn Fn(f64) -> bool| -> Vec<i64> {
        (FIRST..).zip(&texts).filter(|(_, text)| holds(begins_with(text))).map(|(id, _)| id).collect()
    };
    for bound in [-1000, -12, -5, -1, 0, 1, 5, 9, 12, 19, 100, 512, 1000] {
        let (text, number) = (bound.to_string(), f64::from(bound));
        let whole = |value: f64| value.trunc();
        assert_eq!(found("=", &text, "SIGNED").await, expected(&|value| whole(value) == number), "= {bound}");
        assert_eq!(found("<", &text, "SIGNED").await, expected(&|value| whole(value) < number), "< {bound}");
        assert_eq!(
            found(">=", &text, "UNSIGNED").await,
            expected(&|value| whole(value).max(0.0) >= number),
            ">= {bound}"
        );
        // Wide enough that nothing is rounded or cut.
        assert_eq!(found(">", &text, "DECIMAL(30,9)").await, expected(&|value| value > number), "> {bound}");
    }
    for cast in ["SIGNED", "UNSIGNED"] {
        for (dir, offset) in [("asc", 0), ("asc", 100), ("desc", 0), ("desc", 100)] {
            let order = json!([{"tv": "never", "dir": dir, "cast": cast}]);
            let call = json!({"limit": 100, "offset": offset, "tv_order": order, "with_tvs": ["never"]});
            agreed(&sites, "evo.content.search", &call).await.expect("valid");
        }
    }
}
