//! The users as the token endpoint finds them: the same on every engine, whatever its collation takes for equal.

use mcp_sidecar::store::account;

use crate::data;
use crate::site::{everywhere, sqlite_without};

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
