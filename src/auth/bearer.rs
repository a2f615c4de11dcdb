use crate::policy::Reason;

/// The token of an `Authorization` header: `Bearer` in any case, one or more spaces, the token.
///
/// # Errors
/// `Unauthenticated` when there is no header, or it is anything else.
pub fn bearer(header: Option<&[u8]>) -> Result<&str, Reason> {
    let text = header.and_then(|bytes| std::str::from_utf8(bytes).ok()).ok_or(Reason::Unauthenticated)?;
    let (scheme, rest) = text.trim_matches([' ', '\t']).split_once(' ').ok_or(Reason::Unauthenticated)?;
    let token = rest.trim_start_matches(' ');
    let plain = !token.is_empty() && token.bytes().all(|byte| byte.is_ascii_graphic());
    if scheme.eq_ignore_ascii_case("bearer") && plain { Ok(token) } else { Err(Reason::Unauthenticated) }
}
