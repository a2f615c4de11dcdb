//! Lines put into the texts of a checkout. `None`: a text does not look as it should.

/// The text with a module declared, in the order of the alphabet.
pub(super) fn declared(text: &str, name: &str) -> Option<String> {
    let module = |line: &str| {
        let name = line.strip_prefix("pub(super) mod ").or_else(|| line.strip_prefix("mod "))?;
        name.strip_suffix(';').map(str::to_owned)
    };
    let lines: Vec<&str> = text.lines().collect();
    let line = format!("pub(super) mod {name};");
    let next = lines.iter().position(|line| module(line).is_some_and(|other| *other > *name));
    let last = lines.iter().rposition(|line| module(line).is_some()).map(|last| last + 1);
    let (at, new) = match next.or(last) {
        Some(at) => (at, vec![line]),
        // The first one stands apart, below what the room is for.
        None => (lines.iter().position(|line| !line.starts_with("//!"))?, vec![String::new(), line]),
    };
    let mut lines: Vec<String> = lines.into_iter().map(str::to_owned).collect();
    lines.splice(at..at, new);
    Some(lines.join("\n") + "\n")
}

/// The text with a line before the first that begins so.
pub(super) fn before(text: &str, begins: &str, line: &str) -> Option<String> {
    let at = if text.starts_with(begins) { 0 } else { text.find(&format!("\n{begins}"))? + 1 };
    Some(format!("{}{line}{}", &text[..at], &text[at..]))
}

/// The text with an item at the end of a list that stands over several lines.
pub(super) fn listed(text: &str, list: &str, item: &str) -> Option<String> {
    let begin = text.find(&format!("static {list}: "))?;
    let begin = begin + text[begin..].find('\n')? + 1;
    let end = if text[begin..].starts_with("];") { begin } else { begin + text[begin..].find("\n];")? + 1 };
    // Nothing but lines of the list lies in between.
    let inside = text[begin..end].lines().all(|line| line.starts_with("    "));
    inside.then(|| format!("{}    {item},\n{}", &text[..end], &text[end..]))
}

/// Whether some path in the text begins with this word: a module of that name would be meant instead.
pub(super) fn starts_a_path(text: &str, name: &str) -> bool {
    text.match_indices(&format!("{name}::"))
        .any(|(at, _)| !text[..at].ends_with(|before: char| before.is_alphanumeric() || before == '_' || before == ':'))
}

/// Words that cannot name a module, or name one already.
pub(super) fn keyword(name: &str) -> bool {
    const WORDS: [&str; 40] = [
        "abstract", "as", "async", "await", "become", "box", "break", "const", "continue", "crate", "do", "dyn",
        "else", "enum", "extern", "false", "final", "fn", "for", "gen", "if", "impl", "in", "let", "loop", "macro",
        "match", "mod", "move", "mut", "pub", "ref", "return", "static", "struct", "trait", "true", "type", "use",
        "where",
    ];
    WORDS.contains(&name)
        || ["self", "super", "try", "typeof", "unsafe", "unsized", "virtual", "while", "yield"].contains(&name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modules_stand_in_the_order_of_the_alphabet_and_the_first_one_below_the_purpose() {
        let empty = "//! Purpose.\n//!\n//! More.\n\nuse crate::base;\n";
        let one = declared(empty, "middle").unwrap_or_default();
        assert_eq!(one, "//! Purpose.\n//!\n//! More.\n\npub(super) mod middle;\n\nuse crate::base;\n");
        let three = declared(&declared(&one, "last").unwrap_or_default(), "zoo").unwrap_or_default();
        assert!(three.contains("\n\npub(super) mod last;\npub(super) mod middle;\npub(super) mod zoo;\n\nuse "));
        assert_eq!(declared("", "x"), None);
    }

    #[test]
    fn items_stand_at_the_end_of_their_own_list() {
        let text = "static A: &[X] = &[\n    // Such as: a,\n];\nstatic B: &[X] = &[\n];\n";
        let text = listed(&listed(text, "A", "a::X").unwrap_or_default(), "A", "b::X").unwrap_or_default();
        let text = listed(&text, "B", "c::X").unwrap_or_default();
        let expected = "static A: &[X] = &[\n    // Such as: a,\n    a::X,\n    b::X,\n];\n\
                        static B: &[X] = &[\n    c::X,\n];\n";
        assert_eq!(text, expected);
        for other in ["static A: &[X] = &[];\nfn f() {\n    let x = [\n];\n", "static AB: &[X] = &[\n];\n", ""] {
            assert_eq!(listed(other, "A", "a::X"), None, "{other}");
        }
    }

    #[test]
    fn a_name_that_paths_begin_with_is_told() {
        let text = "use serde::Deserialize;\nuse crate::policy::x;\nfn f() { tracing::warn!(\"\") }\n";
        let told = ["serde", "tracing", "crate", "policy", "x", "erde"].map(|name| starts_a_path(text, name));
        assert_eq!(told, [true, true, true, false, false, false]);
    }
}
