//! The CMS's users as the token endpoint needs them. Nothing else reads passwords.

use sea_query::{Expr, ExprTrait, Order, Query, SelectStatement};

use crate::base::Secret;
use crate::store::{Error, Reader, Tables};

/// A user of the CMS.
pub struct Account {
    pub id: u64,
    /// As the CMS wrote it; empty where there is none.
    pub password_hash: Secret,
    pub role: u32,
    /// Blocked for good.
    pub blocked: bool,
    /// Unix seconds; 0 is never.
    pub blocked_until_s: u64,
    /// Unix seconds; 0 is never.
    pub blocked_after_s: u64,
}

impl Account {
    /// Whether the CMS would not let this user in now.
    #[must_use]
    pub const fn is_blocked(&self, now_s: u64) -> bool {
        self.blocked || self.blocked_until_s > now_s || (self.blocked_after_s > 0 && self.blocked_after_s < now_s)
    }
}

const USERS: &str = "users";
const ATTRIBUTES: &str = "user_attributes";
/// What [`find`] reads, each of which decides.
const NEEDED: [(&str, &str); 8] = [
    (USERS, "id"),
    (USERS, "username"),
    (USERS, "password"),
    (ATTRIBUTES, "internalKey"),
    (ATTRIBUTES, "role"),
    (ATTRIBUTES, "blocked"),
    (ATTRIBUTES, "blockeduntil"),
    (ATTRIBUTES, "blockedafter"),
];

/// The user of this name, to the byte, whatever the site's collation takes for equal; or none, also where several rows
/// leave open who that is.
///
/// # Errors
/// When the database fails, has no users, or does not show all of [`NEEDED`]: a null would read as "not blocked".
pub async fn find(reader: &mut Reader, username: &str) -> Result<Option<Account>, Error> {
    for (table, column) in NEEDED {
        if !reader.tables().has(table, column) {
            return Err(Error::NoColumn(format!("{}.{column}", reader.tables().prefixed(table))));
        }
    }
    let statement = by_name(reader.tables(), username);
    let mut found = None;
    for row in reader.fetch(&statement).await? {
        if row.text(1)?.as_deref() != Some(username) {
            continue;
        }
        let whole = |column| Ok::<_, Error>(u64::try_from(row.integer(column)?).unwrap_or_default());
        let account = Account {
            id: whole(0)?,
            password_hash: Secret::new(row.text(2)?.unwrap_or_default()),
            role: u32::try_from(whole(3)?).unwrap_or_default(),
            blocked: row.integer(4)? != 0,
            blocked_until_s: whole(5)?,
            blocked_after_s: whole(6)?,
        };
        if let Some(Account { id, .. }) = found.replace(account) {
            tracing::warn!(user.id = id, "store: several rows tell of this user, who is therefore nobody");
            return Ok(None);
        }
    }
    Ok(found)
}

/// The password of the first user: what the site's passwords look like, for making a wrong name cost as much as a
/// wrong password.
///
/// # Errors
/// When the database fails.
pub async fn specimen(reader: &mut Reader) -> Result<Secret, Error> {
    let mut statement = Query::select();
    statement.column(("u", "password")).from(reader.tables().table(USERS, "u"));
    statement.order_by(("u", "id"), Order::Asc).limit(1);
    let rows = reader.fetch(&statement).await?;
    let text = rows.first().map(|row| row.text(0)).transpose()?.flatten();
    Ok(Secret::new(text.unwrap_or_default()))
}

/// Found by the index on names; which of several equal ones is meant is not for the collation to say.
fn by_name(tables: &Tables, username: &str) -> SelectStatement {
    let mut statement = Query::select();
    statement.column(("u", "id")).column(("u", "username")).column(("u", "password"));
    statement.columns(["role", "blocked", "blockeduntil", "blockedafter"].map(|column| ("a", column)));
    statement.from(tables.table(USERS, "u"));
    statement.left_join(tables.table(ATTRIBUTES, "a"), Expr::col(("a", "internalKey")).equals(("u", "id")));
    statement.and_where(Expr::col(("u", "username")).eq(username)).order_by(("u", "id"), Order::Asc).limit(8);
    statement
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_account_is_blocked_as_the_cms_says() {
        let account = |blocked, blocked_until_s, blocked_after_s| Account {
            id: 1,
            password_hash: Secret::new(""),
            role: 1,
            blocked,
            blocked_until_s,
            blocked_after_s,
        };
        let cases = [
            (account(false, 0, 0), false),
            (account(true, 0, 0), true),
            (account(false, 101, 0), true),
            (account(false, 100, 0), false),
            (account(false, 0, 99), true),
            (account(false, 0, 100), false),
        ];
        for (index, (account, expected)) in cases.into_iter().enumerate() {
            assert_eq!(account.is_blocked(100), expected, "case {index}");
        }
    }
}
