use serde_json::Value;

use crate::executor::argument::{Arguments, Caps, Invalid, schema};
use crate::executor::pipeline::{Plan, Tool};
use crate::store::{Page, content};

pub(in crate::executor) const TOOL: Tool = Tool {
    name: "evo.content.sample",
    title: "Content Sample Tool",
    description: "The first document below another one, in menu order; null when there is none.",
    schema,
    validate,
};

fn schema(_: &Caps) -> Value {
    schema::object(&["id"], vec![("id", schema::id("The document above."))])
}

fn validate(arguments: &mut Arguments<'_>, _: &Caps) -> Result<Plan, Invalid> {
    let id = arguments.required_integer("id", 1);
    arguments.rules()?;
    let first = Page { limit: 1, offset: 0 };
    let query = move |tables: &_, wanted: &_, _| content::children(tables, id, None, wanted, first);
    Ok(Plan::documents(None, Vec::new(), query))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn arguments_are_validated() {
        let (caps, models) = (100, Vec::new());
        let caps = Caps {
            content_limit: caps,
            model_limit: caps,
            content_offset: caps,
            model_offset: caps,
            depth: 6,
            models,
            toolset_version: "1.0".to_owned(),
        };
        let valid = |arguments: Value| {
            let arguments = arguments.as_object().expect("an object").clone();
            (TOOL.validate)(&mut Arguments::new(&arguments), &caps).map(drop).map_err(|invalid| invalid.text())
        };
        assert_eq!(valid(json!({"id": 2})), Ok(()));
        assert_eq!(valid(json!({})), Err("The id field is required.".to_owned()));
        assert_eq!((TOOL.schema)(&caps)["required"], json!(["id"]));
    }
}
