//! The permission rows of manager mode: put in, put in again, by two at once, taken out, on every engine.

use mcp_sidecar::store::permission::{Permissions, Status};
use mcp_sidecar::store::{Dialect, Settings};
use serde_json::{Value, json};

use crate::server::{Kind, shared};
use crate::site::{PREFIX, Site, create, run_sqlite, script, settings};

const KEYS: [&str; 3] = ["emcp", "emcp_manage", "emcp_dispatch"];

async fn connect(settings: &Settings) -> Permissions {
    Permissions::connect(settings).await.expect("a connection")
}

/// Each permission is there, granted to these roles.
fn granted(emcp: &[i64], others: &[i64]) -> Status {
    let roles = [emcp, others, others];
    let permissions = KEYS.into_iter().zip(roles).map(|(key, roles)| (key, true, roles.to_vec())).collect();
    Status { missing: Vec::new(), group: true, permissions }
}

fn nothing(group: bool) -> Status {
    Status { missing: Vec::new(), group, permissions: KEYS.map(|key| (key, false, Vec::new())).to_vec() }
}

async fn list(site: &Site, model: &str) -> Vec<Value> {
    let answer = site.result("evo.model.list", &json!({"model": model, "limit": 100})).await.expect("valid");
    answer["items"].as_array().expect("a list").clone()
}

pub async fn rounds(name: &'static str, settings: &Settings) {
    let site = Site::over(name, settings, (None, None));
    let mut rows = connect(settings).await;
    assert_eq!(rows.status().await.expect("readable"), granted(&[1, 3], &[1]), "{name}: as the site came");
    let before = list(&site, "RolePermissions").await;
    for _ in 0..2 {
        assert_eq!(rows.up(&[1]).await.expect("writes"), granted(&[1, 3], &[1]), "{name}: all was there");
        assert_eq!(list(&site, "RolePermissions").await, before, "{name}: no row came beside");
        assert_eq!(list(&site, "Permissions").await.len(), 3, "{name}");
    }
    for _ in 0..2 {
        assert_eq!(rows.down().await.expect("writes"), nothing(false), "{name}");
        assert!(list(&site, "RolePermissions").await.is_empty(), "{name}");
        assert!(list(&site, "PermissionsGroups").await.is_empty(), "{name}");
    }
    // Two at once, with roles named twice: one of them finds it done.
    let (mut left, mut right) = (connect(settings).await, connect(settings).await);
    let (left, right) = tokio::join!(left.up(&[1, 2, 2, 1]), right.up(&[2, 1, 2]));
    for done in [left, right] {
        assert_eq!(done.expect("writes"), granted(&[1, 2], &[1, 2]), "{name}");
    }
    assert_eq!(list(&site, "Permissions").await.len(), 3, "{name}");
    assert_eq!(list(&site, "RolePermissions").await.len(), 6, "{name}: a grant each");
    assert_eq!(rows.roles().await.expect("readable"), Some(vec![1, 2, 3]), "{name}");
    let names: Vec<Value> = list(&site, "Permissions").await.iter().map(|item| item["name"].clone()).collect();
    assert_eq!(names, ["Access eMCP", "Manage eMCP", "Dispatch eMCP tasks"], "{name}");
}

#[tokio::test]
async fn permissions_come_and_go_on_every_engine() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path().join("site.sqlite");
    run_sqlite(&path, &script(Dialect::Sqlite)).await;
    rounds("sqlite", &settings(&format!("sqlite://{}", path.display()))).await;
    for (kind, name) in [(Kind::MariaDb, "mariadb"), (Kind::Postgres, "postgres")] {
        let server = shared(kind).await;
        create(&server, "permissions", "").await;
        let settings = settings(&server.url("permissions"));
        rounds(name, &settings).await;
    }
}

#[tokio::test]
async fn ids_that_came_with_their_rows_are_not_taken_again() {
    let server = shared(Kind::Postgres).await;
    create(&server, "permissions_ids", "").await;
    // The rows came with ids, so every sequence still stands at its beginning; and they are not ours.
    let foreign = format!(
        "DELETE FROM {PREFIX}permissions_groups; DELETE FROM {PREFIX}permissions; DELETE FROM {PREFIX}role_permissions;
         INSERT INTO {PREFIX}permissions_groups (id, name, lang_key) VALUES (1, 'Users', 'x'), (2, 'eMCP', 'y');
         INSERT INTO {PREFIX}permissions (id, name, \"key\", group_id) VALUES (1, 'Other', 'other', 1), (2, 'X', 'x', 2);
         INSERT INTO {PREFIX}role_permissions (id, permission, role_id) VALUES (1, 'other', 1), (4, 'emcp_dispatch', 9);"
    );
    server.run("permissions_ids", &foreign).await;
    let settings = settings(&server.url("permissions_ids"));
    let mut rows = connect(&settings).await;
    let status = rows.up(&[1]).await.expect("writes");
    assert!(status.is_complete(), "{status}");
    assert_eq!(status.permissions[2].2, [1, 9], "a grant that was there stays");
    let site = Site::over("postgres", &settings, (None, None));
    let down = rows.down().await.expect("writes");
    assert_eq!(down, nothing(false));
    assert_eq!(list(&site, "PermissionsGroups").await.len(), 2, "groups that others made stay");
    assert_eq!(list(&site, "Permissions").await.len(), 2);
    // A group in which another permission was put stays.
    rows.up(&[1]).await.expect("writes");
    let guest = format!(
        "UPDATE {PREFIX}permissions SET group_id = (SELECT id FROM {PREFIX}permissions_groups WHERE lang_key \
         LIKE 'eMCP::%') WHERE \"key\" = 'other'"
    );
    server.run("permissions_ids", &guest).await;
    assert_eq!(rows.down().await.expect("writes"), nothing(true));
}

#[tokio::test]
async fn a_site_without_the_tables_is_left_alone() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path().join("site.sqlite");
    let drop = format!("DROP TABLE {PREFIX}role_permissions;");
    run_sqlite(&path, &(script(Dialect::Sqlite) + &drop)).await;
    let settings = settings(&format!("sqlite://{}", path.display()));
    let status = connect(&settings).await.up(&[1]).await.expect("nothing is wrong");
    assert_eq!(status.missing, [format!("{PREFIX}role_permissions")]);
    assert!(!status.is_complete() && status.to_string().starts_with("skipped"), "{status}");
    let refused = Settings { prefix: "x'; --".to_owned(), ..settings };
    assert!(Permissions::connect(&refused).await.is_err());
}
