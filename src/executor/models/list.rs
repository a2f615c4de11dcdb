use serde_json::{Value, json};

use crate::executor::argument::{Arguments, Caps, Invalid, direction, schema, shown, within};
use crate::executor::models::{allowed, filter};
use crate::executor::pipeline::{Plan, Tool};
use crate::store::Page;
use crate::store::model::{self, Listing};

pub(in crate::executor) const TOOL: Tool = Tool {
    name: "evo.model.list",
    title: "Model List Tool",
    description: "Rows of an allowed model, filtered and sorted by its fields.",
    schema,
    validate,
};

fn schema(caps: &Caps) -> Value {
    schema::object(
        &["model", "limit"],
        vec![
            ("model", json!({"type": "string", "description": "Name of the model, such as SiteTemplate."})),
            ("limit", schema::limit(caps.model_limit)),
            ("offset", schema::offset(caps.model_offset)),
            ("order_by", schema::optional_text("A field of the model; id when absent.")),
            ("order_dir", schema::optional_text("asc or desc.")),
            ("filters", filter::schema()),
        ],
    )
}

fn validate(arguments: &mut Arguments<'_>, caps: &Caps) -> Result<Plan, Invalid> {
    let name = arguments.required_text("model");
    let limit = arguments.required_integer("limit", 1);
    let offset = arguments.integer("offset", 0).unwrap_or(0);
    let order_by = arguments.text("order_by");
    let order_dir = arguments.text("order_dir");
    let filters = filter::rules(arguments);
    arguments.rules()?;

    let limit = within("limit", limit, 1, caps.model_limit)?.unsigned_abs();
    let offset = within("offset", offset, 0, caps.model_offset)?.unsigned_abs();
    let model = allowed(name, caps)?;
    let filters = filter::read(model, filters)?;
    let sort = order_by.map_or("id", str::trim);
    let sort = model.field(sort).ok_or_else(|| {
        Invalid::one(format!("The order_by field is not allowed for {}: {}.", model.name, shown(sort)))
    })?;
    let listing = Listing { model, filters, sort, order: direction("order_dir", order_dir)? };
    let page = Page { limit, offset };
    Ok(Plan::model(Some(page), model, move |tables, page| model::list(tables, &listing, page)))
}
