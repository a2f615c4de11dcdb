use crate::executor::argument::{Arguments, Caps, Invalid};
use crate::executor::content::relatives::{Relatives, near_schema};
use crate::executor::pipeline::{Plan, Tool};
use crate::store::content;

pub(in crate::executor) const TOOL: Tool = Tool {
    name: "evo.content.siblings",
    title: "Content Siblings Tool",
    description: "The other documents under the same parent, in menu order.",
    schema: near_schema,
    validate,
};

fn validate(arguments: &mut Arguments<'_>, caps: &Caps) -> Result<Plan, Invalid> {
    let Relatives { id, page, .. } = Relatives::near(arguments, caps)?;
    Ok(Plan::list(page, move |tables, page| content::siblings(tables, id, page)))
}
