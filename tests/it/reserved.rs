//! No spelling of a reserved shape reaches the CMS, whatever the method.

use crate::harness::{Request, Sidecar};

fn spellings() -> Vec<String> {
    let prefixes = ["", "/", "/.", "/x/..", "/index.php", "/INDEX.PHP/..", "/%2e", "/index.php/index.php"];
    let shapes = [
        "/api/v1/mcp/content",
        "/api/v1/%6dcp/content",
        "/api/v1/mcp/content/",
        "/api/v1//mcp/content",
        "/api/v1/./mcp/content",
        "/api/v1/x/../mcp/content",
        "/%61pi/v1/mcp/content",
        "/api/v2/mcp/content",
        "/api/v99/mcp/x/dispatch",
        "/api%2fv1%2fmcp%2fcontent",
        "/api/v1/mcp%2Fcontent",
        "/api/v1/m%63p/content?q=1",
        "/api/v1/mcp",
        "/api/v1/token",
        "/api/v1/mcp/content;x=1",
        "/api/v1/mcp/content%00",
        "/emcp/content",
        "/emcp/content/dispatch",
        "/emcp/servers",
        "/%65mcp/content",
        "/emcp//content",
        "/emcp/./content",
        "/api/v1/%256dcp/../mcp/content",
        "/api/v1/mcp/../mcp/content",
        "/api/v1/mcp/content/../content",
        "/api\\v1\\mcp\\content",
    ];
    prefixes.iter().flat_map(|prefix| shapes.iter().map(move |shape| format!("{prefix}{shape}"))).collect()
}

#[test]
fn two_hundred_spellings_never_reach_the_canary() {
    let sidecar = Sidecar::start().policy("auth.failures_per_minute", 0).go();
    let spellings = spellings();
    assert!(spellings.len() >= 200);
    for method in ["GET", "POST", "PUT", "DELETE", "HEAD", "OPTIONS"] {
        for target in &spellings {
            let answer = sidecar.send(&Request::new(method, target).header("Connection", "close"));
            assert!(answer.status >= 400, "{method} {target}: {}", answer.status);
        }
        let absolute = format!("http://127.0.0.1{}", spellings[0]);
        assert!(sidecar.send(&Request::new(method, &absolute).header("Connection", "close")).status >= 400);
    }
    assert_eq!(sidecar.canary.count(), 0);
    assert_eq!(sidecar.send(&Request::new("GET", "/about.html").header("Connection", "close")).status, 200);
    sidecar.finish();
}
