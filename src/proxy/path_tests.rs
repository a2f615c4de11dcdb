use proptest::prelude::*;

use super::*;

fn routes() -> Routes {
    with("api", "v1", "mcp")
}

fn with(base: &str, version: &str, api_prefix: &str) -> Routes {
    Routes {
        api: true,
        manager: true,
        base: base.into(),
        version: version.into(),
        api_prefix: api_prefix.into(),
        manager_prefix: "emcp".into(),
    }
}

const RESERVED: [&str; 10] = [
    "/api/v1/mcp/content",
    "/api/v1/mcp/content/dispatch",
    "/api/v2/mcp/content",
    "/api/mcp/content",
    "/api/v1/mcp",
    "/api/v1/token",
    "/api/v9/token",
    "/emcp",
    "/emcp/content",
    "/emcp/content/dispatch",
];

type Transformation = (&'static str, fn(&str) -> String);

/// A path without its last segment, and that segment with its slash.
fn before_last(path: &str) -> &str {
    &path[..path.len() - last(path).len()]
}

fn last(path: &str) -> &str {
    &path[path.rfind('/').expect("a path")..]
}

fn each_byte(path: &str, spell: impl Fn(u8) -> String) -> String {
    format!("/{}", path[1..].bytes().map(spell).collect::<String>())
}

const TRANSFORMATIONS: [Transformation; 56] = [
    ("trailing slash", |p| format!("{p}/")),
    ("trailing slashes", |p| format!("{p}///")),
    ("leading slashes", |p| format!("/{p}")),
    ("leading authority", |p| format!("//host{p}")),
    ("doubled slashes", |p| p.replace('/', "//")),
    ("dot segments", |p| p.replace('/', "/./")),
    ("encoded dot segments", |p| p.replace('/', "/%2e/")),
    ("up and down", |p| format!("/x/..{p}")),
    ("up and down, encoded", |p| format!("/x/%2e%2E{p}")),
    ("up and down, double-encoded", |p| format!("/x/%252e%252e{p}")),
    ("above the root", |p| format!("/../..{p}")),
    ("left again", |p| format!("{p}/../../../x")),
    ("index.php", |p| format!("/index.php{p}")),
    ("INDEX.PHP", |p| format!("/INDEX.PHP{p}")),
    ("nested index.php", |p| format!("/index.php/index.php{p}")),
    ("deep index.php", |p| format!("/manager/index.php{p}")),
    ("encoded index.php", |p| format!("/index%2ephp{p}")),
    ("multiviews", |p| format!("/index{p}")),
    ("other script", |p| format!("/x.php5{p}")),
    ("glued to the script", |p| format!("/index.php{}", &p[1..])),
    ("glued to an encoded script", |p| format!("/index.ph%70%{:02x}{}", p.as_bytes()[1], &p[2..])),
    ("glued to another script", |p| format!("/x/a.phtml{}", &p[1..])),
    ("glued to a script, up and down", |p| format!("/x/../INDEX.PHP7{}", &p[1..])),
    ("no dots to some", |p| format!("{}/..;a/..{}", before_last(p), last(p))),
    ("no dots to some, encoded", |p| format!("{}/..%3ba/..{}", before_last(p), last(p))),
    ("no dots to some but for a plus", |p| format!("{}/..+/..{}", before_last(p), last(p))),
    ("one segment to some, by a backslash", |p| format!("/a\\b/..{p}")),
    ("one segment to some, by an encoded backslash", |p| format!("/a%5cb/%2e%2e{p}")),
    ("one segment to some, by an encoded slash", |p| format!("/a%2fb/%2e%2e{p}")),
    ("q behind an ampersand", |p| format!("/x&q={p}")),
    ("q behind an encoded ampersand", |p| format!("/x%26q={}", &p[1..])),
    ("q array behind an ampersand", |p| format!("/x&q[]={p}")),
    ("q behind a semicolon", |p| format!("/x;%20q={p}")),
    ("an ampersand behind it", |p| format!("{p}&")),
    ("an encoded ampersand and more behind it", |p| format!("{p}%26x;y")),
    ("q whose name ends at a NUL", |p| format!("/index.php?q%00;={}", &p[1..])),
    ("q with path parameters", |p| format!("/?q={}", p.replace('/', ";a/"))),
    ("q", |p| format!("/index.php?q={}", &p[1..])),
    ("q with slash", |p| format!("/?q={p}")),
    ("Q", |p| format!("/?a=b&Q={p}")),
    ("q encoded", |p| format!("/x?%71={}", p.replace('/', "%2f"))),
    ("q with a tail that C strings lose", |p| format!("/?q%00x={p}")),
    ("q with blanks and such a tail", |p| format!("/x?a=b&+%20q%00%00=x&q%00[]={p}")),
    ("q array", |p| format!("/x?q[]={p}")),
    ("q doubly encoded", |p| format!("/x?a&q={}", p.replace('/', "%252f"))),
    ("upper case", |p| p.to_uppercase()),
    ("all encoded", |p| each_byte(p, |b| format!("%{b:02x}"))),
    ("all doubly encoded", |p| each_byte(p, |b| format!("%25{b:02X}"))),
    ("all trebly encoded", |p| each_byte(p, |b| format!("%2525{b:02X}"))),
    ("encoded slashes", |p| format!("/{}", p[1..].replace('/', "%2F"))),
    ("backslashes", |p| p.replace('/', "\\").replacen('\\', "/", 1)),
    ("encoded backslashes", |p| format!("/{}", p[1..].replace('/', "%5c"))),
    ("path parameters", |p| p.replace('/', ";a=b/")[4..].to_owned()),
    ("path parameter at the end", |p| format!("{p};x")),
    ("blanks", |p| format!("{}%20", p.replace('/', "/%20"))),
    ("absolute", |p| format!("HTTP://host:80{p}")),
];

#[test]
fn the_exact_spelling_is_served() {
    let cases = [
        ("/api/v1/mcp/content", "content"),
        ("/api/v1/mcp/content?x=1", "content"),
        ("/api/v1/mcp/Content", "Content"),
        ("/api/v1/mcp/a.b:c-d_e", "a.b:c-d_e"),
    ];
    for (target, server) in cases {
        assert_eq!(route(&routes(), target), Ok(Route::Mcp { server: server.into() }), "{target}");
    }
}

#[test]
fn manager_routes_are_served_in_their_exact_spelling() {
    for (target, name) in [
        ("/emcp/content", "content"),
        ("/emcp/content?x=1", "content"),
        ("/emcp/servers", "servers"),
        ("/emcp/a.b:c-d_e", "a.b:c-d_e"),
    ] {
        assert_eq!(route(&routes(), target), Ok(Route::Manager { name }), "{target}");
    }
    for target in ["/EMCP/content", "/emcp/", "/emcp//content", "/emcp/content/", "/emcp/content/x", "/emcp/%63ontent"]
    {
        assert_eq!(route(&routes(), target), Ok(Route::Reserved), "{target}");
    }
    assert_eq!(route(&with("", "", ""), "/emcp/content"), Ok(Route::Manager { name: "content" }));
}

#[test]
fn the_exact_spelling_of_a_dispatch_is_served() {
    for target in ["/api/v1/mcp/content/dispatch", "/api/v1/mcp/content/dispatch?x=1"] {
        let served = Ok(Route::Dispatch { server: "content", door: Door::Api });
        assert_eq!(route(&routes(), target), served, "{target}");
    }
    for target in ["/emcp/content/dispatch", "/emcp/content/dispatch?x=1"] {
        let served = Ok(Route::Dispatch { server: "content", door: Door::Manager });
        assert_eq!(route(&routes(), target), served, "{target}");
        let off = Routes { manager: false, ..routes() };
        assert_eq!(route(&off, target), Ok(Route::Reserved), "{target}");
    }
    for target in [
        "/api/v1/mcp/content/dispatch/",
        "/api/v1/mcp/content/Dispatch",
        "/api/v1/mcp/content//dispatch",
        "/api/v1/mcp//dispatch",
        "/api/v1/mcp/content/%64ispatch",
        "/api/v1/mcp/content/x/dispatch",
        "/api/v2/mcp/content/dispatch",
        "/emcp/content/dispatch/",
        "/emcp/content/Dispatch",
        "/emcp/content//dispatch",
        "/emcp//dispatch",
        "/emcp/c%6fntent/dispatch",
        "/EMCP/content/dispatch",
        "/emcp/servers/dispatch",
    ] {
        assert_eq!(route(&routes(), target), Ok(Route::Reserved), "{target}");
    }
    // With an empty prefix the token's and the manager's places stay theirs.
    let bare = with("api", "v1", "");
    assert_eq!(route(&bare, "/api/v1/token/dispatch"), Ok(Route::Reserved));
    assert_eq!(route(&bare, "/emcp/dispatch"), Ok(Route::Manager { name: "dispatch" }));
}

#[test]
fn switched_off_routes_stay_reserved() {
    let off = Routes { api: false, manager: false, ..routes() };
    for target in RESERVED {
        assert_eq!(route(&off, target), Ok(Route::Reserved), "{target}");
    }
}

#[test]
fn empty_parts_of_the_route_are_left_out() {
    let cases = [
        (with("", "v1", "mcp"), "/v1/mcp/content", Some("content")),
        (with("api", "", "mcp"), "/api/mcp/content", Some("content")),
        (with("api", "v1", ""), "/api/v1/content", Some("content")),
        (with("", "", "mcp"), "/mcp/content", Some("content")),
        (with("a/b", "v1", "m/n"), "/a/b/v1/m/n/content", Some("content")),
        (with("api", "v1", ""), "/api/v1/token", None),
        (with("", "", ""), "/emcp", None),
        (with("api", "v1", ""), "/api/v7/other/deep", None),
        (with("", "v1", ""), "/v2/content", None),
        (with("a/b", "v1", "m/n"), "/a/b/v2/m%2fn/content", None),
    ];
    for (routes, target, server) in cases {
        let expected = server.map_or(Route::Reserved, |server| Route::Mcp { server: server.into() });
        assert_eq!(route(&routes, target), Ok(expected), "{target}");
    }
    assert_eq!(route(&with("", "v1", ""), "/about"), Ok(Route::Cms));
}

#[test]
fn no_spelling_of_a_reserved_shape_reaches_the_cms() {
    let routes = routes();
    let mut spellings = 0;
    for path in RESERVED {
        for (name, transform) in TRANSFORMATIONS {
            let spelling = transform(path);
            assert_eq!(route(&routes, &spelling), Ok(Route::Reserved), "{name}: {spelling}");
            spellings += 1;
        }
    }
    assert!(spellings >= 200);
    for target in [
        "/api/v1/%6dcp/x",
        "/api/v1/m%ffcp/x",
        "/api/v1/mcp/%2e%2e/x",
        "/api/v1/mcp/",
        "/api/v1/mcp./x",
        "/api/v\\1/mcp/x",
    ] {
        assert_eq!(route(&routes, target), Ok(Route::Reserved), "{target}");
    }
}

#[test]
fn the_cms_keeps_its_own_paths() {
    let targets = [
        "/",
        "/api",
        "/api/v1",
        "/api/v1/users",
        "/about.html",
        "/manager/",
        "/emcphasis",
        "/index.php",
        "/index.php/shop/1",
        "/?q=about",
        "/search?q=mcp+token&page=2",
        "/%D0%BE%20%D0%BD%D0%B0%D1%81",
        "/100%",
        "/a%20b/c",
        "http://host/about",
        "http://host",
        "http://host?x=1",
        "/x?next=/api/v1/mcp/content",
        "/x/../y/style.css",
        "/api/docs/../v1/users",
        "/index.php5",
        "/about.photos/mcp",
        "/fish&chips",
        "/fish&q=chips",
        "/x..y/api/v1/mcp/content",
        "/x?qx=/api/v1/mcp/content&x%00q=/api/v1/mcp/content",
    ];
    for target in targets {
        assert_eq!(route(&routes(), target), Ok(Route::Cms), "{target}");
    }
}

#[test]
fn malformed_targets_are_refused() {
    let targets = [
        "",
        "*",
        "host:443",
        "ftp://host/x",
        "http://",
        "http:///x",
        "/x#y",
        "/x%00",
        "/x%2500",
        "/x%0d%0ay",
        "/x\ny",
        "/api/v1%c0%afmcp/x",
        "/%e0%80%afx",
        "/%f0%80%80%af",
        "/api/v1/mcp/x?#",
    ];
    for target in targets {
        assert_eq!(route(&routes(), target), Err(Reason::BadRequest), "{target:?}");
    }
    assert_eq!(route(&routes(), &format!("/{}", "x".repeat(MAX_TARGET_BYTES))), Err(Reason::UriTooLong));
    let nested = format!("/%{}41", "25".repeat(12));
    assert_eq!(route(&routes(), &nested), Ok(Route::Reserved));
}

/// What somebody may send as fast as the connection takes it.
#[test]
fn no_target_takes_long() {
    let long = |piece: &str| format!("/{}", piece.repeat(MAX_TARGET_BYTES / piece.len() - 1));
    let mut slowest = (std::time::Duration::ZERO, String::new());
    for piece in [
        "a",
        "/",
        "index/",
        ".ph",
        "/.ph",
        "/.pha",
        "&q=",
        ";",
        "/../.ph",
        "%252e/",
        "\\&q=/",
        "/index.ph..&",
        "%25",
        "?q=.ph/",
    ] {
        for target in [long(piece), format!("/x.ph{}", long(piece)), format!("/?q={}", long(piece))] {
            let begun = std::time::Instant::now();
            let _ = route(&routes(), &target[..target.len().min(MAX_TARGET_BYTES)]);
            slowest = slowest.max((begun.elapsed(), piece.to_owned()));
        }
    }
    println!("the slowest: {slowest:?}");
    assert!(slowest.0 < std::time::Duration::from_millis(500), "{slowest:?}");
}

proptest! {
    #[test]
    fn transformations_stack(
        path in prop::sample::select(&RESERVED[..]),
        encoded in prop::collection::vec(0_u8..4, 64),
        slashes in prop::collection::vec(0_usize..5, 12),
        prefix in prop::sample::select(vec!["", "/index.php", "/x/..", "/.", "/Index.php/a/..", "//h", "/x.php/index.php"]),
    ) {
        let mut letters = encoded.iter().cycle();
        let mut slashes = slashes.iter().cycle();
        let mut spelling = prefix.to_owned();
        for byte in path.bytes() {
            if byte == b'/' {
                let spellings = ["/", "//", "/./", "/%2e//", ";v=1/"];
                let slash = spellings[*slashes.next().expect("cycles")];
                spelling.push_str(if spelling.is_empty() { "/" } else { slash });
                continue;
            }
            match letters.next().expect("cycles") {
                0 => spelling.push(char::from(byte)),
                1 => spelling.push_str(&format!("%{byte:02x}")),
                2 => spelling.push_str(&format!("%25{byte:02X}")),
                _ => spelling.push(char::from(byte.to_ascii_uppercase())),
            }
        }
        prop_assert_ne!(route(&routes(), &spelling), Ok(Route::Cms), "{}", spelling);
    }

    #[test]
    fn no_target_panics(target in "\\PC{0,80}", path in "[/%.;a-z0-9\\\\?=&q]{0,60}") {
        let _ = route(&routes(), &target);
        let _ = route(&routes(), &format!("/{path}"));
    }
}
