//! The lists: tools, resources and prompts, in pages, and the templates that this server has none of (emcp.md 7.2).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rmcp::model::{
    Cursor, ListPromptsResult, ListResourceTemplatesResult, ListResourcesResult, ListToolsResult, Prompt,
    PromptArgument, Resource, ServerResult, Tool, ToolAnnotations,
};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::executor::argument::Caps;
use crate::executor::registry::{self, Catalog};
use crate::executor::{pipeline, prompts, resources};

const PER_PAGE: i64 = 15;
const MOST_PER_PAGE: i64 = 50;

/// Which part of a list is asked for.
#[derive(Deserialize)]
pub(in crate::executor) struct Page {
    cursor: Option<Cursor>,
    per_page: Option<i64>,
}

impl Page {
    /// The page of a whole list, and the cursor of the one behind it.
    fn cut<T>(&self, whole: impl ExactSizeIterator<Item = T>) -> (Vec<T>, Option<Cursor>) {
        let per_page = self.per_page.unwrap_or(PER_PAGE).clamp(1, MOST_PER_PAGE);
        let per_page = usize::try_from(per_page).expect("is between 1 and 50");
        let offset = self.cursor.as_deref().and_then(offset).unwrap_or(0);
        let end = offset.saturating_add(per_page);
        let next = (end < whole.len()).then(|| STANDARD.encode(json!({"offset": end}).to_string()));
        (whole.skip(offset).take(per_page).collect(), next)
    }
}

/// Where a cursor points; `None`, which means the start, when it is none of ours.
fn offset(cursor: &str) -> Option<usize> {
    let bytes = STANDARD.decode(cursor).ok()?;
    let cursor: Value = serde_json::from_slice(&bytes).ok()?;
    usize::try_from(cursor.get("offset")?.as_u64()?).ok()
}

/// `tools/list`: the tools whose names are to be shown.
pub(in crate::executor) fn tools(page: &Page, caps: &Caps, shown: impl Fn(&str) -> bool) -> ServerResult {
    let tools: Vec<_> = registry::TOOLS.iter().filter(|tool| shown(tool.name)).collect();
    let (tools, next) = page.cut(tools.into_iter().map(|tool| published(tool, caps)));
    let mut result = ListToolsResult::with_all_items(tools);
    result.next_cursor = next;
    ServerResult::ListToolsResult(result)
}

fn published(tool: &pipeline::Tool, caps: &Caps) -> Tool {
    Tool::new(tool.name, tool.description, rmcp::model::object((tool.schema)(caps)))
        .with_title(tool.title)
        .with_annotations(ToolAnnotations::new().read_only(true))
}

/// `resources/list`: the resources whose addresses are to be shown.
pub(in crate::executor) fn resources(page: &Page, catalog: Catalog, shown: impl Fn(&str) -> bool) -> ServerResult {
    let resources: Vec<_> = catalog.resources.iter().filter(|resource| shown(resource.uri)).collect();
    let (resources, next) = page.cut(resources.into_iter().map(published_resource));
    let mut result = ListResourcesResult::with_all_items(resources);
    result.next_cursor = next;
    ServerResult::ListResourcesResult(result)
}

fn published_resource(resource: &resources::Resource) -> Resource {
    Resource::new(resource.uri, resource.name)
        .with_title(resource.title)
        .with_description(resource.description)
        .with_mime_type(resource.mime_type)
}

/// `resources/templates/list`.
pub(in crate::executor) fn resource_templates(_page: &Page) -> ServerResult {
    ServerResult::ListResourceTemplatesResult(ListResourceTemplatesResult::default())
}

/// `prompts/list`: the prompts whose names are to be shown.
pub(in crate::executor) fn prompts(page: &Page, catalog: Catalog, shown: impl Fn(&str) -> bool) -> ServerResult {
    let prompts: Vec<_> = catalog.prompts.iter().filter(|prompt| shown(prompt.name)).collect();
    let (prompts, next) = page.cut(prompts.into_iter().map(published_prompt));
    let mut result = ListPromptsResult::with_all_items(prompts);
    result.next_cursor = next;
    ServerResult::ListPromptsResult(result)
}

fn published_prompt(prompt: &prompts::Prompt) -> Prompt {
    let arguments = prompt.arguments.iter().map(|argument| {
        PromptArgument::new(argument.name).with_description(argument.description).with_required(argument.required)
    });
    Prompt::new(prompt.name, Some(prompt.description), Some(arguments.collect())).with_title(prompt.title)
}
