use crate::policy::{Decision, Facts, Snapshot};

/// Decides about one request (decisions O1). Pure; the proxy and `explain` both call it.
#[must_use]
pub fn decide(snapshot: &Snapshot, facts: &Facts<'_>) -> Decision {
    let _ = (snapshot, facts);
    unimplemented!()
}
