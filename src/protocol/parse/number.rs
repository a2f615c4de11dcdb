/// A number as [`scan`] found it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Scanned {
    /// Offset just behind the number.
    pub end: usize,
    /// Whether it is written without fraction and exponent.
    pub integer: bool,
    /// Whether a reader that uses doubles would see another number; see [`survives`].
    pub lossy: bool,
}

/// The largest integer below which every integer is a double of its own.
const MAX_SAFE: u64 = (1 << 53) - 1;
/// The first 17 digits of the largest double, 1.7976931348623157e308.
const LARGEST: u64 = 17_976_931_348_623_157;
/// The first 17 digits of half the smallest double, 2.4703282292062327…e-324, rounded up.
const SMALLEST: u64 = 24_703_282_292_062_328;

/// Scans a number at `start`. `None` is a syntax error.
pub(super) fn scan(bytes: &[u8], start: usize) -> Option<Scanned> {
    let mut at = start + usize::from(bytes.get(start) == Some(&b'-'));
    let whole = digits(bytes, at);
    if whole == 0 || (whole > 1 && bytes[at] == b'0') {
        return None;
    }
    let first = at;
    at += whole;
    let mut fraction = 0;
    if bytes.get(at) == Some(&b'.') {
        fraction = digits(bytes, at + 1);
        if fraction == 0 {
            return None;
        }
        at += 1 + fraction;
    }
    let mantissa = &bytes[first..at];
    let mut exponent = 0_i64;
    let has_exponent = matches!(bytes.get(at), Some(b'e' | b'E'));
    if has_exponent {
        at += 1;
        let sign = bytes.get(at).copied();
        at += usize::from(matches!(sign, Some(b'+' | b'-')));
        let length = digits(bytes, at);
        if length == 0 {
            return None;
        }
        exponent = bytes[at..at + length]
            .iter()
            .fold(0_i64, |value, digit| value.saturating_mul(10).saturating_add(i64::from(digit - b'0')));
        if sign == Some(b'-') {
            exponent = -exponent;
        }
        at += length;
    }
    let integer = fraction == 0 && !has_exponent;
    // Short ordinary numbers need no closer look: at most 300 digits without an exponent neither over- nor underflow.
    let survives = if integer && whole <= 15 || !integer && !has_exponent && mantissa.len() <= 300 {
        true
    } else if integer {
        whole == 16 && leading(mantissa, 0) / 10 <= MAX_SAFE
    } else {
        survives(mantissa, whole, exponent)
    };
    Some(Scanned { end: at, integer, lossy: !survives })
}

fn digits(bytes: &[u8], from: usize) -> usize {
    bytes.get(from..).unwrap_or_default().iter().take_while(|byte| byte.is_ascii_digit()).count()
}

/// Whether a number with a fraction or an exponent neither overflows nor vanishes as a double.
///
/// Losing digits to rounding is what doubles do and is accepted; becoming infinite, or zero when it is not, is another
/// number. Decided on the decimal magnitude alone, exactly, so that no input makes us parse a double the slow way.
fn survives(mantissa: &[u8], whole: usize, exponent: i64) -> bool {
    let Some(first) = mantissa.iter().position(|byte| matches!(byte, b'1'..=b'9')) else {
        return true;
    };
    let position = i64::try_from(whole).unwrap_or(i64::MAX) - i64::try_from(first).unwrap_or(i64::MAX);
    // Digits before the point count from `whole - 1` down to 0; behind it the point itself takes one place.
    let magnitude = exponent.saturating_add(if first < whole { position - 1 } else { position });
    match magnitude {
        -323..=307 => true,
        308 => leading(mantissa, first) <= LARGEST,
        -324 => leading(mantissa, first) >= SMALLEST,
        _ => false,
    }
}

/// The first 17 digits from `first` on, as one number, filled up with zeros.
fn leading(mantissa: &[u8], first: usize) -> u64 {
    let digits = mantissa[first..].iter().filter(|byte| byte.is_ascii_digit());
    digits.chain(std::iter::repeat(&b'0')).take(17).fold(0, |value, digit| value * 10 + u64::from(digit - b'0'))
}
