use serde_json::Value;

use crate::executor::argument::{Arguments, Caps, Invalid, schema};
use crate::executor::content::{Paging, depth_within, variable};
use crate::executor::pipeline::{Plan, Tool};
use crate::store::content;

pub(in crate::executor) const TOOL: Tool = Tool {
    name: "evo.content.root_tree",
    title: "Content Root Tree Tool",
    description: "The top documents and what lies below them, as a flat list by id.",
    schema,
    validate,
};

fn schema(caps: &Caps) -> Value {
    schema::object(
        &["limit"],
        vec![
            ("depth", schema::depth(caps.depth, "Levels below each top document; 1 when absent.")),
            ("with_tvs", variable::with_tvs_schema()),
            ("limit", schema::limit(caps.content_limit)),
            ("offset", schema::offset(caps.content_offset)),
        ],
    )
}

fn validate(arguments: &mut Arguments<'_>, caps: &Caps) -> Result<Plan, Invalid> {
    let depth = arguments.integer("depth", 1);
    let paging = Paging::read(arguments);
    let with_tvs = variable::Shown::read(arguments);
    arguments.rules()?;
    let page = paging.page(caps)?;
    let depth = depth_within(depth, caps)?.unwrap_or(1);
    let outputs = with_tvs.outputs()?;
    let query = move |tables: &_, wanted: &_, page| content::root_tree(tables, depth, wanted, page);
    Ok(Plan::documents(Some(page), outputs, query))
}
