//! Watches the framing of a chunked request body on the wire, beside the reader that takes it apart.
//!
//! Pingora's reader takes a missing size for zero and a bare LF inside a chunk's extension for text; what stands
//! before us may take them for something else, and then disagree about where the request ends. That end is found here
//! too, since it must read no further.

/// Digits of a chunk's size; more could overflow somebody's number.
const MAX_DIGITS: usize = 15;

/// Where in the body the next byte stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum At {
    /// In a size, after so many digits.
    #[default]
    Size,
    /// Behind the size, up to the line's end.
    Extension,
    /// Behind the CR that ends a size line.
    SizeEnd,
    Data,
    /// Behind the data: its CR, then its LF.
    DataEnd,
    DataEndLf,
    /// At the beginning of a line behind the last chunk, in such a line, behind its CR.
    Trailer,
    Field,
    FieldEnd,
    /// Behind the CR of the blank line.
    End,
    Ended,
    Broken,
}

/// The state of one body. Bytes may come in any pieces.
#[derive(Clone, Copy, Debug, Default)]
pub struct ChunkLines {
    at: At,
    digits: usize,
    size: u64,
}

impl ChunkLines {
    /// Takes the next bytes: how many of them are the body's. `None` from the first line on that two readers could
    /// read differently.
    pub fn accept(&mut self, mut bytes: &[u8]) -> Option<usize> {
        let count = bytes.len();
        while let Some((&byte, rest)) = bytes.split_first() {
            if matches!(self.at, At::Ended | At::Broken) {
                break;
            }
            if self.at == At::Data {
                let skip = usize::try_from(self.size).unwrap_or(usize::MAX).min(bytes.len());
                self.size -= skip as u64;
                bytes = &bytes[skip..];
                if self.size == 0 {
                    self.at = At::DataEnd;
                }
                continue;
            }
            self.at = self.step(byte);
            bytes = rest;
        }
        (self.at != At::Broken).then(|| count - bytes.len())
    }

    /// Whether the body's last byte has been taken.
    #[must_use]
    pub const fn ended(&self) -> bool {
        matches!(self.at, At::Ended)
    }

    fn step(&mut self, byte: u8) -> At {
        match (self.at, byte) {
            (At::Size, _) if byte.is_ascii_hexdigit() && self.digits < MAX_DIGITS => {
                self.digits += 1;
                self.size = self.size << 4 | u64::from(char::from(byte).to_digit(16).unwrap_or_default());
                At::Size
            }
            (At::Size, b'\r') if self.digits > 0 => At::SizeEnd,
            // Blanks before the line's end or an extension are tolerated, as RFC 9112 tells recipients to.
            (At::Size, b';' | b' ' | b'\t') if self.digits > 0 => At::Extension,
            (At::Extension, b'\r') => At::SizeEnd,
            (At::Extension, b'\t' | b' '..=b'~' | 0x80..) => At::Extension,
            (At::SizeEnd, b'\n') if self.size == 0 => At::Trailer,
            (At::SizeEnd, b'\n') => At::Data,
            (At::Trailer, b'\r') => At::End,
            (At::Field, b'\r') => At::FieldEnd,
            (At::Trailer | At::Field, b'\t' | b' '..=b'~' | 0x80..) => At::Field,
            (At::FieldEnd, b'\n') => At::Trailer,
            (At::End, b'\n') => At::Ended,
            (At::DataEnd, b'\r') => At::DataEndLf,
            (At::DataEndLf, b'\n') => {
                self.digits = 0;
                At::Size
            }
            _ => At::Broken,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_chunk_lines_are_accepted_however_they_are_cut() {
        let cases: [(&[u8], Option<usize>); 20] = [
            (b"5\r\nhello\r\n0\r\n\r\n", Some(15)),
            (b"05;a=b;c=\"d\"\r\nhello\r\nA \t;x\r\n, all worl\r\n000\r\nX: y\r\nZ:\r\n\r\n", Some(57)),
            (b"1\r\n\n\r\n2\r\n\r\n\r\n0\r\n\r\n", Some(18)),
            (b"0\r\n\r\nanything\nat all", Some(5)),
            (b"0\r\nX: y\r\n\r\n\r\n", Some(11)),
            (b"\r\nhello\r\n0\r\n\r\n", None),
            (b";a\r\n\r\n", None),
            (b"5\nhello\r\n0\r\n\r\n", None),
            (b"5;a=\nb\r\nhello\r\n0\r\n\r\n", None),
            (b"5;a=\rb\r\nhello\r\n0\r\n\r\n", None),
            (b"5;\0\r\nhello\r\n0\r\n\r\n", None),
            (b"5\r\nhello\n0\r\n\r\n", None),
            (b"5\r\nhello!\r\n0\r\n\r\n", None),
            (b" 5\r\nhello\r\n0\r\n\r\n", None),
            (b"+5\r\nhello\r\n0\r\n\r\n", None),
            (b"0x5\r\nhello\r\n0\r\n\r\n", None),
            (b"0000000000000005\r\nhello\r\n0\r\n\r\n", None),
            (b"0\r\nX: y\n\r\n", None),
            (b"0\r\nX: y\rz\r\n\r\n", None),
            (b"0\r\n\n", None),
        ];
        for (bytes, accepted) in cases {
            for cut in 0..bytes.len() {
                let mut lines = ChunkLines::default();
                let both = lines.accept(&bytes[..cut]).and_then(|one| Some(one + lines.accept(&bytes[cut..])?));
                assert_eq!(
                    (both, lines.ended()),
                    (accepted, accepted.is_some()),
                    "{} cut at {cut}",
                    bytes.escape_ascii()
                );
            }
            let mut lines = ChunkLines::default();
            let all = bytes.chunks(1).try_fold(0, |sum, byte| Some(sum + lines.accept(byte)?));
            assert_eq!(all, accepted, "{}", bytes.escape_ascii());
        }
    }
}
