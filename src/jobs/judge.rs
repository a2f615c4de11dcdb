use crate::base::PrincipalRecord;
use crate::policy::{
    Body, Credential, Denial, Facts, HttpMethod, MediaType, Outcome, ProtocolHeaders, Reason, Rule, ServerKind,
    Snapshot, decide,
};
use crate::protocol;

/// Whether the policy permits this call to this caller now, by the same decision as at the proxy. Nothing is charged:
/// that was done when the call was taken.
///
/// # Errors
/// Why not.
pub fn judge(policy: &Snapshot, server: &str, caller: &PrincipalRecord, call: &[u8]) -> Result<(), Denial> {
    let principal = caller.restore().ok_or_else(|| Denial::new(Reason::Unauthenticated, Rule::Builtin("task")))?;
    let denied = |list: &[(String, _)], word: &str| list.iter().any(|(listed, _)| listed.trim() == word);
    if denied(&policy.auth.deny_sub, principal.subject())
        || caller.jti.as_deref().is_some_and(|jti| denied(&policy.auth.deny_jti, jti))
    {
        return Err(Denial::new(Reason::Unauthenticated, Rule::Builtin("auth.deny")));
    }
    let parsed = protocol::parse(call);
    let facts = Facts {
        server,
        http_method: HttpMethod::Post,
        malformed: None,
        credential: Credential::Principal(&principal),
        media_type: MediaType::Json,
        body: match &parsed {
            Ok(envelope) => Body::Call(envelope),
            Err(refused) => Body::Refused(refused),
        },
        headers: ProtocolHeaders::default(),
    };
    match decide(policy, &facts).outcome() {
        Outcome::Forward { server, .. } if server.kind == ServerKind::Content => Ok(()),
        Outcome::Forward { rule, .. } => Err(Denial::new(Reason::AsyncUnavailable, rule.clone())),
        Outcome::Answer { answer, rule } => Err(Denial::new(answer.reason(), rule.clone())),
        Outcome::Deny(denial) => Err(denial.clone()),
    }
}
