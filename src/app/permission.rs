use anyhow::Context;

use crate::base::Secret;
use crate::store::Settings;
use crate::store::permission::{Permissions, Status};

/// What is to become of the permission rows of manager mode.
#[derive(Clone, Debug)]
pub enum PermissionChange {
    /// Put in, and granted to these roles.
    Up(Vec<i64>),
    /// Taken out.
    Down,
    /// Left alone.
    None,
}

/// Changes the permission rows of the site behind `url`, and tells what is there then.
///
/// # Errors
/// When the database cannot be used or refuses; nothing is changed then.
pub async fn permissions(
    url: Secret,
    password: Option<Secret>,
    prefix: &str,
    change: &PermissionChange,
) -> anyhow::Result<Status> {
    let settings = Settings { password, ..Settings::new(url, prefix) };
    let mut rows = Permissions::connect(&settings).await.context("cannot use the database")?;
    let done = match change {
        PermissionChange::Up(roles) => rows.up(roles).await,
        PermissionChange::Down => rows.down().await,
        PermissionChange::None => rows.status().await,
    };
    done.context("the permissions could not be read or changed")
}
