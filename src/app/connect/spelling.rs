//! The ways in which a request for the CMS's own MCP endpoint can be written.

use crate::policy::Routes;

/// One spelling of a request for an MCP route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Spelling {
    pub method: &'static str,
    pub target: String,
    /// A form that carries the path, sent in place of JSON.
    pub form: Option<String>,
}

impl Spelling {
    fn post(target: String) -> Self {
        Self { method: "POST", target, form: None }
    }
}

impl std::fmt::Display for Spelling {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.method, self.target)?;
        self.form.as_ref().map_or(Ok(()), |form| write!(f, " with the form {form}"))
    }
}

/// Every spelling of one server's routes that is tried, the plain one first.
pub(super) fn spellings(routes: &Routes, server: &str) -> Vec<Spelling> {
    let version = if routes.version.is_empty() { Vec::new() } else { vec![routes.version.as_str()] };
    let api = |version: Vec<&str>| -> Vec<String> {
        let parts = [vec![routes.base.as_str()], version, vec![routes.api_prefix.as_str(), server]].concat();
        parts.into_iter().filter(|part| !part.is_empty()).map(str::to_owned).collect()
    };
    let plain = api(version.clone());
    let manager = vec![routes.manager_prefix.clone(), server.to_owned()];
    let mut found = of_path(&plain);
    found.extend(of_path(&manager));
    let path = plain.join("/");
    found.push(Spelling { method: "GET", target: format!("/{path}"), form: None });
    found.push(Spelling::post(format!("/{path}/dispatch")));
    for other in ["v1", "v2"] {
        if routes.version != other {
            found.push(Spelling::post(format!("/{}", api(vec![other]).join("/"))));
        }
    }
    if !version.is_empty() {
        found.push(Spelling::post(format!("/{}", api(Vec::new()).join("/"))));
    }
    let mut seen = std::collections::HashSet::new();
    found.retain(|spelling| seen.insert(spelling.to_string()));
    found
}

fn of_path(segments: &[String]) -> Vec<Spelling> {
    let path = segments.join("/");
    let first = &segments[0];
    let rest = segments[1..].join("/");
    // The segment whose name gives the route away: the last but one.
    let telling = &segments[segments.len() - 2];
    let with = |name: String| {
        let mut other = segments.to_vec();
        let at = other.len() - 2;
        other[at] = name;
        other.join("/")
    };
    let encoded = |prefix: &str| {
        let letter = telling.bytes().next().unwrap_or(b'm');
        with(format!("%{prefix}{letter:02x}{}", telling.get(1..).unwrap_or("")))
    };
    let slashed = path.replacen('/', "%2f", segments.len());
    let mut found: Vec<Spelling> = [
        format!("/{path}"),
        format!("/{path}/"),
        format!("//{path}"),
        format!("/{first}//{rest}"),
        format!("/./{path}"),
        format!("/assets/../{path}"),
        format!("/{first}/x/../{rest}"),
        format!("/{path};x=1"),
        format!("/index.php/{path}"),
        format!("/index.php//{path}"),
        format!("/index.php{path}"),
        format!("/{first}/..;a/../{rest}"),
        format!("/a%5cb/%2e%2e/{path}"),
        format!("/x&q={path}"),
        format!("/index.php?q%00;={path}"),
        format!("/{}", encoded("")),
        format!("/{}", encoded("25")),
        format!("/index.php/{}", encoded("")),
        format!("/{slashed}"),
        format!("/{}", path.replace('/', "%5c")),
        format!("/{}", with(telling.to_uppercase())),
        format!("/?q={path}"),
        format!("/?q=/{path}"),
        format!("/index.php?q={path}"),
        format!("/index.php?q={slashed}"),
        format!("/index.php?q={}", encoded("")),
        format!("/index.php?q=x&q={path}"),
    ]
    .into_iter()
    .map(Spelling::post)
    .collect();
    for (target, path) in [("/index.php", path.clone()), ("/", path.clone()), ("/index.php", format!("/{path}"))] {
        found.push(Spelling { method: "POST", target: target.to_owned(), form: Some(format!("q={path}")) });
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proxy::path::{Route, route};

    fn routes(base: &str, version: &str, prefix: &str) -> Routes {
        let [base, version, api_prefix] = [base, version, prefix].map(str::to_owned);
        Routes { api: true, manager: true, base, version, api_prefix, manager_prefix: "emcp".to_owned() }
    }

    #[test]
    fn the_known_spellings_are_among_them_once_each() {
        let found: Vec<String> =
            spellings(&routes("api", "v1", "mcp"), "content").iter().map(ToString::to_string).collect();
        for expected in [
            "POST /api/v1/mcp/content",
            "GET /api/v1/mcp/content",
            "POST /api/v1/mcp/content/",
            "POST //api/v1/mcp/content",
            "POST /index.php/api/v1/mcp/content",
            "POST /api/v1/%6dcp/content",
            "POST /api/v1/%256dcp/content",
            "POST /api/v1/MCP/content",
            "POST /api/v2/mcp/content",
            "POST /emcp/content",
            "POST /index.php/emcp/content",
            "POST /index.php?q=api/v1/mcp/content",
            "POST /index.php with the form q=api/v1/mcp/content",
        ] {
            assert_eq!(found.iter().filter(|spelling| *spelling == expected).count(), 1, "{expected}");
        }
    }

    #[test]
    fn the_proxy_keeps_clients_from_every_spelling_that_a_target_holds() {
        for routes in [routes("api", "v1", "mcp"), routes("", "v1", "mcp"), routes("rest", "", "tools")] {
            for spelling in spellings(&routes, "content").iter().filter(|spelling| spelling.form.is_none()) {
                let led = route(&routes, &spelling.target);
                assert_ne!(led, Ok(Route::Cms), "{spelling}");
            }
        }
    }
}
