use crate::executor::argument::{Arguments, Caps, Invalid};
use crate::executor::content::relatives::{Relatives, near_schema};
use crate::executor::pipeline::{Plan, Tool};
use crate::store::content::{self, Siblings};

pub(in crate::executor) const TOOL: Tool = Tool {
    name: "evo.content.prev_siblings",
    title: "Content Prev Siblings Tool",
    description: "The documents before one under the same parent, the nearest first.",
    schema: near_schema,
    validate,
};

fn validate(arguments: &mut Arguments<'_>, caps: &Caps) -> Result<Plan, Invalid> {
    let relatives = Relatives::near(arguments, caps)?;
    let id = relatives.id;
    Ok(relatives.plan(move |tables, wanted, page| content::siblings(tables, id, Siblings::Previous, wanted, page)))
}
