use serde_json::Value;

use crate::executor::argument::{Arguments, Caps, Invalid, schema};
use crate::executor::pipeline::{Plan, Tool};
use crate::store::content;

pub(in crate::executor) const TOOL: Tool = Tool {
    name: "evo.content.get",
    title: "Content Get Tool",
    description: "One document by id; null when there is none.",
    schema,
    validate,
};

fn schema(_caps: &Caps) -> Value {
    schema::object(&["id"], vec![("id", schema::id("The document."))])
}

fn validate(arguments: &mut Arguments<'_>, _caps: &Caps) -> Result<Plan, Invalid> {
    let id = arguments.required_integer("id", 1);
    arguments.rules()?;
    Ok(Plan::item(move |tables, _| content::item(tables, id)))
}
