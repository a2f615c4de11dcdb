//! `evo.model.*`: rows of the catalogue's tables.

mod filter;
pub(super) mod get;
pub(super) mod list;

use crate::executor::argument::{Caps, Invalid, shown};
use crate::store::model::Model;

/// The model of this name, when the policy allows it.
fn allowed(name: &str, caps: &Caps) -> Result<&'static Model, Invalid> {
    Model::find(name)
        .filter(|model| caps.models.iter().any(|allowed| allowed == model.name))
        .ok_or_else(|| Invalid::one(format!("The model field names a model that is not allowed: {}.", shown(name))))
}
