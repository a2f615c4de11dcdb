use serde_json::Value;

use crate::executor::argument::{Arguments, Caps, Invalid, schema};
use crate::executor::content::Paging;
use crate::executor::pipeline::{Plan, Tool};
use crate::store::content;

pub(in crate::executor) const TOOL: Tool = Tool {
    name: "evo.content.siblings",
    title: "Content Siblings Tool",
    description: "The other documents under the same parent, in menu order.",
    schema,
    validate,
};

fn schema(caps: &Caps) -> Value {
    schema::object(
        &["id", "limit"],
        vec![
            ("id", schema::id("The document.")),
            ("limit", schema::limit(caps.content_limit)),
            ("offset", schema::offset(caps.content_offset)),
        ],
    )
}

fn validate(arguments: &mut Arguments<'_>, caps: &Caps) -> Result<Plan, Invalid> {
    let id = arguments.required_integer("id", 1);
    let paging = Paging::read(arguments);
    arguments.rules()?;
    let page = paging.page(caps)?;
    let query = Box::new(move |tables: &_, page| content::siblings(tables, id, page));
    Ok(Plan { page: Some(page), model: None, query })
}
