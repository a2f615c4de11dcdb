//! Refusals in the language that the policy or the caller wants.

use serde_json::json;

use crate::harness::{Request, Sidecar, Token};

fn message(sidecar: &Sidecar, request: &Request) -> (String, Option<String>) {
    let answer = sidecar.send(request);
    let message = answer.json()["error"]["message"].as_str().expect("a message").to_owned();
    (message, answer.header("content-language").map(str::to_owned))
}

#[test]
fn the_policy_chooses_the_language_and_the_caller_where_it_may() {
    let nobody = |sidecar: &Sidecar| {
        let body = json!({"jsonrpc": "2.0", "id": 1, "method": "ping"}).to_string();
        sidecar.post("raw", &Token::of("alice"), body).without("authorization")
    };
    let batch = |sidecar: &Sidecar| sidecar.post("raw", &Token::of("alice"), "[]");
    for (locale, negotiate, asked, expected, language) in [
        ("en", false, "uk", ["Unauthenticated", "Invalid request: batches are not supported"], None),
        ("uk", false, "ru", ["Потрібна автентифікація", "Хибний запит: пакети не підтримуються"], Some("uk")),
        (
            "en",
            true,
            "ru-RU, en;q=0.5",
            ["Требуется аутентификация", "Неверный запрос: пакеты не поддерживаются"],
            Some("ru"),
        ),
        ("uk", true, "de", ["Unauthenticated", "Invalid request: batches are not supported"], None),
    ] {
        let sidecar = Sidecar::start().policy("i18n.locale", locale).policy("i18n.negotiate", negotiate).go();
        for (request, expected) in [nobody(&sidecar), batch(&sidecar)].into_iter().zip(expected) {
            let found = message(&sidecar, &request.header("Accept-Language", asked));
            assert_eq!(found, (expected.to_owned(), language.map(str::to_owned)), "{locale} {negotiate} {asked}");
        }
        // A path that is nobody's is refused in the same language.
        let lost = Request::new("GET", "/api/v1/token").header("Accept-Language", asked);
        assert_eq!(message(&sidecar, &lost).1, language.map(str::to_owned));
        sidecar.finish();
    }
}
