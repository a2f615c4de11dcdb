use crate::executor::argument::{Arguments, Caps, Invalid};
use crate::executor::content::relatives::{Relatives, near_schema};
use crate::executor::pipeline::{Plan, Tool};
use crate::store::content::{self, Siblings};

pub(in crate::executor) const TOOL: Tool = Tool {
    name: "evo.content.neighbors",
    title: "Content Neighbors Tool",
    description: "The documents right before and after one in the menu order of its parent.",
    schema: near_schema,
    validate,
};

fn validate(arguments: &mut Arguments<'_>, caps: &Caps) -> Result<Plan, Invalid> {
    let relatives = Relatives::near(arguments, caps)?;
    let id = relatives.id;
    Ok(relatives.plan(move |tables, wanted, page| content::siblings(tables, id, Siblings::Neighbors, wanted, page)))
}
