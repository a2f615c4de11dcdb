//! The users as the token endpoint finds them: the same on every engine, whatever its collation takes for equal.

use mcp_sidecar::base::Secret;
use mcp_sidecar::store::{Dialect, Error, Pool, Settings, account};

use crate::data;
use crate::failures::documented;
use crate::server::{Kind, shared};
use crate::site::{self, PREFIX, create, everywhere, script, sqlite_script, sqlite_without};

#[tokio::test]
async fn a_name_is_found_to_the_byte_on_every_engine() {
    for site in everywhere("accounts").await {
        let mut reader = site.pool.reader().await.expect("it answers");
        for (name, expected) in [
            ("admin", Some((1, false))),
            ("Ольга", Some((4, false))),
            ("o'neil", Some((5, true))),
            ("Admin", None),
            ("ADMIN", None),
            ("admin ", None),
            (" admin", None),
            ("ádmin", None),
            ("ольга", None),
            ("admin%", None),
            ("' OR 1=1 -- ", None),
            ("", None),
        ] {
            let found = account::find(&mut reader, name).await.expect("it is read");
            assert_eq!(
                found.as_ref().map(|account| (account.id, account.blocked)),
                expected,
                "{}: {name:?}",
                site.name
            );
            if let Some(account) = found {
                assert_eq!(account.password_hash.expose(), data::SECRET.as_bytes(), "{}", site.name);
                assert_eq!(account.blocked_until_s, account.id * 400_000_000, "{}", site.name);
            }
        }
        let specimen = account::specimen(&mut reader).await.expect("it is read");
        assert_eq!(specimen.expose(), data::SECRET.as_bytes(), "{}", site.name);
    }
}

#[tokio::test]
async fn a_site_without_users_is_an_error_and_no_unknown_name() {
    for table in ["users", "user_attributes"] {
        let site = sqlite_without(&[table]).await;
        let mut reader = site.pool.reader().await.expect("it answers");
        assert!(account::find(&mut reader, "admin").await.is_err(), "{table}");
    }
}

#[tokio::test]
async fn a_user_of_whom_not_all_can_be_read_is_an_error_and_never_unblocked() {
    for (table, columns) in [
        ("users", &["username", "password"][..]),
        ("user_attributes", &["internalKey", "role", "blocked", "blockeduntil", "blockedafter"]),
    ] {
        for column in columns {
            let change = format!("ALTER TABLE {PREFIX}{table} RENAME COLUMN {column} TO other;");
            let site = sqlite_script(&(script(Dialect::Sqlite) + &change)).await;
            let mut reader = site.pool.reader().await.expect("it answers");
            let found = account::find(&mut reader, "o'neil").await.map(|account| account.map(|account| account.id));
            let named = matches!(&found, Err(Error::NoColumn(name)) if *name == format!("{PREFIX}{table}.{column}"));
            assert!(named, "{column}: {found:?}");
        }
    }
}

#[tokio::test]
async fn a_user_of_whom_two_rows_tell_is_nobody() {
    let twice = format!("INSERT INTO {PREFIX}user_attributes (\"internalKey\", role, blocked) VALUES (1, 1, 0);");
    let site = sqlite_script(&(script(Dialect::Sqlite) + &twice)).await;
    let mut reader = site.pool.reader().await.expect("it answers");
    assert!(account::find(&mut reader, "admin").await.expect("it is read").is_none());
}

#[tokio::test]
async fn the_documented_rights_are_enough_and_those_to_see_who_is_blocked_are_needed() {
    for kind in [Kind::MariaDb, Kind::Postgres] {
        let server = shared(kind).await;
        create(&server, "accounts_granted", "").await;
        for (user, left_out) in [("mcp_token", ""), ("mcp_blind", "blocked, ")] {
            // As on a site that shows no models of people.
            let text = documented(kind, "", "accounts_granted", user);
            let (basic, _) = text.split_once("GRANT SELECT (id, username)").expect("the rights of people come last");
            let token = documented(kind, ", token", "accounts_granted", user).replace(left_out, "");
            server.run("accounts_granted", &format!("{basic}{token}")).await;
            let settings = Settings {
                password: Some(Secret::new("change me")),
                ..site::settings(&server.url_of(user, "accounts_granted"))
            };
            let pool = Pool::open(&settings).expect("a valid URL");
            let mut reader = pool.reader().await.expect("it answers");
            match account::find(&mut reader, "o'neil").await {
                Ok(found) => assert!(left_out.is_empty() && found.is_some_and(|found| found.blocked), "{kind:?}"),
                Err(error) => {
                    assert!(!left_out.is_empty() && error.to_string().contains("blocked"), "{kind:?}: {error}")
                }
            }
        }
    }
}
