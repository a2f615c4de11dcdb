use serde_json::{Value, json};

use crate::executor::argument::{Arguments, Caps, Invalid, schema};
use crate::executor::models::allowed;
use crate::executor::pipeline::{Plan, Tool};
use crate::store::model;

pub(in crate::executor) const TOOL: Tool = Tool {
    name: "evo.model.get",
    title: "Model Get Tool",
    description: "One row of an allowed model by id; null when there is none.",
    schema,
    validate,
};

fn schema(_caps: &Caps) -> Value {
    let name = json!({"type": "string", "description": "Name of the model, such as SiteTemplate."});
    schema::object(&["model", "id"], vec![("model", name), ("id", schema::id("The row."))])
}

fn validate(arguments: &mut Arguments<'_>, caps: &Caps) -> Result<Plan, Invalid> {
    let name = arguments.required_text("model");
    let id = arguments.required_integer("id", 1);
    arguments.rules()?;
    let model = allowed(name, caps)?;
    Ok(Plan::model(None, model, move |tables, _| model::item(tables, model, id)))
}
