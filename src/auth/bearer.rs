use crate::policy::Reason;

/// The token of an `Authorization` header: `Bearer` in any case, one or more spaces, the token.
///
/// # Errors
/// `Unauthenticated` when there is no header, or it is anything else.
pub fn bearer(header: Option<&[u8]>) -> Result<&str, Reason> {
    let refused = Reason::Unauthenticated;
    let text = header.ok_or(refused)?.trim_ascii();
    let (scheme, rest) = text.split_at_checked("Bearer".len()).ok_or(refused)?;
    let token = rest.trim_ascii_start();
    let separated = token.len() < rest.len() && rest[..rest.len() - token.len()].iter().all(|byte| *byte == b' ');
    if !scheme.eq_ignore_ascii_case(b"bearer") || !separated || !graphic(token) {
        return Err(refused);
    }
    std::str::from_utf8(token).map_err(|_| refused)
}

/// Without an early end, so that many bytes are looked at in one step.
fn graphic(token: &[u8]) -> bool {
    token.iter().fold(true, |all, byte| all & byte.is_ascii_graphic())
}
