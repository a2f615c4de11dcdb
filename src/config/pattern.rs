use crate::config::document::Place;
use crate::config::reader::{Reader, Section, Word};
use crate::policy::{InvalidPattern, Pattern, PatternSet, RuleSite};

/// One pattern; what is wrong with it is pointed at.
pub(in crate::config) fn pattern(reader: &Reader<'_>, word: Word) -> Option<(Pattern, RuleSite)> {
    match Pattern::new(&word.text) {
        Ok(pattern) => Some((pattern, reader.site(word.key, word.place))),
        Err(error) => {
            let place = match error {
                InvalidPattern::Character(foreign) => inside(reader, &word, foreign),
                _ => word.place,
            };
            let fix = "an exact name, or a pattern such as evo.content.*";
            reader.problem(place, format!("`{}`: {error}", word.key), fix);
            None
        }
    }
}

/// A list of patterns.
pub(in crate::config) fn patterns(section: &Section<'_>, key: &str, required: bool) -> PatternSet {
    let words = section.words(key, required).into_iter();
    // An absent list is decided by the table that lacks it.
    let place = section.node(key).map_or(section.place, |node| node.place);
    let site = section.reader.site(section.key(key), place);
    PatternSet::new(words.filter_map(|word| pattern(section.reader, word)).collect()).at(site)
}

/// `security.allow_origins`, in lower case.
pub(in crate::config) fn origins(section: &Section<'_>) -> Vec<String> {
    let words = section.words("allow_origins", true).into_iter();
    words
        .map(|word| {
            let good = |text: &str| {
                let rest = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
                rest.is_some_and(|rest| !rest.is_empty() && !rest.contains(['/', '*', ' ', '@', '?', '#']))
            };
            if !good(&word.text) {
                let bare = word.text.trim_end_matches('/');
                let fix = match good(bare) {
                    true => format!("write {bare:?}"),
                    false => "write scheme://host[:port], and nothing behind it".to_owned(),
                };
                let message = format!("`{}` is no origin: {:?}", word.key, word.text);
                section.reader.problem(word.place, message, &fix);
            }
            word.text.to_lowercase()
        })
        .collect()
}

/// Where a character of a string stands in the file; the whole string where it is written with escapes.
fn inside(reader: &Reader<'_>, word: &Word, character: char) -> Place {
    let place = word.place;
    let raw = reader.document.texts[place.source].text.get(place.start..place.end).unwrap_or("");
    let plain = raw.get(1..raw.len().saturating_sub(1)) == Some(word.text.as_str());
    match word.text.find(character).filter(|_| plain) {
        Some(at) => {
            let start = place.start + 1 + at;
            Place { start, end: start + character.len_utf8(), ..place }
        }
        None => place,
    }
}
