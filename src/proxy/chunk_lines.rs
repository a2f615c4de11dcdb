//! Watches the framing of a chunked request body on the wire, beside the reader that takes it apart.
//!
//! Pingora's reader takes a missing size for zero and a bare LF inside a chunk's extension for text; what stands
//! before us may take them for something else, and then disagree about where the request ends.

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
    /// What follows the last chunk is the reader's: it refuses bare line feeds there.
    Trailer,
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
    /// Takes the next bytes; `false` from the first line on that two readers could read differently.
    pub fn accept(&mut self, mut bytes: &[u8]) -> bool {
        while let Some((&byte, rest)) = bytes.split_first() {
            if matches!(self.at, At::Trailer | At::Broken) {
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
        self.at != At::Broken
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
        let cases: [(&[u8], bool); 16] = [
            (b"5\r\nhello\r\n0\r\n\r\n", true),
            (b"05;a=b;c=\"d\"\r\nhello\r\nA \t;x\r\n, all worl\r\n000\r\nX: y\r\n\r\n", true),
            (b"1\r\n\n\r\n2\r\n\r\n\r\n0\r\n\r\n", true),
            (b"0\r\n\r\nanything\nat all", true),
            (b"\r\nhello\r\n0\r\n\r\n", false),
            (b";a\r\n\r\n", false),
            (b"5\nhello\r\n0\r\n\r\n", false),
            (b"5;a=\nb\r\nhello\r\n0\r\n\r\n", false),
            (b"5;a=\rb\r\nhello\r\n0\r\n\r\n", false),
            (b"5;\0\r\nhello\r\n0\r\n\r\n", false),
            (b"5\r\nhello\n0\r\n\r\n", false),
            (b"5\r\nhello!\r\n0\r\n\r\n", false),
            (b" 5\r\nhello\r\n0\r\n\r\n", false),
            (b"+5\r\nhello\r\n0\r\n\r\n", false),
            (b"0x5\r\nhello\r\n0\r\n\r\n", false),
            (b"0000000000000005\r\nhello\r\n0\r\n\r\n", false),
        ];
        for (bytes, accepted) in cases {
            for cut in 0..bytes.len() {
                let mut lines = ChunkLines::default();
                let all = lines.accept(&bytes[..cut]) & lines.accept(&bytes[cut..]);
                assert_eq!(all, accepted, "{} cut at {cut}", bytes.escape_ascii());
            }
            let mut lines = ChunkLines::default();
            assert_eq!(bytes.chunks(1).fold(true, |all, byte| all & lines.accept(byte)), accepted);
        }
    }
}
