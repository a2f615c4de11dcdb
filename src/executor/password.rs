//! Passwords as Evolution 3.1 to 3.5 stores them, and the two older forms that are read by a switch.
//!
//! Costs are bounded: a row of the database decides how long this takes, and nobody should be able to stop the program
//! with one.

use std::fmt::Write as _;

use argon2::password_hash::phc::PasswordHash;
use argon2::{Argon2, PasswordVerifier as _};
use md5::{Digest as _, Md5};

/// The highest cost of bcrypt that is computed; PHP's default is 10, and 12 since 8.4.
const MAX_BCRYPT_COST: u32 = 15;
/// The most memory that Argon2 may take, in KiB; PHP's default is 64 MiB.
const MAX_ARGON2_KIB: u32 = 256 * 1024;
/// The most passes of Argon2 times lanes; PHP's default is 4 times 1.
const MAX_ARGON2_PASSES: u32 = 32;
/// The highest cost of the portable form, as a power of two; its library's default is 8.
const MAX_PORTABLE_LOG2: u32 = 16;
/// No password is longer, in bytes.
const MAX_BYTES: usize = 4096;
/// bcrypt at PHP's older default cost; nobody has its password.
const DUMMY: &str = "$2y$10$abcdefghijklmnopqrstuuTITdZ8GdyDvWLbNHvoRDNHGfBOfHs0e";
const ITOA64: &[u8; 64] = b"./0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// What became of comparing a password.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::executor) enum Comparison {
    Match,
    Mismatch,
    /// The stored form is none that is read here.
    Unreadable,
}

/// Compares a password with what is stored. `legacy` also reads MD5, plain and portable.
pub(in crate::executor) fn compare(password: &[u8], stored: &[u8], legacy: bool) -> Comparison {
    let Ok(stored) = std::str::from_utf8(stored) else { return Comparison::Unreadable };
    // PHP's own functions end at a NUL, where these do not.
    if password.len() > MAX_BYTES || password.contains(&0) {
        return if is_readable(stored, legacy) { Comparison::Mismatch } else { Comparison::Unreadable };
    }
    let matches = match stored.as_bytes() {
        [b'$', b'2', b'a' | b'b' | b'y', b'$', ..] => bcrypt(password, stored),
        [b'$', b'a', b'r', b'g', b'o', b'n', b'2', ..] => argon2(password, stored),
        [b'$', b'P' | b'H', b'$', ..] if legacy => portable(password, stored),
        bytes if legacy && bytes.len() == 32 && bytes.iter().all(u8::is_ascii_hexdigit) => {
            Some(same(hex(&Md5::digest(password)).as_bytes(), stored.to_ascii_lowercase().as_bytes()))
        }
        _ => None,
    };
    match matches {
        Some(true) => Comparison::Match,
        Some(false) => Comparison::Mismatch,
        None => Comparison::Unreadable,
    }
}

/// Takes as long as [`compare`] would with `specimen`, or with the dummy where that is none that is read.
pub(in crate::executor) fn waste(password: &[u8], specimen: &[u8], legacy: bool) {
    if std::hint::black_box(compare(password, specimen, legacy)) == Comparison::Unreadable {
        std::hint::black_box(compare(password, DUMMY.as_bytes(), false));
    }
}

fn is_readable(stored: &str, legacy: bool) -> bool {
    compare(b"", stored.as_bytes(), legacy) != Comparison::Unreadable
}

fn bcrypt(password: &[u8], stored: &str) -> Option<bool> {
    let cost: u32 = stored.get(4..6)?.parse().ok()?;
    if stored.len() != 60 || !(4..=MAX_BCRYPT_COST).contains(&cost) {
        return None;
    }
    bcrypt::verify(password, stored).ok()
}

fn argon2(password: &[u8], stored: &str) -> Option<bool> {
    let hash = PasswordHash::new(stored).ok()?;
    if !["argon2i", "argon2id"].contains(&hash.algorithm.as_str()) {
        return None;
    }
    let params = argon2::Params::try_from(&hash).ok()?;
    let passes = params.t_cost().checked_mul(params.p_cost())?;
    if params.m_cost() > MAX_ARGON2_KIB || passes > MAX_ARGON2_PASSES || hash.hash.is_none() {
        return None;
    }
    Some(Argon2::default().verify_password(password, &hash).is_ok())
}

/// The "portable" form of older PHP programs: MD5 over salt and password, then many times over that and the password.
fn portable(password: &[u8], stored: &str) -> Option<bool> {
    let bytes = stored.as_bytes();
    let log2 = u32::try_from(ITOA64.iter().position(|letter| Some(letter) == bytes.get(3))?).ok()?;
    if bytes.len() != 34 || !(7..=MAX_PORTABLE_LOG2).contains(&log2) {
        return None;
    }
    let mut digest = Md5::new().chain_update(&bytes[4..12]).chain_update(password).finalize();
    for _ in 0..1_u32 << log2 {
        digest = Md5::new().chain_update(digest).chain_update(password).finalize();
    }
    Some(same(&encode64(&digest), &bytes[12..]))
}

/// Six bits a letter, from the lowest, three bytes at a time.
fn encode64(bytes: &[u8]) -> Vec<u8> {
    let mut text = Vec::with_capacity(22);
    for group in bytes.chunks(3) {
        let bits = group.iter().rev().fold(0_usize, |bits, byte| bits << 8 | usize::from(*byte));
        text.extend((0..=group.len()).map(|letter| ITOA64[bits >> (6 * letter) & 63]));
    }
    text
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").expect("a String takes every write");
        text
    })
}

/// Compared in a time that does not tell where they differ.
fn same(left: &[u8], right: &[u8]) -> bool {
    left.len() == right.len() && left.iter().zip(right).fold(0, |bits, (l, r)| bits | (l ^ r)) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    // Written by PHP's password_hash() and by the portable form's own library.
    const BCRYPT: &str = "$2y$04$fqT42hZFs/mVyA3DmxqJ2u9wv9TmVG8aqAstNcsa6fsztZMuqqGGi";
    const ARGON2I: &str =
        "$argon2i$v=19$m=1024,t=2,p=2$YzJBSzV4TUhkMzc3d3laeg$zqU/1IN0/AogfP4cmSJI1vc8lpXRW9/S0sYY2i2jHT0";
    const ARGON2ID: &str =
        "$argon2id$v=19$m=1024,t=2,p=1$VWNXdHk5WUlxclN3RGp1RA$+zp7Q7gzsPyaGT3ylETYPeDe59ZTbp1oln5vC4CMH2A";
    const PORTABLE: &str = "$P$9IQRaTwmfeRo7ud9Fh4E2PdI0S3r.L0";
    const MD5: &str = "5F4DCC3B5AA765D61D8327DEB882CF99";

    #[test]
    fn every_form_is_read_and_the_old_ones_by_the_switch_alone() {
        let cases = [
            (BCRYPT, "rasmuslerdorf", true),
            (ARGON2I, "rasmuslerdorf", true),
            (ARGON2ID, "rasmuslerdorf", true),
            (PORTABLE, "test12345", false),
            (MD5, "password", false),
        ];
        for (stored, password, always) in cases {
            let compare = |password: &str, legacy| compare(password.as_bytes(), stored.as_bytes(), legacy);
            assert_eq!(compare(password, true), Comparison::Match, "{stored}");
            assert_eq!(compare(&format!("{password}x"), true), Comparison::Mismatch, "{stored}");
            assert_eq!(compare("", true), Comparison::Mismatch, "{stored}");
            let expected = if always { Comparison::Match } else { Comparison::Unreadable };
            assert_eq!(compare(password, false), expected, "{stored}");
        }
    }

    #[test]
    fn what_is_no_hash_or_too_dear_is_unreadable() {
        let dear = ARGON2I.replace("m=1024", "m=4194304");
        let long = ARGON2I.replace("t=2", "t=4000000");
        let cases = [
            "",
            "*",
            "password",
            "$2y$31$BCryptRequires22Chrcte/VlQH0piJtjXl.0t1XkA8pw9dMXTTOq",
            "$2y$03$BCryptRequires22Chrcte/VlQH0piJtjXl.0t1XkA8pw9dMXTTOq",
            "$2y$07$short",
            "$2y$é7$BCryptRequires22Chrcte/VlQH0piJtjXl.0t1XkA8pw9dMXTTO",
            "$argon2i$v=19$m=1024,t=2,p=2$YzJBSzV4TUhkMzc3d3laeg",
            "$argon2x$v=19$m=1024,t=2,p=2$YzJBSzV4TUhkMzc3d3laeg$zqU/1IN0/AogfP4cmSJI1vc8lpXRW9/S0sYY2i2jHT0",
            &dear,
            &long,
            "$P$zIQRaTwmfeRo7ud9Fh4E2PdI0S3r.L0",
            "$P$",
            "5f4dcc3b5aa765d61d8327deb882cf9",
        ];
        for stored in cases {
            assert_eq!(compare(b"password", stored.as_bytes(), true), Comparison::Unreadable, "{stored}");
            waste(b"password", stored.as_bytes(), true);
        }
        assert_eq!(compare(b"password", b"\xff\xfe", true), Comparison::Unreadable);
    }

    #[test]
    fn a_password_that_php_would_cut_short_matches_nothing() {
        for password in [b"rasmuslerdorf\0".as_slice(), b"rasmuslerdorf\0x", &[b'a'; MAX_BYTES + 1]] {
            assert_eq!(compare(password, BCRYPT.as_bytes(), false), Comparison::Mismatch);
            assert_eq!(compare(password, b"", false), Comparison::Unreadable);
        }
    }

    #[test]
    fn the_dummy_is_a_hash() {
        assert_eq!(compare(b"", DUMMY.as_bytes(), false), Comparison::Mismatch);
    }
}
