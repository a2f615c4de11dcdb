use crate::executor::pipeline::Tool;
use crate::executor::{content, models};

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

/// The tool of this exact name.
pub(in crate::executor) fn find(name: &str) -> Option<&'static Tool> {
    TOOLS.iter().find(|tool| tool.name == name)
}
