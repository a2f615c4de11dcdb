//! The rows: the demo site's documents, 240 more in seven levels, and values that engines like to disagree about.

use mcp_sidecar::store::Dialect;

use crate::schema::{Age, quoted};

/// Stands in every column that no tool may fetch.
pub const SECRET: &str = "SECRET-CANARY";
/// The first id of the generated documents.
pub const FIRST: i64 = 101;
const GENERATED: i64 = 240;

pub const WORDS: [&str; 30] = [
    "blue",
    "Blue",
    "BLUE",
    "blue ",
    "Straße",
    "STRASSE",
    "Новини",
    "новини",
    "НОВИНИ",
    "Ёлка",
    "ёлка",
    "ΣΊΣΥΦΟΣ",
    "σίσυφοσ",
    "日本語",
    "emoji 😀",
    "50% off",
    "50 off",
    "a_b",
    "axb",
    "a\\b",
    "[x]",
    "*star*",
    "what?",
    "^caret$",
    "e\u{301}",
    "é",
    "É",
    "it's",
    "!bang!",
    "(paren) {brace} | pipe",
];

pub const NUMBERS: [&str; 40] = [
    "0",
    "-0",
    "7",
    "10",
    "9",
    "100",
    "-5",
    "+5",
    " 12",
    "\t13",
    "12abc",
    "abc",
    "",
    "1e3",
    "1E3",
    "0x1A",
    "3.7",
    "-3.7",
    ".5",
    "-.5",
    "5.",
    "1.005",
    "2.675",
    "1.995",
    "99999999999999999999",
    "-99999999999999999999",
    "9223372036854775807",
    "9223372036854775808",
    "1,000",
    "١٢",
    "½",
    "NaN",
    "Infinity",
    "1.2.3",
    "--5",
    "- 5",
    "999999.995",
    "0.30000000000000004",
    "  -42.42xyz",
    "\u{a0}5",
];

#[derive(Clone, Debug)]
pub enum Cell {
    Int(i64),
    Flag(bool),
    Text(String),
    Null,
}

use Cell::{Flag, Int, Null};

pub struct Rows {
    pub table: &'static str,
    pub columns: Vec<&'static str>,
    pub rows: Vec<Vec<Cell>>,
}

fn text(text: impl Into<String>) -> Cell {
    Cell::Text(text.into())
}

/// One statement for a table's rows.
pub fn insert(dialect: Dialect, prefix: &str, rows: &Rows) -> String {
    let cell = |cell: &Cell| match (cell, dialect) {
        (Int(number), _) => number.to_string(),
        (Flag(flag), Dialect::Postgres) => flag.to_string(),
        (Flag(flag), _) => i64::from(*flag).to_string(),
        (Null, _) => "NULL".to_owned(),
        (Cell::Text(text), Dialect::MySql) => format!("'{}'", text.replace('\\', "\\\\").replace('\'', "''")),
        (Cell::Text(text), _) => format!("'{}'", text.replace('\'', "''")),
    };
    let columns = rows.columns.iter().map(|column| quoted(dialect, column)).collect::<Vec<_>>().join(", ");
    let row = |row: &Vec<Cell>| format!("({})", row.iter().map(cell).collect::<Vec<_>>().join(", "));
    let values = rows.rows.iter().map(row).collect::<Vec<_>>().join(",\n");
    format!("INSERT INTO {} ({columns}) VALUES {values};", quoted(dialect, &format!("{prefix}{}", rows.table)))
}

impl Rows {
    /// What a version of the CMS has of it.
    pub fn of_age(mut self, age: Age) -> Option<Self> {
        let kept: Vec<bool> = self.columns.iter().map(|column| age.has(self.table, Some(column))).collect();
        let mut keep = kept.iter();
        self.columns.retain(|_| keep.next() == Some(&true));
        for row in &mut self.rows {
            let mut keep = kept.iter();
            row.retain(|_| keep.next() == Some(&true));
        }
        age.has(self.table, None).then_some(self)
    }
}

pub fn all() -> Vec<Rows> {
    let documents = documents();
    let mut all = vec![closure(&documents), documents];
    all.extend(variables());
    all.extend(tags());
    all.extend(people());
    all.extend(elements());
    all
}

/// Id, parent, menu index, title, published, deleted, hidden, template, date of publication.
type Page<'a> = (i64, i64, i64, &'a str, bool, bool, bool, i64, i64);

fn documents() -> Rows {
    let columns = vec![
        "id",
        "parent",
        "menuindex",
        "pagetitle",
        "longtitle",
        "description",
        "alias",
        "published",
        "deleted",
        "deletedon",
        "hidemenu",
        "template",
        "createdon",
        "editedon",
        "pub_date",
        "unpub_date",
        "isfolder",
        "type",
        "introtext",
        "content",
    ];
    // The demo site.
    let demo: [Page<'_>; 12] = [
        (1, 0, 0, "Home", true, false, false, 1, 0),
        (2, 0, 1, "Catalog", true, false, false, 1, 0),
        (3, 2, 0, "Blue chair", true, false, false, 2, 0),
        (4, 2, 1, "Red chair", true, false, true, 2, 0),
        (5, 2, 2, "Oak table", false, false, false, 2, 1_710_000_000),
        (6, 2, 4, "Shelf", true, false, false, 2, 0),
        (7, 3, 0, "Chair manual", true, false, false, 1, 0),
        (8, 7, 0, "Assembly", true, false, false, 1, 0),
        (9, 2, 5, "Old lamp", true, true, false, 2, 0),
        (10, 0, 2, "Archive", true, true, false, 1, 0),
        (11, 10, 0, "Stray page", true, false, false, 1, 0),
        (12, 0, 3, "Новини", true, false, false, 1, 0),
    ];
    let row = |(id, parent, menuindex, title, published, deleted, hidden, template, pub_date): Page<'_>| {
        let alias = if id % 7 == 0 { Null } else { text(format!("doc-{id}")) };
        let kind = if id % 13 == 0 { "reference" } else { "document" };
        vec![
            Int(id),
            Int(parent),
            Int(menuindex),
            text(title),
            text(format!("{title} (long)")),
            text(if id % 2 == 0 { title } else { "" }),
            alias,
            Int(i64::from(published)),
            Int(i64::from(deleted)),
            Int(if deleted { 1_700_100_000 } else { 0 }),
            Flag(hidden),
            Int(template),
            Int(1_690_000_000 + id * 37 % 100),
            Int(1_690_000_000 + id),
            Int(pub_date),
            Int(if id % 17 == 0 { 2_000_000_000 } else { 0 }),
            Int(id % 2),
            text(kind),
            Null,
            text(SECRET),
        ]
    };
    let mut rows: Vec<Vec<Cell>> = demo.into_iter().map(row).collect();
    for number in 0..GENERATED {
        let parent = if number < 2 { 0 } else { FIRST + (number - 2) / 2 };
        let word = usize::try_from(number).expect("not negative") % WORDS.len();
        let pub_date = if number % 6 == 0 { 1_700_000_000 + number * 1000 } else { 0 };
        rows.push(row((
            FIRST + number,
            parent,
            number * 7 % 5,
            WORDS[word],
            number % 3 != 0,
            number % 11 == 10,
            number % 5 == 0,
            number % 4,
            pub_date,
        )));
    }
    Rows { table: "site_content", columns, rows }
}

/// A row for each document and each of its ancestors, itself included.
fn closure(documents: &Rows) -> Rows {
    let number = |cell: &Cell| if let Int(number) = cell { *number } else { 0 };
    let parents: std::collections::HashMap<i64, i64> =
        documents.rows.iter().map(|row| (number(&row[0]), number(&row[1]))).collect();
    let mut rows = Vec::new();
    for document in &documents.rows {
        let id = number(&document[0]);
        let (mut above, mut depth) = (id, 0);
        while above != 0 {
            rows.push(vec![Int(above), Int(id), Int(depth)]);
            above = parents[&above];
            depth += 1;
        }
    }
    Rows { table: "site_content_closure", columns: vec!["ancestor", "descendant", "depth"], rows }
}

fn variables() -> Vec<Rows> {
    let definition = |(id, name, default): (i64, &str, Option<&str>)| {
        let default = default.map_or(Null, text);
        vec![Int(id), text(name), text(format!("About {name}")), text("text"), default, Int(id % 3), Flag(id % 2 == 0)]
    };
    let definitions = [
        (1, "price", Some("7")),
        (2, "color", Some("red")),
        (3, "note", None),
        (4, "dirty", Some("12abc")),
        (5, "word", Some("Жовтий")),
        (6, "never", Some("")),
        (7, "Price", Some("8")),
        (8, "content", None),
        (9, "with-dash_1", None),
    ];
    let mut values: Vec<(i64, i64, Option<String>)> = vec![
        (1, 3, Some("100".to_owned())),
        (1, 4, Some("20".to_owned())),
        (1, 5, Some("250.50".to_owned())),
        (1, 6, Some("0".to_owned())),
        (1, 9, Some("5".to_owned())),
        (2, 3, Some("blue".to_owned())),
        (2, 5, Some("brown".to_owned())),
    ];
    for (at, number) in (FIRST..).zip(NUMBERS.iter().chain(&NUMBERS)) {
        values.push((4, at, Some((*number).to_owned())));
    }
    for (at, word) in (FIRST + 20..).zip(WORDS.iter().chain(&WORDS)) {
        values.push((5, at, (at % 7 != 0).then(|| (*word).to_owned())));
    }
    for at in (FIRST..FIRST + GENERATED).step_by(3) {
        values.push((1, at, Some((at % 50).to_string())));
        values.push((
            2,
            at,
            Some(["blue", "Blue", "green", "červená"][usize::try_from(at % 4).expect("small")].into()),
        ));
    }
    let rows = (1..)
        .zip(values)
        .map(|(id, (variable, document, value))| vec![Int(id), Int(variable), Int(document), value.map_or(Null, text)]);
    vec![
        Rows {
            table: "site_tmplvars",
            columns: vec!["id", "name", "caption", "type", "default_text", "rank", "locked"],
            rows: definitions.into_iter().map(definition).collect(),
        },
        Rows {
            table: "site_tmplvar_contentvalues",
            columns: vec!["id", "tmplvarid", "contentid", "value"],
            rows: rows.collect(),
        },
    ]
}

fn tags() -> Vec<Rows> {
    let names = ["new", "sale", "New", "розпродаж", "new "];
    let tags = (1..).zip(names).map(|(id, name)| vec![Int(id), text(name)]);
    let tagged = (FIRST..FIRST + 40).flat_map(|document| {
        let first = vec![Int(document), Int(document % 5 + 1), Int(document % 2 + 1)];
        let second = vec![Int(document), Int((document + 1) % 5 + 1), Int(document % 2 + 1)];
        [first, second]
    });
    vec![
        Rows { table: "tags", columns: vec!["id", "name"], rows: tags.collect() },
        Rows { table: "site_content_tags", columns: vec!["doc_id", "tag_id", "tv_id"], rows: tagged.collect() },
    ]
}

fn people() -> Vec<Rows> {
    let users = ["admin", "editor", "operator", "Ольга", "o'neil"];
    let user = |(id, name): (i64, &&str)| {
        vec![Int(id), text(*name), text(SECRET), text(SECRET), text(SECRET), text(SECRET), text(SECRET)]
    };
    let attribute = |(id, name): (i64, &&str)| {
        vec![
            Int(id),
            Int(id),
            text(format!("{name} The Person")),
            text(format!("{name}@example.test")),
            text(if id % 2 == 0 { "+380 44 000" } else { "" }),
            Int(i64::from(id == 5)),
            Int(id * 400_000_000),
            Int(id * 3),
            text(SECRET),
        ]
    };
    let roles = [(1, "Administrator"), (2, "Editor"), (3, "Publisher")];
    let permissions = [(1, "Access eMCP", "emcp"), (2, "Manage eMCP", "emcp_manage"), (3, "Dispatch", "emcp_dispatch")];
    let grants = [(1, "emcp", 1), (2, "emcp_manage", 1), (3, "emcp_dispatch", 1), (4, "emcp", 3)];
    vec![
        Rows {
            table: "users",
            columns: vec!["id", "username", "password", "cachepwd", "refresh_token", "access_token", "verified_key"],
            rows: (1..).zip(&users).map(user).collect(),
        },
        Rows {
            table: "user_attributes",
            columns: vec![
                "id",
                "internalKey",
                "fullname",
                "email",
                "phone",
                "blocked",
                "blockeduntil",
                "logincount",
                "sessionid",
            ],
            rows: (1..).zip(&users).map(attribute).collect(),
        },
        Rows {
            table: "user_roles",
            columns: vec!["id", "name", "description"],
            rows: roles.into_iter().map(|(id, name)| vec![Int(id), text(name), text("A role")]).collect(),
        },
        Rows {
            table: "permissions_groups",
            columns: vec!["id", "name", "lang_key"],
            rows: vec![vec![Int(1), text("eMCP"), text("eMCP::global.permissions_group")]],
        },
        Rows {
            table: "permissions",
            columns: vec!["id", "name", "key"],
            rows: permissions.into_iter().map(|(id, name, key)| vec![Int(id), text(name), text(key)]).collect(),
        },
        Rows {
            table: "role_permissions",
            columns: vec!["id", "permission", "role_id"],
            rows: grants.into_iter().map(|(id, key, role)| vec![Int(id), text(key), Int(role)]).collect(),
        },
    ]
}

fn elements() -> Vec<Rows> {
    let script = |(id, name): (i64, &&str)| {
        vec![
            Int(id),
            text(*name),
            text(format!("{name}: what it does")),
            Int(id % 4),
            Flag(id % 2 == 0),
            Flag(id % 3 == 0),
            Int(1_700_000_000 + id % 7),
            Int(1_700_000_000),
        ]
    };
    let columns = vec!["id", "name", "description", "category", "locked", "disabled", "createdon", "editedon"];
    let template = |(id, name): (i64, &&str)| {
        vec![Int(id), text(*name), text(format!("icon-{id}")), Int(id % 3), Flag(id % 2 == 1), text(SECRET)]
    };
    let mut all: Vec<Rows> = ["site_snippets", "site_plugins", "site_modules"]
        .map(|table| Rows { table, columns: columns.clone(), rows: (1..).zip(&WORDS).map(script).collect() })
        .into();
    all.push(Rows {
        table: "site_templates",
        columns: vec!["id", "templatename", "icon", "category", "locked", "content"],
        rows: (1..).zip(&WORDS).map(template).collect(),
    });
    all.push(Rows {
        table: "categories",
        columns: vec!["id", "category"],
        rows: vec![vec![Int(1), text("Site")], vec![Int(2), text("Shop")]],
    });
    all
}
