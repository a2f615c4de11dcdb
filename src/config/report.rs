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

    /// A report of these problems in the order of the file; what has no place in it comes last.
    #[must_use]
    pub(in crate::config) fn sorted(mut problems: Vec<Problem>) -> Self {
        problems.sort_by_key(|problem| (problem.line == 0, problem.line, problem.column));
        for problem in &mut problems {
            for text in [&mut problem.message, &mut problem.excerpt, &mut problem.offending] {
                *text = mask_passwords(text);
            }
        }
        Self { problems }
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

/// Stars in place of `password` in each `scheme://user:password@host`, as many as it has characters.
fn mask_passwords(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("://") {
        out.push_str(before);
        out.push_str("://");
        // Blanks, slashes and question marks may stand in a password that nobody encoded; a quote ends the text.
        let end = after.find(['"', '\'']).unwrap_or(after.len());
        let password = after[..end].rfind('@').and_then(|at| Some((after[..at].find(':')? + 1, at)));
        rest = match password {
            Some((start, at)) => {
                out.push_str(&after[..start]);
                out.extend(after[start..at].chars().map(|_| '*'));
                &after[at..]
            }
            None => after,
        };
    }
    out + rest
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.render().trim_end())
    }
}

impl std::error::Error for Report {}

#[cfg(test)]
mod tests {
    use super::mask_passwords;

    #[test]
    fn passwords_in_urls_are_masked_and_nothing_moves() {
        let cases = [
            ("url = \"redis://:word@h:6379\"", "url = \"redis://:****@h:6379\""),
            ("{ a = \"redis://u:wo@rd@h\", b = \"x://u:p@h\" }", "{ a = \"redis://u:*****@h\", b = \"x://u:*@h\" }"),
            ("url = \"redis://u:wört/?x@h", "url = \"redis://u:*******@h"),
            ("url = \"http://host:80/a\"  # a@b.example", "url = \"http://host:80/a\"  # a@b.example"),
            ("none", "none"),
            ("://", "://"),
        ];
        for (text, expected) in cases {
            assert_eq!(mask_passwords(text), expected);
        }
    }
}
