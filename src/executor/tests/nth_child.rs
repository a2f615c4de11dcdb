use serde_json::{Value, json};

use crate::executor::argument::{Arguments, Caps, Invalid, schema, within};
use crate::executor::pipeline::{Plan, Tool};
use crate::store::{Page, content};

pub(in crate::executor) const TOOL: Tool = Tool {
    name: "evo.content.nth_child",
    title: "Content Nth Child Tool",
    description: "The document at a place in the menu order below another one; null when there are fewer.",
    schema,
    validate,
};

fn schema(caps: &Caps) -> Value {
    let position = json!({
        "type": "integer",
        "minimum": 1,
        "maximum": caps.content_offset + 1,
        "description": "1 is the first.",
    });
    schema::object(&["id", "position"], vec![("id", schema::id("The document above.")), ("position", position)])
}

fn validate(arguments: &mut Arguments<'_>, caps: &Caps) -> Result<Plan, Invalid> {
    // Rules: all that are broken are told together.
    let id = arguments.required_integer("id", 1);
    let position = arguments.required_integer("position", 1);
    arguments.rules()?;
    // Meanings: the first that fails is told.
    let position = within("position", position, 1, caps.content_offset + 1)?;
    let place = Page { limit: 1, offset: position.unsigned_abs() - 1 };
    let query = move |tables: &_, wanted: &_, _| content::children(tables, id, None, wanted, place);
    Ok(Plan::documents(None, Vec::new(), query))
}
