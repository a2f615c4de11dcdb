use serde_json::Value;

use crate::executor::argument::{Arguments, Caps, Invalid, schema};
use crate::executor::content::{Paging, depth_within, variable};
use crate::executor::pipeline::{Plan, Tool};
use crate::store::content;

pub(in crate::executor) const TOOL: Tool = Tool {
    name: "evo.content.descendants",
    title: "Content Descendants Tool",
    description: "What lies below a document, at most depth levels.",
    schema,
    validate,
};

fn schema(caps: &Caps) -> Value {
    schema::object(
        &["id", "limit"],
        vec![
            ("id", schema::id("The document.")),
            ("depth", schema::depth(caps.depth, "Levels below the document; 1 when absent.")),
            ("with_tvs", variable::with_tvs_schema()),
            ("limit", schema::limit(caps.content_limit)),
            ("offset", schema::offset(caps.content_offset)),
        ],
    )
}

fn validate(arguments: &mut Arguments<'_>, caps: &Caps) -> Result<Plan, Invalid> {
    let id = arguments.required_integer("id", 1);
    let depth = arguments.integer("depth", 1);
    let paging = Paging::read(arguments);
    let with_tvs = variable::Shown::read(arguments);
    arguments.rules()?;
    let page = paging.page(caps)?;
    let depth = depth_within(depth, caps)?.unwrap_or(1);
    let outputs = with_tvs.outputs()?;
    let query = move |tables: &_, wanted: &_, page| content::descendants(tables, id, depth, wanted, page);
    Ok(Plan::documents(Some(page), outputs, query))
}
