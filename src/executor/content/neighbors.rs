use serde_json::Value;

use crate::executor::argument::{Arguments, Caps, Invalid, schema};
use crate::executor::content::{Paging, variable};
use crate::executor::pipeline::{Plan, Tool};
use crate::store::content::{self, Siblings};

pub(in crate::executor) const TOOL: Tool = Tool {
    name: "evo.content.neighbors",
    title: "Content Neighbors Tool",
    description: "The documents right before and after one in the menu order of its parent.",
    schema,
    validate,
};

fn schema(caps: &Caps) -> Value {
    schema::object(
        &["id", "limit"],
        vec![
            ("id", schema::id("The document.")),
            ("with_tvs", variable::with_tvs_schema()),
            ("limit", schema::limit(caps.content_limit)),
            ("offset", schema::offset(caps.content_offset)),
        ],
    )
}

fn validate(arguments: &mut Arguments<'_>, caps: &Caps) -> Result<Plan, Invalid> {
    let id = arguments.required_integer("id", 1);
    let paging = Paging::read(arguments);
    let with_tvs = variable::Shown::read(arguments);
    arguments.rules()?;
    let page = paging.page(caps)?;
    let outputs = with_tvs.outputs()?;
    let query = move |tables: &_, wanted: &_, page| content::siblings(tables, id, Siblings::Neighbors, wanted, page);
    Ok(Plan::documents(Some(page), outputs, query))
}
