use serde_json::Value;

use crate::executor::argument::{Arguments, Caps, Invalid, schema};
use crate::executor::content::variable;
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
    let id = schema::id("The document.");
    schema::object(&["id"], vec![("id", id), ("with_tvs", variable::with_tvs_schema())])
}

fn validate(arguments: &mut Arguments<'_>, _caps: &Caps) -> Result<Plan, Invalid> {
    let id = arguments.required_integer("id", 1);
    let with_tvs = variable::Shown::read(arguments);
    arguments.rules()?;
    let outputs = with_tvs.outputs()?;
    let query = move |tables: &_, wanted: &_, _| content::item(tables, id, wanted);
    Ok(Plan::documents(None, outputs, query))
}
