use std::collections::HashMap;

use aho_corasick::AhoCorasick;

use crate::policy::RuleSite;

const MAX_BYTES: usize = 256;

/// A case-sensitive glob in which `*` matches any run, `/` included; without `*` an exact name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern {
    text: String,
    /// Where the first and the last `*` stand.
    stars: Option<(usize, usize)>,
}

/// Why a text is no pattern.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidPattern {
    #[error("a pattern must not be empty")]
    Empty,
    #[error("{0:?} is not allowed in a pattern: use A-Z a-z 0-9 _ . / : - and *")]
    Character(char),
    #[error("a pattern is at most 256 bytes")]
    TooLong,
}

impl Pattern {
    /// Checks and takes a pattern.
    ///
    /// # Errors
    /// When it is empty, too long or holds other characters than names and `*` do.
    pub fn new(text: &str) -> Result<Self, InvalidPattern> {
        if text.is_empty() {
            return Err(InvalidPattern::Empty);
        }
        if text.len() > MAX_BYTES {
            return Err(InvalidPattern::TooLong);
        }
        match text.chars().find(|c| !(c.is_ascii_alphanumeric() || "_./:-*".contains(*c))) {
            Some(foreign) => Err(InvalidPattern::Character(foreign)),
            None => Ok(Self { text: text.to_owned(), stars: text.find('*').zip(text.rfind('*')) }),
        }
    }

    /// The pattern as written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether the whole of `name` matches. Linear time, whatever the pattern.
    #[must_use]
    pub fn matches(&self, name: &str) -> bool {
        let Some((first, last)) = self.stars else { return self.text == name };
        let Some(mut name) = name.strip_prefix(&self.text[..first]) else { return false };
        if first < last {
            // Greedy from the left is enough: whatever an earlier piece leaves over, the `*` behind it takes.
            for piece in self.text[first + 1..last].split('*').filter(|piece| !piece.is_empty()) {
                let Some(at) = name.find(piece) else { return false };
                name = &name[at + piece.len()..];
            }
        }
        name.ends_with(&self.text[last + 1..])
    }

    /// The shape, as far as it decides how a set looks the pattern up.
    fn shape(&self) -> Shape<'_> {
        match self.stars {
            None => Shape::Exact(&self.text),
            Some((first, _)) if self.text[first..].bytes().all(|byte| byte == b'*') => {
                Shape::Prefix(&self.text[..first])
            }
            Some(_) => Shape::Other(self.text.split('*').max_by_key(|piece| piece.len()).unwrap_or_default()),
        }
    }
}

enum Shape<'a> {
    Exact(&'a str),
    /// `prefix*`
    Prefix(&'a str),
    /// Anything else, and its longest piece between stars, which every matching name holds. It is never empty.
    Other(&'a str),
}

/// Many patterns, compiled so that the cost of a look-up hardly grows with their number (exact names in a hash,
/// `prefix*` in a sorted structure, the rest by one search for their longest pieces).
#[derive(Clone, Debug, Default)]
pub struct PatternSet {
    patterns: Vec<(Pattern, RuleSite)>,
    exact: HashMap<String, usize>,
    /// Sorted by text.
    prefixes: Vec<Prefix>,
    /// Finds the pieces of the patterns of any other shape.
    pieces: Option<AhoCorasick>,
    /// The positions of the patterns with each piece, in file order.
    owners: Vec<Vec<usize>>,
    /// Where the list itself stands, which decides about what no pattern matches.
    site: Option<RuleSite>,
}

#[derive(Clone, Debug)]
struct Prefix {
    text: String,
    /// The longest other prefix that this one starts with.
    parent: Option<usize>,
    /// The smallest file position among this prefix and its ancestors, which all match whatever it matches.
    first: usize,
}

impl PatternSet {
    /// Compiles patterns, each with its place in the policy file.
    #[must_use]
    pub fn new(patterns: Vec<(Pattern, RuleSite)>) -> Self {
        let mut exact = HashMap::new();
        let mut heads: HashMap<&str, usize> = HashMap::new();
        let mut pieces: HashMap<&str, Vec<usize>> = HashMap::new();
        for (position, (pattern, _)) in patterns.iter().enumerate() {
            match pattern.shape() {
                Shape::Exact(name) => drop(exact.entry(name.to_owned()).or_insert(position)),
                Shape::Prefix(head) => drop(heads.entry(head).or_insert(position)),
                Shape::Other(piece) => pieces.entry(piece).or_default().push(position),
            }
        }
        let (pieces, owners): (Vec<&str>, Vec<Vec<usize>>) = pieces.into_iter().unzip();
        let pieces = (!pieces.is_empty())
            .then(|| AhoCorasick::new(&pieces).expect("a policy holds less than gigabytes of patterns"));
        let mut heads: Vec<_> = heads.into_iter().collect();
        heads.sort_unstable();
        let mut prefixes: Vec<Prefix> = Vec::with_capacity(heads.len());
        for (text, position) in heads {
            let mut parent = prefixes.len().checked_sub(1);
            while let Some(at) = parent.filter(|at| !text.starts_with(&prefixes[*at].text)) {
                parent = prefixes[at].parent;
            }
            let first = parent.map_or(position, |at| prefixes[at].first.min(position));
            prefixes.push(Prefix { text: text.to_owned(), parent, first });
        }
        Self { patterns, exact, prefixes, pieces, owners, site: None }
    }

    /// The same list, with its own place.
    #[must_use]
    pub fn at(mut self, site: RuleSite) -> Self {
        self.site = Some(site);
        self
    }

    /// Where the list stands.
    #[must_use]
    pub const fn site(&self) -> Option<&RuleSite> {
        self.site.as_ref()
    }

    /// The place of the first pattern (in file order among the matching ones) that matches.
    #[must_use]
    pub fn find(&self, name: &str) -> Option<&RuleSite> {
        let mut first = self.exact.get(name).copied().unwrap_or(usize::MAX);
        // The longest matching prefix is the greatest entry not above `name`, or an ancestor of that entry.
        let mut at = self.prefixes.partition_point(|prefix| prefix.text.as_str() <= name).checked_sub(1);
        while let Some(prefix) = at.map(|at| &self.prefixes[at]) {
            if name.starts_with(&prefix.text) {
                first = first.min(prefix.first);
                break;
            }
            at = prefix.parent;
        }
        if let Some(pieces) = &self.pieces {
            for found in pieces.find_overlapping_iter(name) {
                for position in self.owners[found.pattern().as_usize()].iter().copied() {
                    if position < first && self.patterns[position].0.matches(name) {
                        first = position;
                    }
                }
            }
        }
        self.patterns.get(first).map(|(_, site)| site)
    }

    /// The patterns as written, in order.
    #[must_use]
    pub fn patterns(&self) -> &[(Pattern, RuleSite)] {
        &self.patterns
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_star_stands_for_any_run() {
        let cases = [
            ("a", "a", true),
            ("a", "ab", false),
            ("*", "", true),
            ("a*", "a/b", true),
            ("a*a", "a", false),
            ("a*a", "aa", true),
            ("*b*", "abc", true),
            ("a*b*c", "axbxbc", true),
            ("a*b*c", "acb", false),
            ("A*", "a", false),
            ("**", "x", true),
            ("a**", "ab", true),
            ("a**b", "ab", true),
        ];
        for (pattern, name, expected) in cases {
            assert_eq!(Pattern::new(pattern).unwrap().matches(name), expected, "{pattern} {name}");
        }
        assert_eq!(Pattern::new(""), Err(InvalidPattern::Empty));
        assert_eq!(Pattern::new("a b"), Err(InvalidPattern::Character(' ')));
        assert_eq!(Pattern::new(&"a".repeat(257)), Err(InvalidPattern::TooLong));
    }

    proptest! {
        #[test]
        fn a_set_finds_what_the_first_matching_pattern_is(
            patterns in prop::collection::vec("[ab*]{1,5}", 0..30),
            name in "[ab]{0,6}",
        ) {
            let patterns: Vec<_> = patterns
                .iter()
                .enumerate()
                .map(|(i, text)| {
                    let site = RuleSite { key: format!("p[{i}]").into(), line: 1, column: 1 };
                    (Pattern::new(text).unwrap(), site)
                })
                .collect();
            let expected = patterns.iter().find(|(pattern, _)| pattern.matches(&name)).map(|(_, site)| site.clone());
            prop_assert_eq!(PatternSet::new(patterns).find(&name).cloned(), expected);
        }
    }
}
