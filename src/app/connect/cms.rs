use futures_util::StreamExt as _;
use http::HeaderMap;
use serde_json::Value;

use crate::app::connect::http::{Answer, Ask, Patience, authority, is_stream, send};
use crate::app::connect::spelling::{Spelling, spellings};
use crate::app::connect::upstream::{body, message};
use crate::app::connect::{ANSWER, Finding, WHOLE};
use crate::policy::{Routes, Snapshot};
use crate::proxy::path::{Route, route};
use crate::proxy::settings::{Address, CmsOrigin, Settings};

/// Requests at a time: a PHP-FPM pool is small.
const AT_ONCE: usize = 4;
/// Findings that are shown in full.
const SHOWN: usize = 4;

/// Whether the site answers, and whether it answers as an MCP server beside the policy (decisions P1).
pub(super) async fn ask(origin: &CmsOrigin, settings: &Settings, policy: Option<&Snapshot>) -> Vec<Finding> {
    let site = Site {
        address: Address::Tcp { host: origin.host.clone(), port: origin.port, tls: false },
        host: settings.server_names.first().cloned(),
        patience: Patience { connect: settings.timeouts.connect, answer: ANSWER },
    };
    let place = authority(&site.address);
    let page = Spelling { method: "GET", target: "/".to_owned(), form: None };
    let reachable = match site.send(&page).await {
        Ok(answer) => Finding::ok("cms", format!("{place} answers (HTTP {})", answer.status)),
        Err(trouble) => return vec![Finding::failed("cms", trouble.to_string(), trouble.fix())],
    };
    let Some(policy) = policy else {
        let text = "was not asked whether it answers MCP by itself: the routes are in policy.toml";
        return vec![reachable, Finding::warn("cms", text, "check it together with policy.toml")];
    };
    vec![reachable, site.speaks(policy).await]
}

struct Site {
    address: Address,
    host: Option<String>,
    patience: Patience,
}

/// What a path that leads nowhere gets; whatever other paths get as well tells nothing.
struct Control {
    post: Option<u16>,
    get: Option<u16>,
    form: Option<u16>,
}

impl Site {
    async fn send(&self, spelling: &Spelling) -> Result<Answer, super::http::Trouble> {
        let host = self.host.clone().unwrap_or_else(|| authority(&self.address));
        let mut headers = vec![
            ("Host".to_owned(), host.into_bytes()),
            ("Accept".to_owned(), b"application/json, text/event-stream, */*".to_vec()),
        ];
        let body = match (&spelling.form, spelling.method) {
            (Some(form), _) => {
                headers.push(("Content-Type".to_owned(), b"application/x-www-form-urlencoded".to_vec()));
                form.clone().into_bytes()
            }
            (None, "POST") => {
                headers.push(("Content-Type".to_owned(), b"application/json".to_vec()));
                body()
            }
            _ => Vec::new(),
        };
        let ask = Ask { method: spelling.method, target: spelling.target.clone(), headers, body };
        send(&self.address, &ask, self.patience).await
    }

    /// One finding about all spellings of all servers' routes.
    async fn speaks(&self, policy: &Snapshot) -> Finding {
        let control = self.control().await;
        // How a site reads a spelling does not depend on the handle: one server is tried in all of them. `content` is
        // the one that eMCP ships.
        let plain = |handle| spellings(&policy.routes, handle).into_iter().take(1);
        let others = policy.servers.iter().map(|server| &*server.handle).filter(|handle| *handle != "content");
        let tried: Vec<Spelling> =
            spellings(&policy.routes, "content").into_iter().chain(others.flat_map(plain)).collect();
        let all = tried.len();
        // `buffered` keeps the order, so that the plainest spelling is shown first.
        let answers = futures_util::stream::iter(tried)
            .map(|spelling| async {
                let answer = self.send(&spelling).await;
                (spelling, answer)
            })
            .buffered(AT_ONCE)
            .take_until(tokio::time::sleep(WHOLE.saturating_sub(ANSWER)))
            .collect::<Vec<_>>()
            .await;
        let silent = answers.iter().filter(|(_, answer)| answer.is_err()).count() + all - answers.len();
        let speaking: Vec<(&Spelling, String)> = answers
            .iter()
            .filter_map(|(spelling, answer)| {
                let evidence = evidence(spelling, answer.as_ref().ok()?, &control)?;
                Some((spelling, evidence))
            })
            .collect();
        if !speaking.is_empty() {
            return told(&policy.routes, &speaking, all);
        }
        if silent > 0 {
            let text =
                format!("gave no answer to {silent} of {all} ways to ask for MCP: cannot tell whether it has it");
            return Finding::failed("cms", text, "check whether it is overloaded, and ask again");
        }
        Finding::ok("cms", format!("does not answer MCP by itself ({all} ways tried)"))
    }

    async fn control(&self) -> Control {
        let nowhere = format!("/mcp-sidecar-check-{}", uuid::Uuid::new_v4().simple());
        let status = |method, form: Option<&'static str>| {
            let spelling = Spelling { method, target: nowhere.clone(), form: form.map(str::to_owned) };
            async move { self.send(&spelling).await.ok().map(|answer| answer.status) }
        };
        let form = Some("q=mcp-sidecar-check");
        let (post, get, form) = tokio::join!(status("POST", None), status("GET", None), status("POST", form));
        Control { post, get, form }
    }
}

fn told(routes: &Routes, speaking: &[(&Spelling, String)], all: usize) -> Finding {
    let mut shown: Vec<String> =
        speaking.iter().take(SHOWN).map(|(spelling, evidence)| format!("{spelling} ({evidence})")).collect();
    if speaking.len() > SHOWN {
        shown.push(format!("and {} more", speaking.len() - SHOWN));
    }
    let open: Vec<String> = speaking
        .iter()
        .filter(|(spelling, _)| matches!(route(routes, &spelling.target), Ok(Route::Cms)))
        .map(|(spelling, _)| spelling.to_string())
        .collect();
    let through = if open.is_empty() {
        "the proxy keeps clients from these; whoever reaches the site directly gets past the policy".to_owned()
    } else {
        format!("CLIENTS REACH THIS THROUGH THE PROXY: {}", open.join(", "))
    };
    let text =
        format!("answers MCP by itself, in {} of {all} ways tried: {}; {through}", speaking.len(), shown.join(", "),);
    let fix = "switch MCP off in the CMS (eMCP: enable = false, mode.api = false), or let its web server refuse these \
               paths";
    Finding::failed("cms", text, fix)
}

/// What shows that an MCP endpoint gave this answer; `None` for anything that another page could give as well.
fn evidence(spelling: &Spelling, answer: &Answer, control: &Control) -> Option<String> {
    let status = answer.status;
    let of = |what: &str| Some(format!("HTTP {status}, {what}"));
    if has(&answer.headers, "mcp-session-id") {
        return of("MCP-Session-Id");
    }
    if has(&answer.headers, "x-emcp-stream-max-seconds") {
        return of("an eMCP stream");
    }
    if message(answer).is_some() {
        return of("JSON-RPC");
    }
    let json: Option<Value> = serde_json::from_slice(&answer.body).ok();
    if let Some(error) = json.as_ref().and_then(|json| json.get("error")).and_then(Value::as_object)
        && error.len() == 3
        && let (Some(code), true) = (error.get("code").and_then(Value::as_str), error.contains_key("trace_id"))
    {
        let code: String = code.chars().filter(|c| c.is_ascii_alphanumeric() || *c == '_').take(40).collect();
        return of(&format!("eMCP's error `{code}`"));
    }
    let elsewhere = match (&spelling.form, spelling.method) {
        (Some(_), _) => control.form,
        (None, "GET") => control.get,
        (None, _) => control.post,
    };
    if elsewhere == Some(status) {
        return None;
    }
    if is_stream(&answer.headers) && status == 200 {
        return of("an event stream");
    }
    match status {
        401 => of("it asks for a credential, unlike elsewhere"),
        405 => of("it knows the route, and another method"),
        _ => None,
    }
}

fn has(headers: &HeaderMap, name: &str) -> bool {
    headers.contains_key(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: u16, header: (&str, &str), body: &str) -> Answer {
        let mut headers = HeaderMap::new();
        let name: http::HeaderName = header.0.parse().expect("a name");
        headers.insert(name, header.1.parse().expect("a value"));
        Answer { status, headers, body: body.as_bytes().to_vec() }
    }

    #[test]
    fn an_mcp_endpoint_is_known_by_its_answers_and_pages_are_not() {
        let json = ("content-type", "application/json");
        let html = ("content-type", "text/html");
        let emcp = r#"{"error":{"code":"unauthenticated","message":"Unauthenticated","trace_id":"t"}}"#;
        let sapi = r#"{"success":false,"message":"Not found","object":{},"code":404}"#;
        let rpc = r#"{"jsonrpc":"2.0","id":"check","result":{}}"#;
        let cases = [
            (answer(200, json, rpc), true),
            (answer(200, ("content-type", "text/event-stream"), &format!("data: {rpc}\n\n")), true),
            (answer(202, ("mcp-session-id", "x"), ""), true),
            (answer(401, json, emcp), true),
            (answer(404, json, &emcp.replace("unauthenticated", "server_not_found")), true),
            (answer(401, html, "who are you"), true),
            (answer(405, html, "not so"), true),
            (answer(404, json, sapi), false),
            (answer(404, html, "<h1>jsonrpc</h1>"), false),
            (answer(200, html, "<h1>Home</h1>"), false),
            (answer(403, html, "no"), false),
            (answer(200, json, r#"{"error":{"code":"x"}}"#), false),
        ];
        let spelling = Spelling { method: "POST", target: "/".into(), form: None };
        let control = Control { post: Some(404), get: Some(404), form: Some(200) };
        for (answer, expected) in &cases {
            assert_eq!(evidence(&spelling, answer, &control).is_some(), *expected, "{answer:?}");
        }
        let closed = Control { post: Some(401), get: None, form: None };
        assert_eq!(evidence(&spelling, &answer(401, html, "who are you"), &closed), None, "every page asks that");
        assert!(evidence(&spelling, &answer(401, json, emcp), &closed).is_some());
    }
}
