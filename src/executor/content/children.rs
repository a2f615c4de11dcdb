use serde_json::Value;

use crate::executor::argument::{Arguments, Caps, Invalid, schema};
use crate::executor::content::{Paging, variable};
use crate::executor::pipeline::{Plan, Tool};
use crate::store::content;

pub(in crate::executor) const TOOL: Tool = Tool {
    name: "evo.content.children",
    title: "Content Children Tool",
    description: "The documents directly below one, in menu order.",
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
    let query = move |tables: &_, wanted: &_, page| content::children(tables, id, None, wanted, page);
    Ok(Plan::documents(Some(page), outputs, query))
}
