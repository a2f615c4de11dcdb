use crate::executor::argument::{Arguments, Caps, Invalid};
use crate::executor::content::relatives::{Relatives, far_schema};
use crate::executor::pipeline::{Plan, Tool};
use crate::store::content;

pub(in crate::executor) const TOOL: Tool = Tool {
    name: "evo.content.descendants",
    title: "Content Descendants Tool",
    description: "What lies below a document, at most depth levels.",
    schema: |caps| far_schema(caps, "Levels below the document; 1 when absent."),
    validate,
};

fn validate(arguments: &mut Arguments<'_>, caps: &Caps) -> Result<Plan, Invalid> {
    let (relatives, depth) = Relatives::far(arguments, caps)?;
    let id = relatives.id;
    let depth = depth.unwrap_or(1);
    Ok(relatives.plan(move |tables, wanted, page| content::descendants(tables, id, depth, wanted, page)))
}
