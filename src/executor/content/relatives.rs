//! What the tools about a document's relatives share: the document, a page, the template variables to show, and for
//! some the levels to go or a range of positions.

use sea_query::SelectStatement;
use serde_json::Value;

use crate::executor::argument::{Arguments, Caps, Invalid, schema};
use crate::executor::content::{Bounds, Paging, depth_within, variable};
use crate::executor::pipeline::Plan;
use crate::store::content::Range;
use crate::store::variable::{Found, Output};
use crate::store::{Page, Tables};

/// A document, and which of its relatives are asked for.
pub(super) struct Relatives {
    pub id: i64,
    page: Page,
    outputs: Vec<Output<String>>,
}

impl Relatives {
    /// Relatives next to the document: `id`, `with_tvs`, `limit`, `offset`.
    pub(super) fn near(arguments: &mut Arguments<'_>, caps: &Caps) -> Result<Self, Invalid> {
        Ok(Self::read(arguments, caps, |_| (), |()| Ok(()))?.0)
    }

    /// Relatives up or down the tree: `depth` as well, `None` when it is not said.
    pub(super) fn far(arguments: &mut Arguments<'_>, caps: &Caps) -> Result<(Self, Option<i64>), Invalid> {
        Self::read(arguments, caps, |arguments| arguments.integer("depth", 1), |depth| depth_within(depth, caps))
    }

    /// Relatives next to the document at some positions: `from` and `to` as well.
    pub(super) fn ranged(arguments: &mut Arguments<'_>, caps: &Caps) -> Result<(Self, Range), Invalid> {
        Self::read(arguments, caps, Bounds::read, |bounds| bounds.range())
    }

    /// `rule` reads what a tool takes beside the others, `meaning` holds it against the caps.
    fn read<'a, R, M>(
        arguments: &mut Arguments<'a>,
        caps: &Caps,
        rule: impl FnOnce(&mut Arguments<'a>) -> R,
        meaning: impl FnOnce(R) -> Result<M, Invalid>,
    ) -> Result<(Self, M), Invalid> {
        let id = arguments.required_integer("id", 1);
        let own = rule(arguments);
        let paging = Paging::read(arguments);
        let with_tvs = variable::Shown::read(arguments);
        arguments.rules()?;
        let page = paging.page(caps)?;
        let own = meaning(own)?;
        Ok((Self { id, page, outputs: with_tvs.outputs()? }, own))
    }

    pub(super) fn plan(self, query: impl Fn(&Tables, &Found, Page) -> SelectStatement + Send + Sync + 'static) -> Plan {
        Plan::documents(Some(self.page), self.outputs, query)
    }
}

/// The schema of [`Relatives::near`].
pub(super) fn near_schema(caps: &Caps) -> Value {
    schema::object(&["id", "limit"], with(caps, vec![]))
}

/// The schema of [`Relatives::far`]; `levels` says what `depth` counts, and what it is when absent.
pub(super) fn far_schema(caps: &Caps, levels: &str) -> Value {
    schema::object(&["id", "limit"], with(caps, vec![("depth", schema::depth(caps.depth, levels))]))
}

/// The schema of [`Relatives::ranged`].
pub(super) fn ranged_schema(caps: &Caps) -> Value {
    schema::object(&["id", "from", "limit"], with(caps, vec![("from", schema::from()), ("to", schema::to())]))
}

fn with(caps: &Caps, own: Vec<(&'static str, Value)>) -> Vec<(&'static str, Value)> {
    let mut all = vec![("id", schema::id("The document."))];
    all.extend(own);
    all.push(("with_tvs", variable::with_tvs_schema()));
    all.push(("limit", schema::limit(caps.content_limit)));
    all.push(("offset", schema::offset(caps.content_offset)));
    all
}
