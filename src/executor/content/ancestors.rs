use crate::executor::argument::{Arguments, Caps, Invalid};
use crate::executor::content::relatives::{Relatives, far_schema};
use crate::executor::pipeline::{Plan, Tool};
use crate::store::content;

pub(in crate::executor) const TOOL: Tool = Tool {
    name: "evo.content.ancestors",
    title: "Content Ancestors Tool",
    description: "What lies above a document, the top first.",
    schema: |caps| far_schema(caps, "Levels above the document; all when absent."),
    validate,
};

fn validate(arguments: &mut Arguments<'_>, caps: &Caps) -> Result<Plan, Invalid> {
    let (relatives, depth) = Relatives::far(arguments, caps)?;
    let id = relatives.id;
    Ok(relatives.plan(move |tables, wanted, page| content::ancestors(tables, id, depth, wanted, page)))
}
