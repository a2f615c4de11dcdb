use serde_json::Value;

use crate::executor::argument::{Arguments, Caps, Invalid, direction, schema};
use crate::executor::content::{Paging, depth_within, variable};
use crate::executor::pipeline::{Plan, Tool};
use crate::store::content::{self, Search, Sort};
use crate::store::variable::Named;

const SORTABLE: [&str; 5] = ["id", "pagetitle", "menuindex", "createdon", "pub_date"];

pub(in crate::executor) const TOOL: Tool = Tool {
    name: "evo.content.search",
    title: "Content Search Tool",
    description: "Documents by property, and by place below a parent.",
    schema,
    validate,
};

fn schema(caps: &Caps) -> Value {
    schema::object(
        &["limit"],
        vec![
            ("parent", schema::optional_integer(0, "Search below this document; 0 is the site itself.")),
            ("depth", schema::depth(caps.depth, "Levels below the parent; as many as allowed when absent.")),
            ("published", schema::optional_boolean("Only published, or only unpublished documents.")),
            ("deleted", schema::optional_boolean("Deleted documents instead of live ones.")),
            ("template", schema::optional_integer(0, "Only documents of this template.")),
            ("hidemenu", schema::optional_boolean("Only documents hidden from menus, or only shown ones.")),
            ("order_by", schema::optional_text("One of id, pagetitle, menuindex, createdon, pub_date.")),
            ("order_dir", schema::optional_text("asc or desc.")),
            ("order_by_date", schema::optional_text("asc or desc, by date of publication, else of creation.")),
            ("with_tvs", variable::with_tvs_schema()),
            ("tv_filters", variable::tv_filters_schema()),
            ("tv_order", variable::tv_order_schema()),
            ("tags_data", variable::tags_data_schema()),
            ("limit", schema::limit(caps.content_limit)),
            ("offset", schema::offset(caps.content_offset)),
        ],
    )
}

fn validate(arguments: &mut Arguments<'_>, caps: &Caps) -> Result<Plan, Invalid> {
    let parent = arguments.integer("parent", 0);
    let depth = arguments.integer("depth", 1);
    let published = arguments.boolean("published");
    let deleted = arguments.boolean("deleted").unwrap_or(false);
    let template = arguments.integer("template", 0);
    let hidemenu = arguments.boolean("hidemenu");
    let order_by = arguments.text("order_by");
    let order_dir = arguments.text("order_dir");
    let order_by_date = arguments.text("order_by_date");
    let paging = Paging::read(arguments);
    let with_tvs = variable::Shown::read(arguments);
    let conditions = variable::Conditions::read(arguments);
    arguments.rules()?;

    let page = paging.page(caps)?;
    let depth = depth_within(depth, caps)?.unwrap_or(caps.depth);
    let column = match order_by.map(str::trim) {
        None => "id",
        Some(name) => SORTABLE
            .into_iter()
            .find(|sortable| *sortable == name)
            .ok_or_else(|| Invalid::one(format!("The order_by field must be one of {}.", SORTABLE.join(", "))))?,
    };
    let order = direction("order_dir", order_dir)?;
    let sort = match order_by_date {
        Some(text) => Sort::Date(direction("order_by_date", Some(text))?),
        None => Sort::Column(column, order),
    };
    let outputs = with_tvs.outputs()?;
    let filters = conditions.filters()?;
    let sorts = conditions.sorts()?;
    let tags = conditions.tags()?;
    let tagged = tags.is_some();
    let search = Search { parent, depth, published, deleted, template, hidemenu, tags, sort };
    let query = move |tables: &_, wanted: &_, page| content::search(tables, &search, wanted, page);
    let mut plan = Plan::documents(Some(page), Vec::new(), query);
    plan.wanted = Named { outputs, filters, sorts };
    plan.tags = tagged;
    Ok(plan)
}
