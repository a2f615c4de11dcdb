use crate::executor::argument::{Arguments, Caps, Invalid};
use crate::executor::content::relatives::{Relatives, ranged_schema};
use crate::executor::pipeline::{Plan, Tool};
use crate::store::content;

pub(in crate::executor) const TOOL: Tool = Tool {
    name: "evo.content.children_range",
    title: "Content Children Range Tool",
    description: "The documents directly below one whose menu index lies in a range.",
    schema: ranged_schema,
    validate,
};

fn validate(arguments: &mut Arguments<'_>, caps: &Caps) -> Result<Plan, Invalid> {
    let (relatives, range) = Relatives::ranged(arguments, caps)?;
    let id = relatives.id;
    Ok(relatives.plan(move |tables, wanted, page| content::children(tables, id, Some(range), wanted, page)))
}
