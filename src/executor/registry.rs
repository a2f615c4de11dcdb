use crate::executor::pipeline::Tool;
use crate::executor::{content, models, prompts, resources};

/// Every tool, in the order of the listing. One line makes a tool live.
pub(in crate::executor) static TOOLS: &[Tool] = &[
    content::search::TOOL,
    content::get::TOOL,
    content::root_tree::TOOL,
    content::descendants::TOOL,
    content::ancestors::TOOL,
    content::children::TOOL,
    content::siblings::TOOL,
    content::neighbors::TOOL,
    content::prev_siblings::TOOL,
    content::next_siblings::TOOL,
    content::children_range::TOOL,
    content::siblings_range::TOOL,
    models::list::TOOL,
    models::get::TOOL,
];

/// Every resource, in the order of the listing.
pub(in crate::executor) static RESOURCES: &[resources::Resource] = &[
    // One line each, such as: resources::contact::RESOURCE,
];

/// Every prompt, in the order of the listing.
pub(in crate::executor) static PROMPTS: &[prompts::Prompt] = &[
    // One line each, such as: prompts::summary::PROMPT,
];

/// What an executor has beside tools: [`SHIPPED`], unless a test brings its own.
#[derive(Clone, Copy)]
pub(in crate::executor) struct Catalog {
    pub resources: &'static [resources::Resource],
    pub prompts: &'static [prompts::Prompt],
}

pub(in crate::executor) const SHIPPED: Catalog = Catalog { resources: RESOURCES, prompts: PROMPTS };

impl Catalog {
    /// The resource of this exact address.
    pub(in crate::executor) fn resource(self, uri: &str) -> Option<&'static resources::Resource> {
        self.resources.iter().find(|resource| resource.uri == uri)
    }

    /// The prompt of this exact name.
    pub(in crate::executor) fn prompt(self, name: &str) -> Option<&'static prompts::Prompt> {
        self.prompts.iter().find(|prompt| prompt.name == name)
    }
}

/// The tool of this exact name.
pub(in crate::executor) fn find(name: &str) -> Option<&'static Tool> {
    TOOLS.iter().find(|tool| tool.name == name)
}
