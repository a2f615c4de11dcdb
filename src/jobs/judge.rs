use crate::base::{Context, Principal, PrincipalRecord};
use crate::jobs::Run;
use crate::policy::{
    Body, Credential, Denial, Facts, HttpMethod, MediaType, Outcome, ProtocolHeaders, Reason, Rule, ServerKind,
    Snapshot, decide,
};
use crate::protocol;

/// Why a call is not run now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unpermitted {
    /// The policy says no.
    Denied(Denial),
    /// What the caller may do cannot be told now.
    Unknown,
}

/// A call that may be run now: for whom, and by which rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Permitted {
    pub caller: Principal,
    pub rule: Rule,
}

/// Whether the policy permits this call to this caller now. What a user of the manager may do is asked for anew: what
/// was permitted when the call was taken may have been taken away since.
///
/// # Errors
/// Why not.
pub async fn judge_now(
    run: &dyn Run,
    policy: &Snapshot,
    server: &str,
    record: &PrincipalRecord,
    call: &[u8],
) -> Result<Permitted, Unpermitted> {
    let denied = |reason, word| Unpermitted::Denied(Denial::new(reason, Rule::Builtin(word)));
    let mut caller = record.restore().ok_or_else(|| denied(Reason::Unauthenticated, "task"))?;
    if let (Context::Mgr, Some(user)) = (caller.context(), caller.user_id()) {
        let permissions = run.permissions(policy, user).await.map_err(|Away| Unpermitted::Unknown)?;
        let permissions = permissions.ok_or_else(|| denied(Reason::Forbidden, "manager.identity"))?;
        caller = caller.with_permissions(permissions.into());
    }
    let rule = judge(policy, server, &caller, record.jti.as_deref(), call).map_err(Unpermitted::Denied)?;
    Ok(Permitted { caller, rule })
}

/// What a user may do cannot be told now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the user's permissions cannot be read")]
pub struct Away;

/// Whether the policy permits this call to this caller, by the same decision as at the proxy, and by which rule.
/// Nothing is charged: that was done when the call was taken.
///
/// # Errors
/// Why not.
pub fn judge(
    policy: &Snapshot,
    server: &str,
    caller: &Principal,
    jti: Option<&str>,
    call: &[u8],
) -> Result<Rule, Denial> {
    let door = match caller.context() {
        Context::Mgr => policy.routes.manager,
        Context::Api | Context::Cli => policy.routes.api,
    };
    if !door {
        return Err(Denial::new(Reason::RouteNotFound, Rule::Builtin("mode")));
    }
    let denied = |list: &[(String, _)], word: &str| list.iter().any(|(listed, _)| listed.trim() == word);
    if caller.context() == Context::Api && denied(&policy.auth.deny_sub, caller.subject())
        || jti.is_some_and(|jti| denied(&policy.auth.deny_jti, jti))
    {
        return Err(Denial::new(Reason::Unauthenticated, Rule::Builtin("auth.deny")));
    }
    let parsed = protocol::parse(call);
    let facts = Facts {
        server,
        http_method: HttpMethod::Post,
        dispatch: true,
        malformed: None,
        credential: Credential::Principal(caller),
        media_type: MediaType::Json,
        body: match &parsed {
            Ok(envelope) => Body::Call(envelope),
            Err(refused) => Body::Refused(refused),
        },
        headers: ProtocolHeaders::default(),
    };
    match decide(policy, &facts).outcome() {
        Outcome::Forward { server, rule } if server.kind == ServerKind::Content => Ok(rule.clone()),
        Outcome::Forward { rule, .. } => Err(Denial::new(Reason::AsyncUnavailable, rule.clone())),
        Outcome::Answer { answer, rule } => Err(Denial::new(answer.reason(), rule.clone())),
        Outcome::Deny(denial) => Err(denial.clone()),
    }
}
