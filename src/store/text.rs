//! The same answers from three engines: how texts are compared, searched and read as numbers.
//!
//! Texts are equal when they are the same to the byte, and ordered by code point, whatever collation a site has. `like`
//! looks at letters without their case. A text counts as the number that it begins with (blanks before it aside, no
//! exponents), else as 0; a null stays null.

use sea_query::{BinOper, Expr, ExprTrait, Func, LikeExpr, NullOrdering, Order, SelectStatement};

use crate::store::Dialect;

/// How a field is compared with one value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Comparison {
    Equal,
    NotEqual,
    Greater,
    GreaterOrEqual,
    Less,
    LessOrEqual,
}

impl Comparison {
    pub(in crate::store) fn of(self, left: Expr, right: Expr) -> Expr {
        match self {
            Self::Equal => left.eq(right),
            Self::NotEqual => left.ne(right),
            Self::Greater => left.gt(right),
            Self::GreaterOrEqual => left.gte(right),
            Self::Less => left.lt(right),
            Self::LessOrEqual => left.lte(right),
        }
    }
}

/// Where the text of a `like` must stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Anchor {
    Anywhere,
    End,
    Start,
}

/// What `%` and `_` are in the text of a `like`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wildcards {
    /// Any run of characters, and any one character.
    Active,
    /// Themselves.
    Literal,
}

/// How a text is read as a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cast {
    /// Its integer part, at the ends of 64 bits the end itself.
    Signed,
    /// The same, and nothing below 0.
    Unsigned,
    /// Rounded to `scale` places, half away from 0, with at most `precision` digits.
    Decimal { precision: u8, scale: u8 },
}

/// The lowest and the highest number of 64 bits.
const LOW: &str = "-9223372036854775808";
const HIGH: &str = "9223372036854775807";
/// A double's next step up from 1: it lifts what is half on paper and less in binary, like 1.005.
const NUDGE: f64 = 1.0 + 2.0 * f64::EPSILON;
/// How MySQL lowers letters: by the latest table that all its versions and MariaDB's have.
const MYSQL_LOWER: &str = "LOWER(CONVERT(? USING utf8mb4) COLLATE utf8mb4_unicode_520_ci) COLLATE utf8mb4_bin";
/// Capitals whose small letter has another capital. They stand for themselves, though MySQL lowers them; where it is
/// asked for them or for such a small letter, it sees marks of a private area in their place.
const LONERS: [char; 10] = ['İ', '\u{212a}', '\u{212b}', '\u{2126}', 'ϴ', 'ẞ', 'ǅ', 'ǈ', 'ǋ', 'ǲ'];
const MARKS: u32 = 0xf8d0;
/// A number at the beginning, PostgreSQL's reading. Longer ones are beyond every bound already.
const NUMBER: &str = r"^[ \t\n\r\f\v]*([-+]?(?:[0-9]{1,100}\.?[0-9]{0,100}|\.[0-9]{1,100}))";

/// A text, compared to the byte.
pub(in crate::store) fn exact(dialect: Dialect, text: Expr) -> Expr {
    match dialect {
        // A binary collation would still take blanks at the end for nothing.
        Dialect::MySql => Expr::cust_with_expr("CAST(CONVERT(? USING utf8mb4) AS BINARY)", text),
        Dialect::Postgres => Expr::cust_with_expr("($1 COLLATE \"C\")", text),
        Dialect::Sqlite => text,
    }
}

/// The type that a number is cast to where its digits are searched.
pub(in crate::store) const fn text_type(dialect: Dialect) -> &'static str {
    match dialect {
        Dialect::MySql => "CHAR",
        Dialect::Postgres | Dialect::Sqlite => "TEXT",
    }
}

/// A text read as a number.
pub(in crate::store) fn number(dialect: Dialect, text: Expr, cast: Cast) -> Expr {
    match dialect {
        Dialect::MySql => {
            let text = before(before(Expr::cust_with_expr("CONVERT(? USING utf8mb4)", text), "e"), "E");
            let whole = |text: Expr| Expr::cust_with_expr("TRUNCATE(CAST(? AS DECIMAL(65, 30)), 0)", text);
            match cast {
                Cast::Signed => within("LEAST", "GREATEST", whole(text), LOW, HIGH),
                Cast::Unsigned => within("LEAST", "GREATEST", whole(text), "0", HIGH),
                Cast::Decimal { precision, scale } => text.cast_as(format!("DECIMAL({precision}, {scale})")),
            }
        }
        Dialect::Postgres => {
            let found: Expr = Func::cust("SUBSTRING").arg(text.clone()).arg(NUMBER).into();
            let number = Expr::from(Func::coalesce([found, Expr::cust("'0'")])).cast_as("NUMERIC");
            let whole = |number: Expr| Expr::from(Func::cust("TRUNC").arg(number));
            let number = match cast {
                Cast::Signed => within("LEAST", "GREATEST", whole(number), LOW, HIGH),
                Cast::Unsigned => within("LEAST", "GREATEST", whole(number), "0", HIGH),
                Cast::Decimal { precision, scale } => {
                    let rounded = Func::cust("ROUND").arg(number).arg(Expr::cust(scale.to_string()));
                    let most = nines(precision, scale);
                    within("LEAST", "GREATEST", rounded.into(), &format!("-{most}"), &most)
                }
            };
            // The functions above would make a number of a null.
            Expr::case(text.is_not_null(), number).into()
        }
        Dialect::Sqlite => {
            let replace = |text: Expr, e: &'static str| -> Expr {
                Func::cust("REPLACE").arg(text).arg(Expr::cust(e)).arg(Expr::cust("'x'")).into()
            };
            let text = replace(replace(text, "'e'"), "'E'");
            match cast {
                // The cast itself stops at the ends of 64 bits.
                Cast::Signed => text.cast_as("INTEGER"),
                Cast::Unsigned => Func::cust("MAX").arg(text.cast_as("INTEGER")).arg(Expr::cust("0")).into(),
                Cast::Decimal { precision, scale } => {
                    let real = text.cast_as("REAL");
                    let nudged = real.clone().mul(Expr::cust(format!("{NUDGE:?}")));
                    let rounded: Expr = Func::cust("ROUND").arg(nudged).arg(Expr::cust(scale.to_string())).into();
                    let size: Expr = Func::cust("ABS").arg(real.clone()).into();
                    let most = nines(precision, scale);
                    // Where a double has no more places than these, there is nothing to round.
                    let fits = size.lt(Expr::cust(format!("1e{}", 15 - i16::from(scale))));
                    let rounded = Expr::case(fits, rounded).finally(real);
                    within("MIN", "MAX", rounded.into(), &format!("-{most}"), &most)
                }
            }
        }
    }
}

/// A number to compare [`number`] with, from its digits: an optional minus, digits, an optional fraction.
pub(in crate::store) fn digits(dialect: Dialect, digits: &str, cast: Cast) -> Expr {
    let digits = Expr::val(digits.to_owned());
    match (dialect, cast) {
        (Dialect::MySql, _) => digits.cast_as("DECIMAL(65, 30)"),
        (Dialect::Sqlite, Cast::Decimal { .. }) => digits.cast_as("REAL"),
        (Dialect::Postgres | Dialect::Sqlite, _) => digits.cast_as("NUMERIC"),
    }
}

/// A search in a text, without regard to case.
pub(in crate::store) fn like(dialect: Dialect, field: Expr, anchor: Anchor, text: &str, wildcards: Wildcards) -> Expr {
    match dialect {
        Dialect::MySql => {
            // Both sides are lowered by the same table, so that a letter which it does not know still finds itself.
            let lowered = |text: Expr| Expr::cust_with_expr(MYSQL_LOWER, text);
            let (mut field, mut pattern) = (field, pattern(anchor, text, wildcards, |character| character));
            for (at, loner) in (0..).zip(LONERS) {
                if text
                    .chars()
                    .any(|character| character == loner || loner.to_lowercase().next() == Some(lower(character)))
                {
                    let mark = char::from_u32(MARKS + at).unwrap_or(loner);
                    let replace = Func::cust("REPLACE").arg(Expr::cust_with_expr("CONVERT(? USING utf8mb4)", field));
                    field = replace.arg(Expr::val(loner.to_string())).arg(Expr::val(mark.to_string())).into();
                    pattern = pattern.replace(loner, &mark.to_string());
                }
            }
            Expr::cust_with_exprs("? LIKE ? ESCAPE '!'", [lowered(field), lowered(Expr::val(pattern))])
        }
        // Among ASCII, these two fold nothing else, whatever locale the database was made with.
        Dialect::Postgres if text.is_ascii() => {
            let field = Expr::from(Func::lower(exact(dialect, field)));
            field.like(LikeExpr::new(pattern(anchor, text, wildcards, lower)).escape('!'))
        }
        Dialect::Sqlite if text.is_ascii() => {
            field.like(LikeExpr::new(pattern(anchor, text, wildcards, lower)).escape('!'))
        }
        // Else each letter is looked for in all its cases.
        Dialect::Postgres => {
            let inner = classes(
                text,
                wildcards,
                &Glyphs { run: ".*", one: ".", special: r"\.^$*+?()[]{}|", quote: ("\\", "") },
            );
            let start = if anchor == Anchor::Start { "^" } else { "" };
            let end = if anchor == Anchor::End { "$" } else { "" };
            exact(dialect, field).binary(BinOper::Custom("~"), Expr::val(format!("{start}{inner}{end}")))
        }
        Dialect::Sqlite => {
            let inner = classes(text, wildcards, &Glyphs { run: "*", one: "?", special: "*?[", quote: ("[", "]") });
            let start = if anchor == Anchor::Start { "" } else { "*" };
            let end = if anchor == Anchor::End { "" } else { "*" };
            field.binary(BinOper::Custom("GLOB"), Expr::val(format!("{start}{inner}{end}")))
        }
    }
}

/// A flag as 0 or 1: PostgreSQL keeps some as booleans.
pub(in crate::store) fn flag(dialect: Dialect, flag: Expr) -> Expr {
    match dialect {
        Dialect::Postgres => flag.cast_as("INTEGER"),
        Dialect::MySql | Dialect::Sqlite => flag,
    }
}

/// A key to sort by.
#[derive(Clone, Debug)]
pub(in crate::store) struct Key {
    pub by: Expr,
    pub order: Order,
    /// Then nulls are lowest. Said of what is never null, it would keep PostgreSQL from using an index.
    pub nullable: bool,
}

impl Key {
    /// A key that is never null.
    pub(in crate::store) const fn of(by: Expr, order: Order) -> Self {
        Self { by, order, nullable: false }
    }

    pub(in crate::store) fn sort(self, dialect: Dialect, statement: &mut SelectStatement) {
        let Self { by, order, nullable } = self;
        let nulls = if matches!(order, Order::Desc) { NullOrdering::Last } else { NullOrdering::First };
        if nullable && dialect == Dialect::Postgres {
            statement.order_by_expr_with_nulls(by, order, nulls);
        } else {
            statement.order_by_expr(by, order);
        }
    }
}

fn before(text: Expr, mark: &'static str) -> Expr {
    Func::cust("SUBSTRING_INDEX").arg(text).arg(Expr::cust(format!("'{mark}'"))).arg(Expr::cust("1")).into()
}

fn within(least: &'static str, greatest: &'static str, number: Expr, low: &str, high: &str) -> Expr {
    let low: Expr = Func::cust(greatest).arg(number).arg(Expr::cust(low.to_owned())).into();
    Func::cust(least).arg(low).arg(Expr::cust(high.to_owned())).into()
}

/// The highest number of so many digits.
fn nines(precision: u8, scale: u8) -> String {
    let whole = "9".repeat(precision.saturating_sub(scale).into());
    let whole = if whole.is_empty() { "0" } else { &whole };
    // With its point, no engine takes it for an integer that does not fit.
    format!("{whole}.{}", if scale == 0 { "0".to_owned() } else { "9".repeat(scale.into()) })
}

/// One letter for one letter, so that lengths stay.
fn lower(character: char) -> char {
    let mut lower = character.to_lowercase();
    match (lower.next(), lower.next()) {
        (Some(only), None) => only,
        _ => character,
    }
}

/// A pattern of `LIKE`, with `!` as the escape.
fn pattern(anchor: Anchor, text: &str, wildcards: Wildcards, fold: fn(char) -> char) -> String {
    let mut pattern = String::with_capacity(text.len() + 2);
    if anchor != Anchor::Start {
        pattern.push('%');
    }
    for character in text.chars() {
        let quoted = character == '!' || (wildcards == Wildcards::Literal && matches!(character, '%' | '_'));
        if quoted {
            pattern.push('!');
        }
        pattern.push(fold(character));
    }
    if anchor != Anchor::End {
        pattern.push('%');
    }
    pattern
}

/// How a pattern language writes things.
struct Glyphs {
    run: &'static str,
    one: &'static str,
    /// What means something, unless between the two quotes.
    special: &'static str,
    quote: (&'static str, &'static str),
}

fn classes(text: &str, wildcards: Wildcards, glyphs: &Glyphs) -> String {
    let mut pattern = String::with_capacity(text.len() * 3);
    for character in text.chars() {
        let (small, large) = cases(character);
        match character {
            '%' if wildcards == Wildcards::Active => pattern.push_str(glyphs.run),
            '_' if wildcards == Wildcards::Active => pattern.push_str(glyphs.one),
            _ if small != large => pattern.extend(['[', small, large, ']']),
            _ if glyphs.special.contains(character) => {
                pattern.push_str(glyphs.quote.0);
                pattern.push(character);
                pattern.push_str(glyphs.quote.1);
            }
            _ => pattern.push(character),
        }
    }
    pattern
}

/// The letter's two cases, each of which leads to the other; of any other character the character itself.
fn cases(character: char) -> (char, char) {
    let small = lower(character);
    let mut upper = small.to_uppercase();
    match (upper.next(), upper.next()) {
        (Some(large), None) if lower(large) == small && (character == small || character == large) => (small, large),
        _ => (character, character),
    }
}
