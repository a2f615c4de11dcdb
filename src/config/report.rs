use std::fmt::{self, Write as _};

/// One thing that is wrong with the configuration, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Path of the file, or `--set KEY`, or the name of an environment variable.
    pub file: String,
    /// Line and column (in characters), from 1; 0 when there is no such place.
    pub line: u32,
    pub column: u32,
    /// The line of the file that holds the place; empty when there is none.
    pub excerpt: String,
    /// The offending text itself.
    pub offending: String,
    pub message: String,
    /// What to do about it; may be empty.
    pub fix: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.line == 0 {
            write!(f, "{}: {}", self.file, self.message)
        } else {
            write!(f, "{}:{}:{}: {}", self.file, self.line, self.column, self.message)
        }
    }
}

/// Every problem found in one pass; never empty where it is returned as an error.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    pub problems: Vec<Problem>,
}

impl Report {
    /// A report of one problem that has no place inside a file.
    #[must_use]
    pub fn of(file: &str, message: impl Into<String>, fix: impl Into<String>) -> Self {
        Self {
            problems: vec![Problem {
                file: file.to_owned(),
                line: 0,
                column: 0,
                excerpt: String::new(),
                offending: String::new(),
                message: message.into(),
                fix: fix.into(),
            }],
        }
    }

    /// Takes in what another report holds, each problem once.
    pub fn merge(&mut self, other: Self) {
        for problem in other.problems {
            if !self.problems.contains(&problem) {
                self.problems.push(problem);
            }
        }
    }

    /// The report for people: message, place, the line with a caret below it, the fix.
    #[must_use]
    pub fn render(&self) -> String {
        let mut out = String::new();
        for problem in &self.problems {
            // Writing to a String cannot fail.
            let _ = writeln!(out, "error: {}", problem.message);
            if problem.line == 0 {
                let _ = writeln!(out, "  --> {}", problem.file);
            } else {
                let width = problem.line.to_string().len();
                let _ = writeln!(out, "{:width$}--> {}:{}:{}", "", problem.file, problem.line, problem.column);
                let _ = writeln!(out, "{:width$} |", "");
                let _ = writeln!(out, "{} | {}", problem.line, problem.excerpt);
                let before = usize::try_from(problem.column).unwrap_or(1).saturating_sub(1);
                let pad: String =
                    problem.excerpt.chars().take(before).map(|c| if c == '\t' { '\t' } else { ' ' }).collect();
                let room = problem.excerpt.chars().count().saturating_sub(before).max(1);
                let carets = problem.offending.lines().next().unwrap_or("").chars().count().clamp(1, room);
                let _ = writeln!(out, "{:width$} | {pad}{}", "", "^".repeat(carets));
            }
            if !problem.fix.is_empty() {
                let _ = writeln!(out, "  = fix: {}", problem.fix);
            }
            out.push('\n');
        }
        let count = self.problems.len();
        let _ = writeln!(out, "{count} problem{}", if count == 1 { "" } else { "s" });
        out
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.render().trim_end())
    }
}

impl std::error::Error for Report {}

/// The candidate nearest to `word`, if any is near enough to be what was meant.
pub(in crate::config) fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let limit = (word.chars().count() / 3).max(1);
    candidates
        .into_iter()
        .map(|candidate| (distance(word, candidate), candidate))
        .filter(|(distance, _)| *distance <= limit)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// Edits between two words (insert, delete, replace, swap of neighbours).
fn distance(left: &str, right: &str) -> usize {
    let (left, right): (Vec<char>, Vec<char>) =
        (left.to_lowercase().chars().take(64).collect(), right.to_lowercase().chars().take(64).collect());
    let mut rows = vec![vec![0; right.len() + 1]; left.len() + 1];
    for i in 0..=left.len() {
        for j in 0..=right.len() {
            rows[i][j] = if i == 0 || j == 0 {
                i + j
            } else {
                let replaced = rows[i - 1][j - 1] + usize::from(left[i - 1] != right[j - 1]);
                let mut best = replaced.min(rows[i - 1][j] + 1).min(rows[i][j - 1] + 1);
                if i > 1 && j > 1 && left[i - 1] == right[j - 2] && left[i - 2] == right[j - 1] {
                    best = best.min(rows[i - 2][j - 2] + 1);
                }
                best
            };
        }
    }
    rows[left.len()][right.len()]
}

#[cfg(test)]
mod tests {
    use super::nearest;

    #[test]
    fn a_suggestion_is_near_or_absent() {
        let known = ["per_minute", "enabled", "replicas"];
        assert_eq!(nearest("per_minte", known), Some("per_minute"));
        assert_eq!(nearest("enabeld", known), Some("enabled"));
        assert_eq!(nearest("colour", known), None);
    }
}
