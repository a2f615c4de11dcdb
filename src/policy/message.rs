//! The public messages in the languages that answers can have. Codes are the same in all of them.

use crate::policy::Reason;

/// A language of messages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Locale {
    #[default]
    En,
    Uk,
    Ru,
}

impl Locale {
    /// The language tag.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::En => "en",
            Self::Uk => "uk",
            Self::Ru => "ru",
        }
    }

    /// The language of a tag such as `uk-UA`, if it is one of ours.
    fn of_tag(tag: &str) -> Option<Self> {
        let primary = tag.split('-').next().unwrap_or(tag);
        [Self::En, Self::Uk, Self::Ru].into_iter().find(|locale| locale.as_str().eq_ignore_ascii_case(primary))
    }
}

/// `i18n.*`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct I18n {
    /// What callers get who do not ask for another, or are not listened to.
    pub locale: Locale,
    /// Whether `Accept-Language` counts.
    pub negotiate: bool,
}

impl I18n {
    /// How many ranges of `Accept-Language` are looked at.
    const RANGES: usize = 16;

    /// The language for a caller with this `Accept-Language`. Who asks for languages none of which is ours gets
    /// English; who does not ask, or takes any, the configured one.
    #[must_use]
    pub fn choose(self, accept_language: Option<&str>) -> Locale {
        let asked = accept_language.filter(|text| self.negotiate && !text.trim().is_empty());
        let Some(text) = asked else { return self.locale };
        let mut best: Option<(u16, Locale)> = None;
        for range in text.split(',').take(Self::RANGES) {
            let mut parts = range.split(';').map(str::trim);
            let tag = parts.next().unwrap_or_default();
            let locale = if tag == "*" { Some(self.locale) } else { Locale::of_tag(tag) };
            let quality = parts.find_map(|part| part.strip_prefix("q=").or_else(|| part.strip_prefix("Q=")));
            let quality = quality.map_or(1000, thousandths);
            if let Some(locale) = locale
                && quality > best.map_or(0, |(quality, _)| quality)
            {
                best = Some((quality, locale));
            }
        }
        best.map_or(Locale::En, |(_, locale)| locale)
    }
}

/// A quality from 0 to 1 in thousandths; what is none counts as 0.
fn thousandths(text: &str) -> u16 {
    let value: f32 = if text.len() <= 5 { text.parse().unwrap_or(0.0) } else { 0.0 };
    // Within 0 to 1000 by the clamp; NaN becomes 0.
    (value.clamp(0.0, 1.0) * 1000.0) as u16
}

impl Reason {
    /// The public message in a language; English where it has no other.
    #[must_use]
    pub fn message_in(self, locale: Locale) -> &'static str {
        let index = match locale {
            Locale::En => return self.message(),
            Locale::Uk => 0,
            Locale::Ru => 1,
        };
        translated(self.code()).map_or(self.message(), |texts| texts[index])
    }
}

/// The message of a code in Ukrainian and Russian.
#[must_use]
fn translated(code: &str) -> Option<[&'static str; 2]> {
    Some(match code {
        "bad_request" => ["Хибний запит", "Неверный запрос"],
        "unauthenticated" => ["Потрібна автентифікація", "Требуется аутентификация"],
        "forbidden" => ["Немає доступу", "Нет доступа"],
        "foreign_origin" => ["Запити з цього джерела не дозволено", "Запросы с этого источника не разрешены"],
        "scope_denied" => ["Токен не має потрібного scope", "У токена нет нужного scope"],
        "server_denied" => ["Сервер закрито політикою", "Сервер закрыт политикой"],
        "tool_denied" => ["Інструмент закрито політикою", "Инструмент закрыт политикой"],
        "resource_denied" => ["Ресурс закрито політикою", "Ресурс закрыт политикой"],
        "prompt_denied" => ["Підказку закрито політикою", "Подсказка закрыта политикой"],
        "streaming_disabled" => ["Потокову передачу вимкнено", "Потоковая передача выключена"],
        "server_not_found" => ["Такого сервера немає", "Такого сервера нет"],
        "route_not_found" => ["Такого шляху немає", "Такого пути нет"],
        "session_not_found" => ["Такого сеансу немає", "Такого сеанса нет"],
        "method_not_allowed" => ["Метод не підтримується", "Метод не поддерживается"],
        "request_timeout" => ["Запит надходив занадто довго", "Запрос поступал слишком долго"],
        "payload_too_large" => ["Запит завеликий", "Запрос слишком велик"],
        "result_too_large" => ["Відповідь завелика", "Ответ слишком велик"],
        "uri_too_long" => ["Задовга адреса", "Слишком длинный адрес"],
        "unsupported_media_type" => ["Непідтримуваний тип вмісту", "Неподдерживаемый тип содержимого"],
        "rate_limited" => ["Забагато запитів", "Слишком много запросов"],
        "headers_too_large" => ["Завеликі заголовки запиту", "Слишком большие заголовки запроса"],
        "internal_error" => ["Внутрішня помилка", "Внутренняя ошибка"],
        "upstream_failed" => ["Збій сервера за шлюзом", "Сбой сервера за шлюзом"],
        "overloaded" => ["Перевантаження, спробуйте пізніше", "Перегрузка, попробуйте позже"],
        "limits_unavailable" => ["Неможливо перевірити ліміти запитів", "Невозможно проверить лимиты запросов"],
        "audit_unavailable" => ["Журнал аудиту не встигає", "Журнал аудита не успевает"],
        "draining" => ["Сервер завершує роботу", "Сервер завершает работу"],
        "upstream_timeout" => ["Сервер за шлюзом не відповів вчасно", "Сервер за шлюзом не ответил вовремя"],
        "invalid_payload" => ["Хибне тіло запиту", "Неверное тело запроса"],
        "idempotency_conflict" => ["Ключ уже зайнятий іншим запитом", "Ключ уже занят другим запросом"],
        "async_unavailable" => ["Черга недоступна", "Очередь недоступна"],
        "empty_body" => ["Помилка розбору: тіло порожнє", "Ошибка разбора: тело пустое"],
        "not_json" => ["Помилка розбору: це не документ JSON", "Ошибка разбора: это не документ JSON"],
        "bad_utf8" => ["Помилка розбору: це не UTF-8", "Ошибка разбора: это не UTF-8"],
        "byte_order_mark" => ["Помилка розбору: мітка порядку байтів", "Ошибка разбора: метка порядка байтов"],
        "trailing_data" => ["Помилка розбору: дані після документа", "Ошибка разбора: данные после документа"],
        "too_deep" => ["Хибний запит: понад 64 рівні вкладеності", "Неверный запрос: больше 64 уровней вложенности"],
        "lone_surrogate" => [
            "Хибний запит: рядок містить половину сурогатної пари",
            "Неверный запрос: строка содержит половину суррогатной пары",
        ],
        "lossy_number" => {
            ["Хибний запит: число не передається без втрат", "Неверный запрос: число не передаётся без потерь"]
        }
        "duplicate_key" => {
            ["Хибний запит: ключ двічі стоїть в одному об'єкті", "Неверный запрос: ключ дважды стоит в одном объекте"]
        }
        "lookalike_key" => {
            ["Хибний запит: ключ лише схожий на службовий", "Неверный запрос: ключ лишь похож на служебный"]
        }
        "batch" => ["Хибний запит: пакети не підтримуються", "Неверный запрос: пакеты не поддерживаются"],
        "not_an_object" => ["Хибний запит: це не об'єкт", "Неверный запрос: это не объект"],
        "bad_version" => ["Хибний запит: jsonrpc має бути \"2.0\"", "Неверный запрос: jsonrpc должен быть \"2.0\""],
        "bad_method" => ["Хибний запит: method має бути рядком", "Неверный запрос: method должен быть строкой"],
        "bad_id" => [
            "Хибний запит: id має бути рядком до 256 байтів або цілим числом",
            "Неверный запрос: id должен быть строкой до 256 байт или целым числом",
        ],
        "bad_params" => {
            ["Хибні параметри: params має бути об'єктом", "Неверные параметры: params должен быть объектом"]
        }
        "name_missing" => ["Хибні параметри: немає name", "Неверные параметры: нет name"],
        "name_invalid" => [
            "Хибні параметри: ім'я складається з 1–128 знаків A-Z a-z 0-9 _ . / : -",
            "Неверные параметры: имя состоит из 1–128 знаков A-Z a-z 0-9 _ . / : -",
        ],
        "uri_invalid" => [
            "Хибні параметри: uri має від 1 до 2048 байтів, без керівних знаків і крапкових сегментів",
            "Неверные параметры: в uri от 1 до 2048 байт, без управляющих знаков и точечных сегментов",
        ],
        "bad_arguments" => {
            ["Хибні параметри: arguments має бути об'єктом", "Неверные параметры: arguments должен быть объектом"]
        }
        "header_mismatch" => {
            ["Хибний запит: заголовок Mcp-* суперечить тілу", "Неверный запрос: заголовок Mcp-* противоречит телу"]
        }
        "method_not_found" => ["Такого методу немає", "Такого метода нет"],
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_has_a_message_in_every_language() {
        for reason in Reason::all() {
            let texts = [Locale::En, Locale::Uk, Locale::Ru].map(|locale| reason.message_in(locale));
            assert!(texts.iter().all(|text| !text.is_empty()), "{reason:?}");
            assert!(texts[0] != texts[1] && texts[0] != texts[2], "{reason:?} is not translated: {texts:?}");
        }
    }

    #[test]
    fn the_language_is_the_configured_one_unless_it_is_negotiated() {
        let fixed = I18n { locale: Locale::Uk, negotiate: false };
        assert_eq!(fixed.choose(Some("ru")), Locale::Uk);
        let open = I18n { locale: Locale::Uk, negotiate: true };
        let cases = [
            (None, Locale::Uk),
            (Some(""), Locale::Uk),
            (Some("*"), Locale::Uk),
            (Some("ru"), Locale::Ru),
            (Some("RU-ru, en;q=0.5"), Locale::Ru),
            (Some("en;q=0.3, ru;q=0.9, uk;q=0.8"), Locale::Ru),
            (Some("uk;q=0.5, ru;q=0.5"), Locale::Uk),
            (Some("ru;q=0, en;q=0.1"), Locale::En),
            (Some("ru;q=0"), Locale::En),
            (Some("de, fr;q=0.5"), Locale::En),
            (Some("de, *;q=0.1"), Locale::Uk),
            (Some("ru;q=nan"), Locale::En),
            (Some("ru;q=-1"), Locale::En),
            (Some("ru;q=9"), Locale::Ru),
            (Some(";;;,,=,q=1"), Locale::En),
            (Some("rus, ukr"), Locale::En),
        ];
        for (header, expected) in cases {
            assert_eq!(open.choose(header), expected, "{header:?}");
        }
    }
}
