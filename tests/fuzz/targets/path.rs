//! Reserved shapes never slip: what routes to the site reads as no reserved shape to a simple reader of another make,
//! decoding changes nothing about that, and a reserved path under any spelling that readers undo is not the site's.

#![no_main]

use libfuzzer_sys::fuzz_target;
use mcp_sidecar_fuzz::policy::Routes;
use mcp_sidecar_fuzz::proxy::path::{Route, route};

const RESERVED: [&str; 6] =
    ["/api/v1/mcp/content", "/api/v2/mcp/content", "/api/mcp/content", "/api/v1/token", "/emcp", "/emcp/content"];

fuzz_target!(|bytes: &[u8]| {
    let routes = Routes {
        api: true,
        manager: true,
        base: "api".to_owned(),
        version: "v1".to_owned(),
        api_prefix: "mcp".to_owned(),
        manager_prefix: "emcp".to_owned(),
    };
    if let Ok(target) = std::str::from_utf8(bytes) {
        free(&routes, target);
    }
    if let Some((first, choices)) = bytes.split_first() {
        spelt(&routes, RESERVED[usize::from(*first) % RESERVED.len()], choices);
    }
});

/// Any target.
fn free(routes: &Routes, target: &str) {
    match route(routes, target) {
        Ok(Route::Mcp { server }) => {
            let canonical = format!("/api/v1/mcp/{server}");
            assert!(target == canonical || target.starts_with(&format!("{canonical}?")), "{target:?}");
            assert_eq!(route(routes, &canonical), Ok(Route::Mcp { server }), "{target:?}");
        }
        Ok(Route::Cms) => {
            let path = target.split('?').next().unwrap_or_default();
            if !path.starts_with('/') {
                return;
            }
            assert!(!simply_reserved(path), "{target:?}");
            let decoded = String::from_utf8(decode(path.as_bytes()));
            if let Ok(decoded) = decoded.as_deref().map(|path| path.split(['?', '#']).next().unwrap_or_default())
                && decoded.starts_with('/')
            {
                assert!(matches!(route(routes, decoded), Ok(Route::Cms) | Err(_)), "{target:?}");
            }
        }
        Ok(Route::Manager { .. } | Route::Dispatch { .. } | Route::Reserved) | Err(_) => {}
    }
}

/// A reserved path, spelt as the bytes choose.
fn spelt(routes: &Routes, reserved: &str, choices: &[u8]) {
    let mut choices = choices.iter().copied().chain(std::iter::repeat(0));
    let mut choice = || choices.next().unwrap_or_default();
    let mut target = String::new();
    for byte in reserved.bytes() {
        if byte == b'/' {
            target.push_str(match choice() % 10 {
                0..=2 => "/",
                3 => "//",
                4 => "/./",
                5 => "/x/../",
                6 => "\\",
                7 => "/%2e/",
                8 => "%2f",
                _ => "/x/%2E%2e/",
            });
            continue;
        }
        match choice() % 6 {
            0..=2 => target.push(char::from(byte)),
            3 => target.push(char::from(byte.to_ascii_uppercase())),
            4 => target.push_str(&format!("%{byte:02x}")),
            _ => target.push_str(&format!("%25{byte:02X}")),
        }
    }
    target.push_str(["", "/", ";x=1", "/.", "%20", ".", "?a=b"][usize::from(choice()) % 7]);
    if target.starts_with('/') {
        let found = route(routes, &target);
        assert!(!matches!(found, Ok(Route::Cms)), "{target:?}");
    }
}

/// Decodes to the end, resolves dots, and looks at the first segments.
fn simply_reserved(path: &str) -> bool {
    let mut bytes = path.as_bytes().to_vec();
    loop {
        let next = decode(&bytes);
        if next == bytes {
            break;
        }
        bytes = next;
    }
    let text = String::from_utf8_lossy(&bytes).to_ascii_lowercase().replace('\\', "/");
    let mut segments: Vec<&str> = Vec::new();
    for segment in text.split('/').map(|segment| segment.split(';').next().unwrap_or_default()) {
        match segment {
            "" | "." => {}
            ".." => drop(segments.pop()),
            _ => segments.push(segment),
        }
    }
    matches!(segments[..], ["emcp", ..] | ["api", "mcp", ..] | ["api", _, "mcp", ..] | ["api", _, "token", ..])
}

fn decode(bytes: &[u8]) -> Vec<u8> {
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let pair = bytes.get(at + 1..at + 3).filter(|pair| pair.iter().all(u8::is_ascii_hexdigit));
        match (bytes[at], pair.and_then(|pair| std::str::from_utf8(pair).ok())) {
            (b'%', Some(pair)) => {
                decoded.push(u8::from_str_radix(pair, 16).expect("two hex digits"));
                at += 3;
            }
            (byte, _) => {
                decoded.push(byte);
                at += 1;
            }
        }
    }
    decoded
}
