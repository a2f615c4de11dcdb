//! Who a user of the CMS's manager is: by session, by access token, by id, and what the user's role permits
//! (emcp.md 12).
//!
//! Engines compare texts by collations that take different ones for equal; whatever is secret is compared again, byte
//! by byte, and is never told.

use sea_query::{Expr, ExprTrait, Query, SelectStatement};

use crate::store::{Dialect, Error, Pool, Reader, Tables};

const SESSIONS: &str = "active_user_sessions";
const USERS: &str = "users";
const ATTRIBUTES: &str = "user_attributes";
const GRANTS: &str = "role_permissions";
/// What the catalogue of models does not name.
pub(in crate::store) const TABLES: [&str; 1] = [SESSIONS];
/// Rows that are looked at: more than a few that only look alike are no accident.
const FEW: u64 = 8;

/// A user who is not blocked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    pub id: u64,
    pub role: i64,
    /// The keys of the permissions that the role has, sorted.
    pub permissions: Vec<String>,
}

impl Pool {
    /// The user of an active session that was seen since `since_s` (Unix seconds).
    ///
    /// # Errors
    /// When the database fails.
    pub async fn session_user(&self, session: &str, since_s: u64) -> Result<Option<u64>, Error> {
        let mut reader = self.reader().await?;
        if !reader.tables().has_table(SESSIONS) {
            return Ok(None);
        }
        let statement = Query::select()
            .expr(Expr::col(("s", "internalKey")))
            .expr(Expr::col(("s", "lasthit")))
            .expr(Expr::col(("s", "sid")))
            .from(reader.tables().table(SESSIONS, "s"))
            .and_where(Expr::col(("s", "sid")).eq(session))
            .limit(FEW)
            .take();
        let mut users = Vec::new();
        for row in reader.fetch(&statement).await? {
            let alive = u64::try_from(row.integer(1)?).is_ok_and(|hit| hit >= since_s);
            if alive && row.text(2)?.is_some_and(|sid| same(&sid, session)) {
                users.push(row.integer(0)?);
            }
        }
        Ok(only(&users))
    }

    /// The user who holds this access token, while it is valid: `now` is the CMS's clock as `YYYY-MM-DD hh:mm:ss`.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn token_user(&self, token: &str, now: &str) -> Result<Option<u64>, Error> {
        if token.is_empty() {
            return Ok(None);
        }
        let mut reader = self.reader().await?;
        let text = match reader.tables().dialect() {
            Dialect::MySql => "CHAR",
            Dialect::Postgres | Dialect::Sqlite => "TEXT",
        };
        let statement = Query::select()
            .expr(Expr::col(("u", "id")))
            .expr(Expr::col(("u", "access_token")))
            .expr(Expr::col(("u", "valid_to")).cast_as(text))
            .from(reader.tables().table(USERS, "u"))
            .and_where(Expr::col(("u", "access_token")).eq(token))
            .limit(FEW)
            .take();
        let mut users = Vec::new();
        for row in reader.fetch(&statement).await? {
            // Fractions of a second may follow; the order of the letters is the order of the times.
            let alive = row.text(2)?.is_some_and(|end| end.get(..19).is_some_and(|end| is_time(end) && end > now));
            if alive && row.text(1)?.is_some_and(|held| same(&held, token)) {
                users.push(row.integer(0)?);
            }
        }
        Ok(only(&users))
    }

    /// The user of this id with what the role permits now; nobody when there is no such user, or the user is blocked.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn user(&self, id: u64, now_s: u64) -> Result<Option<User>, Error> {
        let (Ok(key), Ok(now)) = (i64::try_from(id), i64::try_from(now_s)) else { return Ok(None) };
        let mut reader = self.snapshot().await?;
        let rows = reader.fetch(&attributes(reader.tables(), key)).await?;
        // Two rows for one user would leave open which of them counts.
        let [row] = rows.as_slice() else { return Ok(None) };
        let (role, blocked, until, after) = (row.integer(0)?, row.integer(1)?, row.integer(2)?, row.integer(3)?);
        if role <= 0 || blocked != 0 || until > now || (after != 0 && after < now) {
            return Ok(None);
        }
        let permissions = granted(&mut reader, role).await?;
        Ok(Some(User { id, role, permissions }))
    }
}

fn attributes(tables: &Tables, user: i64) -> SelectStatement {
    // Never a null for a column that is not to be seen, as where a tool shows it: it would read as "not blocked".
    let column = |name: &'static str| Expr::col(("a", name));
    Query::select()
        .exprs([column("role"), column("blocked"), column("blockeduntil"), column("blockedafter")])
        .from(tables.table(USERS, "u"))
        .inner_join(tables.table(ATTRIBUTES, "a"), Expr::col(("a", "internalKey")).equals(("u", "id")))
        .and_where(Expr::col(("u", "id")).eq(user))
        .limit(FEW)
        .take()
}

async fn granted(reader: &mut Reader, role: i64) -> Result<Vec<String>, Error> {
    let statement = Query::select()
        .expr(Expr::col(("g", "permission")))
        .from(reader.tables().table(GRANTS, "g"))
        .and_where(Expr::col(("g", "role_id")).eq(role))
        .take();
    let mut permissions = Vec::new();
    for row in reader.fetch(&statement).await? {
        permissions.extend(row.text(0)?);
    }
    permissions.sort_unstable();
    permissions.dedup();
    Ok(permissions)
}

/// The one user that all rows name.
fn only(users: &[i64]) -> Option<u64> {
    let (first, rest) = users.split_first()?;
    let user = u64::try_from(*first).ok().filter(|user| *user > 0)?;
    rest.iter().all(|other| other == first).then_some(user)
}

/// Equal to the byte; how long it takes tells nothing about where they differ.
fn same(left: &str, right: &str) -> bool {
    left.len() == right.len() && left.bytes().zip(right.bytes()).fold(0, |seen, (a, b)| seen | (a ^ b)) == 0
}

fn is_time(text: &str) -> bool {
    text.bytes().enumerate().all(|(at, byte)| match at {
        4 | 7 => byte == b'-',
        10 => byte == b' ',
        13 | 16 => byte == b':',
        _ => byte.is_ascii_digit(),
    })
}
