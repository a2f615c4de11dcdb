/// One round of percent-decoding, or `None` when there is nothing to decode.
#[must_use]
pub fn percent_decoded(bytes: &[u8]) -> Option<Vec<u8>> {
    memchr::memchr(b'%', bytes)?;
    let nibble = |byte: &u8| char::from(*byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let pair = (bytes.get(at + 1).and_then(nibble), bytes.get(at + 2).and_then(nibble));
        match (bytes[at], pair) {
            (b'%', (Some(high), Some(low))) => {
                decoded.push(high << 4 | low);
                at += 3;
            }
            (byte, _) => {
                decoded.push(byte);
                at += 1;
            }
        }
    }
    (decoded.len() < bytes.len()).then_some(decoded)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_round_decodes_what_is_encoded_once() {
        let decoded = |text: &str| percent_decoded(text.as_bytes()).map(|bytes| String::from_utf8(bytes).unwrap());
        assert_eq!(decoded("a%2Fb%2f%%25%zz%4"), Some("a/b/%%%zz%4".to_owned()));
        for text in ["", "a", "%", "%2", "%%", "%g1", "100%"] {
            assert_eq!(decoded(text), None, "{text}");
        }
    }
}
