//! Encrypted connections, and only to a database whose certificate is trusted.

use std::time::Duration;

use mcp_sidecar::store::Settings;
use serde_json::json;

use crate::harness::vacant;
use crate::server::{Kind, Server};
use crate::site::{self, Site, create};

#[tokio::test]
async fn only_a_database_with_a_trusted_certificate_of_its_name_is_talked_to() {
    for kind in [Kind::MariaDb, Kind::Postgres] {
        let (server, authority) = Server::encrypted(kind, vacant().port()).await;
        create(&server, "site", "").await;
        let (scheme, mode, file) = match kind {
            Kind::MariaDb => {
                server.run("mysql", "CREATE USER tls@'%' REQUIRE SSL; GRANT SELECT ON site.* TO tls@'%'").await;
                ("mysql", "ssl-mode=VERIFY_IDENTITY", "ssl-ca")
            }
            Kind::Postgres => {
                server.run("site", "CREATE ROLE tls LOGIN; GRANT SELECT ON ALL TABLES IN SCHEMA public TO tls").await;
                ("postgres", "sslmode=verify-full", "sslrootcert")
            }
        };
        let url = |host: &str| format!("{scheme}://tls@{host}:{}/site?{mode}", server.port);
        let trusting = |host: &str| format!("{}&{file}={}", url(host), authority.display());
        for (url, answers) in [
            (trusting("localhost"), true),
            (trusting("127.0.0.1"), false),
            (url("localhost"), false),
            // A socket needs none, and takes none.
            (server.url("site").replace("&ssl-mode=DISABLED", ""), true),
        ] {
            let patient = Duration::from_secs(if answers { 20 } else { 2 });
            let settings = Settings { acquire_timeout: patient, ..site::settings(&url) };
            let site = Site::over("site", &settings, (None, None));
            let ready = site.ready().await;
            assert_eq!(ready.is_ok(), answers, "{url}: {ready:?}");
            if answers {
                assert_eq!(site.ids("evo.content.search", &json!({"limit": 2})).await, [1, 2]);
            }
        }
    }
}
