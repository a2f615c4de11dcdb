use crate::executor::argument::{Arguments, Caps, Invalid};
use crate::executor::content::relatives::{Relatives, ranged_schema};
use crate::executor::pipeline::{Plan, Tool};
use crate::store::content::{self, Siblings};

pub(in crate::executor) const TOOL: Tool = Tool {
    name: "evo.content.siblings_range",
    title: "Content Siblings Range Tool",
    description: "The other documents under the same parent whose menu index lies in a range.",
    schema: ranged_schema,
    validate,
};

fn validate(arguments: &mut Arguments<'_>, caps: &Caps) -> Result<Plan, Invalid> {
    let (relatives, range) = Relatives::ranged(arguments, caps)?;
    let id = relatives.id;
    Ok(relatives.plan(move |tables, wanted, page| content::siblings(tables, id, Siblings::Within(range), wanted, page)))
}
