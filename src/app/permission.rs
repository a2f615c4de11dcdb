use anyhow::{Context, bail};

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
/// When the database cannot be used or refuses, or the site has no such role; nothing is changed then.
pub async fn permissions(
    url: Secret,
    password: Option<Secret>,
    prefix: &str,
    change: &PermissionChange,
) -> anyhow::Result<Status> {
    let settings = Settings { password, ..Settings::new(url, prefix) };
    let mut rows = Permissions::connect(&settings).await.context("cannot use the database")?;
    if let PermissionChange::Up(roles) = change
        && let Some(known) = rows.roles().await.context("the site's roles could not be read")?
        && let Some(unknown) = roles.iter().find(|role| !known.contains(role))
    {
        // Whoever makes a role later would find it granted what nobody meant it to have.
        let known = known.iter().map(i64::to_string).collect::<Vec<_>>().join(", ");
        bail!(
            "the site has no role {unknown}, so nothing was changed; its roles are {known}: name one of them with \
             --role, or make the role in the CMS first"
        );
    }
    let done = match change {
        PermissionChange::Up(roles) => rows.up(roles).await,
        PermissionChange::Down => rows.down().await,
        PermissionChange::None => rows.status().await,
    };
    done.context("the permissions could not be read or changed")
}
