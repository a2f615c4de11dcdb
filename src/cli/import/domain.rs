use crate::cli::import::page::Page;
use crate::cli::import::setting::{Notes, Range, Settings};
use crate::config::models;

/// Where the CMS keeps its models.
const NAMESPACE: &str = "EvolutionCMS\\Models\\";

/// How much of the site may be read, and which models.
pub(super) fn domain(root: &mut Settings, out: &mut Page, notes: &mut Notes) {
    let given = root.has("domain");
    let mut domain = root.below("domain", notes);
    let mut content = domain.below("content", notes);
    let mut of_models = domain.below("models", notes);
    domain.finish(notes);
    out.table("domain.content");
    for (key, least, most, default) in
        [("max_depth", 1, 1000, 6), ("max_limit", 1, 100_000, 100), ("max_offset", 0, 100_000_000, 5000)]
    {
        out.some(key, content.number(key, Range::cap(Some(default), least, most), notes));
    }
    content.finish(notes);
    out.table("domain.models");
    out.some("max_offset", of_models.number("max_offset", Range::cap(Some(5000), 0, 100_000_000), notes));
    let wanted = of_models.allowed("allow", notes);
    of_models.finish(notes);
    let mut allowed: Vec<(&str, bool)> = Vec::new();
    match wanted {
        None if given => notes.push(
            "domain.models.allow is not there, and a block `domain` without it allowed no model in eMCP: none is \
             allowed here"
                .to_owned(),
        ),
        None => allowed.extend(models()),
        Some(words) => {
            for word in words {
                match models().find(|(name, _)| is_model(&word, name)) {
                    Some(model) if !allowed.contains(&model) => allowed.push(model),
                    Some(_) => {}
                    None => notes.push(format!("domain.models.allow: there is no model {word:?} here")),
                }
            }
        }
    }
    out.key("allow", allowed.iter().map(|(name, _)| (*name).to_owned()).collect::<Vec<_>>());
    let people: Vec<&str> = allowed.iter().filter(|(_, people)| *people).map(|(name, _)| *name).collect();
    out.table("compat");
    out.key("emcp_models", !people.is_empty());
    if !people.is_empty() {
        let names = people.join(", ");
        notes.push(format!(
            "models of people and rights stay readable, as they were ({names}): remove them from domain.models.allow if \
             nobody needs them"
        ));
    }
}

/// By its short name or the CMS's own class, in any case. A class of the same name elsewhere is another one.
fn is_model(word: &str, name: &str) -> bool {
    let word = word.strip_prefix('\\').unwrap_or(word);
    let within = word.get(..NAMESPACE.len()).is_some_and(|start| start.eq_ignore_ascii_case(NAMESPACE));
    let short = if within { &word[NAMESPACE.len()..] } else { word };
    short.eq_ignore_ascii_case(name)
}
