use crate::executor::argument::{Arguments, Caps, Invalid};
use crate::executor::content::relatives::{Relatives, near_schema};
use crate::executor::pipeline::{Plan, Tool};
use crate::store::content;

pub(in crate::executor) const TOOL: Tool = Tool {
    name: "evo.content.children",
    title: "Content Children Tool",
    description: "The documents directly below one, in menu order.",
    schema: near_schema,
    validate,
};

fn validate(arguments: &mut Arguments<'_>, caps: &Caps) -> Result<Plan, Invalid> {
    let relatives = Relatives::near(arguments, caps)?;
    let id = relatives.id;
    Ok(relatives.plan(move |tables, wanted, page| content::children(tables, id, None, wanted, page)))
}
