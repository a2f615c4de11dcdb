//! `evo.content.*`: documents by property and by place.

pub(super) mod ancestors;
pub(super) mod children;
pub(super) mod children_range;
pub(super) mod descendants;
pub(super) mod get;
pub(super) mod neighbors;
pub(super) mod next_siblings;
pub(super) mod prev_siblings;
mod relatives;
pub(super) mod root_tree;
pub(super) mod search;
pub(super) mod siblings;
pub(super) mod siblings_range;
mod variable;

use crate::executor::argument::{Arguments, Caps, Invalid, within};
use crate::store::Page;
use crate::store::content::Range;

/// `limit` and `offset` as the rules read them; [`Paging::page`] holds them against the caps.
struct Paging {
    limit: i64,
    offset: i64,
}

impl Paging {
    fn read(arguments: &mut Arguments<'_>) -> Self {
        Self { limit: arguments.required_integer("limit", 1), offset: arguments.integer("offset", 0).unwrap_or(0) }
    }

    fn page(&self, caps: &Caps) -> Result<Page, Invalid> {
        let limit = within("limit", self.limit, 1, caps.content_limit)?;
        let offset = within("offset", self.offset, 0, caps.content_offset)?;
        Ok(Page { limit: limit.unsigned_abs(), offset: offset.unsigned_abs() })
    }
}

fn depth_within(depth: Option<i64>, caps: &Caps) -> Result<Option<i64>, Invalid> {
    depth.map(|depth| within("depth", depth, 1, caps.depth)).transpose()
}

/// `from` and `to` as the rules read them.
struct Bounds {
    from: i64,
    to: Option<i64>,
}

impl Bounds {
    fn read(arguments: &mut Arguments<'_>) -> Self {
        Self { from: arguments.required_integer("from", 0), to: arguments.integer("to", 0) }
    }

    fn range(&self) -> Result<Range, Invalid> {
        match self.to {
            Some(to) if to < self.from => {
                Err(Invalid::one("The to field must not lie before from: to must be greater than or equal to from."))
            }
            to => Ok(Range { from: self.from, to }),
        }
    }
}
