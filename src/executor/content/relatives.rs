//! What the tools about a document's relatives share: the document, a page, and for some the levels to go.

use serde_json::Value;

use crate::executor::argument::{Arguments, Caps, Invalid, schema};
use crate::executor::content::{Paging, depth_within};
use crate::store::Page;

/// A document, and which of its relatives are asked for.
pub(super) struct Relatives {
    pub id: i64,
    /// Levels to go; `None` when not said, or not asked by the tool.
    pub depth: Option<i64>,
    pub page: Page,
}

impl Relatives {
    /// Relatives next to the document: `id`, `limit`, `offset`.
    pub(super) fn near(arguments: &mut Arguments<'_>, caps: &Caps) -> Result<Self, Invalid> {
        Self::read(arguments, caps, |_| None)
    }

    /// Relatives up or down the tree: `id`, `depth`, `limit`, `offset`.
    pub(super) fn far(arguments: &mut Arguments<'_>, caps: &Caps) -> Result<Self, Invalid> {
        Self::read(arguments, caps, |arguments| arguments.integer("depth", 1))
    }

    fn read(
        arguments: &mut Arguments<'_>,
        caps: &Caps,
        depth: fn(&mut Arguments<'_>) -> Option<i64>,
    ) -> Result<Self, Invalid> {
        let id = arguments.required_integer("id", 1);
        let depth = depth(arguments);
        let paging = Paging::read(arguments);
        arguments.rules()?;
        let page = paging.page(caps)?;
        Ok(Self { id, depth: depth_within(depth, caps)?, page })
    }
}

/// The schema of [`Relatives::near`].
pub(super) fn near_schema(caps: &Caps) -> Value {
    schema::object(&["id", "limit"], [vec![document()], paging(caps)].concat())
}

/// The schema of [`Relatives::far`]; `levels` says what `depth` counts, and what it is when absent.
pub(super) fn far_schema(caps: &Caps, levels: &str) -> Value {
    let depth = ("depth", schema::depth(caps.depth, levels));
    schema::object(&["id", "limit"], [vec![document(), depth], paging(caps)].concat())
}

fn document() -> (&'static str, Value) {
    ("id", schema::id("The document."))
}

fn paging(caps: &Caps) -> Vec<(&'static str, Value)> {
    vec![("limit", schema::limit(caps.content_limit)), ("offset", schema::offset(caps.content_offset))]
}
