//! Who uses the manager, from the rows of each engine: by session, by access token, by id.

use crate::server::{Kind, shared};
use crate::site::{PREFIX, create, run_sqlite, script, settings, sqlite_script, sqlite_without};
use mcp_sidecar::store::identity::User;
use mcp_sidecar::store::{Dialect, Pool};

const NOW_S: u64 = 1_700_000_000;
/// The same moment on the CMS's clock.
const NOW: &str = "2023-11-14 22:13:20";
const SESSION: &str = "SessionOfAdmin0123456789";
const TOKEN: &str = "AccessTokenOfEditor012345";

/// Sessions and tokens, some of which a collation takes for others.
fn rows(dialect: Dialect) -> String {
    let quote = if dialect == Dialect::MySql { '`' } else { '"' };
    let key = format!("{quote}internalKey{quote}");
    let session = |sid: &str, user: i64, lasthit: u64| {
        format!("INSERT INTO {PREFIX}active_user_sessions (sid, {key}, lasthit) VALUES ('{sid}', {user}, {lasthit});")
    };
    let give = |user: i64, token: &str, until: &str| {
        format!("UPDATE {PREFIX}users SET access_token = '{token}', valid_to = '{until}' WHERE id = {user};")
    };
    [
        session(SESSION, 1, NOW_S - 60),
        session(&SESSION.to_lowercase(), 2, NOW_S),
        session("SessionOfTheDay012345678", 3, NOW_S - 7201),
        session("SessionOfTwo0123456789ab", 3, NOW_S),
        session("SessionOfTwo0123456789ab", 4, NOW_S),
        session("SessionOfNobody012345678", 0, NOW_S),
        give(2, TOKEN, "2023-11-14 22:13:21"),
        give(3, &TOKEN.to_lowercase(), "2023-11-15 00:00:00"),
        give(4, "AccessTokenThatHasEnded01", NOW),
        format!("UPDATE {PREFIX}user_attributes SET role = 1 WHERE id = 1;"),
        format!("UPDATE {PREFIX}user_attributes SET role = 3, blocked = 0, blockeduntil = 0 WHERE id = 2;"),
        format!("UPDATE {PREFIX}user_attributes SET role = 1, blockeduntil = {} WHERE id = 3;", NOW_S + 1),
        format!("UPDATE {PREFIX}user_attributes SET role = 2, blockedafter = {} WHERE id = 4;", NOW_S - 1),
        format!("UPDATE {PREFIX}user_attributes SET blockeduntil = 1 WHERE id = 1;"),
    ]
    .concat()
}

async fn judge(name: &str, pool: &Pool) {
    for (session, expected) in [
        (SESSION, Some(1)),
        ("sessionofadmin0123456789", Some(2)),
        ("SESSIONOFADMIN0123456789", None),
        ("SessionOfAdmin0123456789 ", None),
        ("SessionOfTheDay012345678", None),
        ("SessionOfTwo0123456789ab", None),
        ("SessionOfNobody012345678", None),
        ("' OR 1=1 --", None),
        ("", None),
    ] {
        let found = pool.session_user(session, NOW_S - 7200).await.expect("readable");
        assert_eq!(found, expected, "{name}: {session}");
    }
    for (token, expected) in [
        (TOKEN, Some(2)),
        ("accesstokenofeditor012345", Some(3)),
        ("ACCESSTOKENOFEDITOR012345", None),
        ("AccessTokenThatHasEnded01", None),
        ("", None),
        ("%", None),
    ] {
        let found = pool.token_user(token, NOW).await.expect("readable");
        assert_eq!(found, expected, "{name}: {token}");
    }
    let user = |id: u64, role: i64, permissions: &[&str]| {
        Some(User { id, role, permissions: permissions.iter().map(|key| (*key).to_owned()).collect() })
    };
    for (id, expected) in [
        (1, user(1, 1, &["emcp", "emcp_dispatch", "emcp_manage"])),
        (2, user(2, 3, &["emcp"])),
        (3, None),
        (4, None),
        (5, None),
        (99, None),
        (0, None),
        (u64::MAX, None),
    ] {
        assert_eq!(pool.user(id, NOW_S).await.expect("readable"), expected, "{name}: {id}");
    }
}

#[tokio::test]
async fn the_same_users_are_told_on_every_engine() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path().join("site.sqlite");
    run_sqlite(&path, &(script(Dialect::Sqlite) + &rows(Dialect::Sqlite))).await;
    let pool = Pool::open(&settings(&format!("sqlite://{}", path.display()))).expect("a valid URL");
    judge("sqlite", &pool).await;
    for (kind, dialect, name) in
        [(Kind::MariaDb, Dialect::MySql, "mariadb"), (Kind::Postgres, Dialect::Postgres, "postgres")]
    {
        let server = shared(kind).await;
        create(&server, "identity", "").await;
        server.run("identity", &rows(dialect)).await;
        judge(name, &Pool::open(&settings(&server.url("identity"))).expect("a valid URL")).await;
    }
}

#[tokio::test]
async fn a_site_without_the_table_of_sessions_knows_nobody_by_it() {
    let site = sqlite_without(&["active_user_sessions"]).await;
    assert_eq!(site.pool.session_user(SESSION, 0).await.expect("nothing is wrong"), None);
}

#[tokio::test]
async fn a_user_of_whom_not_all_can_be_read_is_nobody() {
    for column in ["blocked", "blockeduntil", "blockedafter", "role"] {
        let change = format!("ALTER TABLE {PREFIX}user_attributes RENAME COLUMN {column} TO other;");
        let site = sqlite_script(&(script(Dialect::Sqlite) + &change)).await;
        assert!(site.pool.user(1, NOW_S).await.is_err(), "{column}");
    }
}
