use crate::executor::pipeline::Tool;
use crate::executor::{content, models};

/// Every tool, in the order of the listing.
pub(in crate::executor) const TOOLS: [Tool; 14] = [
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

/// The tool of this exact name.
pub(in crate::executor) fn find(name: &str) -> Option<&'static Tool> {
    static ALL: [Tool; 14] = TOOLS;
    ALL.iter().find(|tool| tool.name == name)
}
