use crate::executor::argument::Caps;
use crate::executor::pipeline::Plan;
use crate::executor::resources::{Contents, Resource};
use crate::store::{Page, content};

pub(in crate::executor) const RESOURCE: Resource = Resource {
    uri: "evo://sample",
    name: "sample",
    title: "Sample",
    description: "The documents at the top of the site, in menu order.",
    mime_type: "application/json",
    contents,
};

fn contents(caps: &Caps) -> Contents {
    let first = Page { limit: caps.content_limit.unsigned_abs(), offset: 0 };
    let query = |tables: &_, wanted: &_, page| content::children(tables, 0, None, wanted, page);
    Contents::Rows(Plan::documents(Some(first), Vec::new(), query))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::executor::tests::caps;

    #[test]
    fn it_holds_as_many_rows_as_the_policy_lets_it() {
        let Contents::Rows(plan) = (RESOURCE.contents)(&caps()) else { panic!("it holds rows") };
        assert_eq!(plan.page, Some(Page { limit: 100, offset: 0 }));
    }
}
