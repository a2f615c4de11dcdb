//! The stages of a call that all tools share, and how a tool describes its own.
//!
//! A call runs through them in this order, which `rpc` drives: the tool's own `validate` makes a [`Plan`], and
//! [`prepare`] adds what only the site can tell; [`authorize`] lets it pass; [`Traversal::advance`] paginates, queries
//! and maps as often as there are pages; [`Traversal::respond`] makes the structured result, and [`success`] its
//! envelope.

use rmcp::model::{CallToolResult, ContentBlock, ServerResult};
use sea_query::SelectStatement;
use serde_json::{Map, Value, json};

use crate::executor::argument::{Arguments, Caps, Invalid, shown};
use crate::protocol::Identity;
use crate::store::content::{self, Document};
use crate::store::model::{self, Model};
use crate::store::variable::{Found, Named, Output, Tags, Unknown};
use crate::store::{Error, Page, Pool, Reader, Row, Tables};

/// A tool: what it is called, and its own stages.
pub(in crate::executor) struct Tool {
    pub name: &'static str,
    pub title: &'static str,
    pub description: &'static str,
    pub schema: fn(&Caps) -> Value,
    pub validate: fn(&mut Arguments<'_>, &Caps) -> Result<Plan, Invalid>,
}

/// The query stage: the statement for some of the rows.
type Query = Box<dyn Fn(&Tables, &Found, Page) -> SelectStatement + Send + Sync>;

/// A validated call.
pub(in crate::executor) struct Plan {
    /// The rows asked for; `None` asks for one item.
    pub page: Option<Page>,
    /// `None`: documents.
    model: Option<&'static Model>,
    /// What is wanted of template variables, by name, and by what [`prepare`] found of that.
    pub wanted: Named,
    found: Found,
    /// Whether tags are asked for, which not every site has.
    pub tags: bool,
    query: Query,
}

impl Plan {
    /// A plan for documents.
    pub(in crate::executor) fn documents(
        page: Option<Page>,
        outputs: Vec<Output<String>>,
        query: impl Fn(&Tables, &Found, Page) -> SelectStatement + Send + Sync + 'static,
    ) -> Self {
        let wanted = Named { outputs, ..Named::default() };
        Self { page, model: None, wanted, found: Found::default(), tags: false, query: Box::new(query) }
    }

    /// A plan for rows of a model.
    pub(in crate::executor) fn model(
        page: Option<Page>,
        model: &'static Model,
        query: impl Fn(&Tables, Page) -> SelectStatement + Send + Sync + 'static,
    ) -> Self {
        let query: Query = Box::new(move |tables, _, page| query(tables, page));
        Self { page, model: Some(model), wanted: Named::default(), found: Found::default(), tags: false, query }
    }
}

/// The last stage of validation: what only the site can tell.
///
/// # Errors
/// When the site's database cannot be asked; within, what is wrong with the arguments.
pub(in crate::executor) async fn prepare(pool: &Pool, mut plan: Plan) -> Result<Result<Plan, Invalid>, Error> {
    let names = plan.wanted.names();
    if !names.is_empty() {
        let variables = pool.variables(&names).await?;
        plan.found = match plan.wanted.find(&variables) {
            Ok(found) => found,
            Err(unknown) => {
                let (field, name) = match &unknown {
                    Unknown::Filter(name) => ("tv_filters", name),
                    Unknown::Sort(name) => ("tv_order", name),
                };
                let message = format!("The {field} field names an unknown template variable: {}.", shown(name));
                return Ok(Err(Invalid::one(message)));
            }
        };
    }
    if plan.tags && !Tags::served(&pool.tables().await?) {
        return Ok(Err(Invalid::one("The tags_data field cannot be used: this site keeps no tags.")));
    }
    Ok(Ok(plan))
}

/// How far a call has come, in items.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::executor) struct Progress {
    pub done: u64,
    /// The most there can be.
    pub total: u64,
}

/// A call at work, page by page. Dropping it ends the query.
pub(in crate::executor) struct Traversal {
    plan: Plan,
    toolset_version: String,
    reader: Reader,
    step: u64,
    items: Vec<Value>,
    finished: bool,
}

/// Every document and model may be read by whoever may call the tool: there are no rights per document, but this is
/// where they would be asked.
pub(in crate::executor) fn authorize(_caller: &Identity, _plan: &Plan) -> bool {
    true
}

impl Traversal {
    /// Starts a call that fetches `step` rows at a time (all at once when `None`).
    pub(in crate::executor) async fn start(
        pool: &Pool,
        plan: Plan,
        caps: &Caps,
        step: Option<u64>,
    ) -> Result<Self, Error> {
        // One statement sees one state by itself.
        let reader = if step.is_some() { pool.snapshot().await? } else { pool.reader().await? };
        let step = step.unwrap_or(u64::MAX);
        let toolset_version = caps.toolset_version.clone();
        Ok(Self { plan, toolset_version, reader, step, items: Vec::new(), finished: false })
    }

    /// The next page, in three stages; `None` when there is none left.
    pub(in crate::executor) async fn advance(&mut self) -> Result<Option<Progress>, Error> {
        if self.finished {
            return Ok(None);
        }
        let page = self.paginate();
        let rows = self.query(page).await?;
        self.map(&rows)?;
        let (done, most) = (self.items.len() as u64, self.whole().limit);
        self.finished = (rows.len() as u64) < page.limit || done >= most;
        Ok(Some(Progress { done, total: if self.finished { done } else { most } }))
    }

    fn whole(&self) -> Page {
        self.plan.page.unwrap_or(Page { limit: 1, offset: 0 })
    }

    /// Which rows come next.
    fn paginate(&self) -> Page {
        let (whole, done) = (self.whole(), self.items.len() as u64);
        Page { limit: self.step.min(whole.limit - done), offset: whole.offset + done }
    }

    async fn query(&mut self, page: Page) -> Result<Vec<Row>, Error> {
        let statement = (self.plan.query)(self.reader.tables(), &self.plan.found, page);
        self.reader.fetch(&statement).await
    }

    fn map(&mut self, rows: &[Row]) -> Result<(), Error> {
        for row in rows {
            self.items.push(item(&self.plan, self.reader.tables(), row)?);
        }
        Ok(())
    }

    /// The structured result of a finished call.
    pub(in crate::executor) fn respond(self) -> Value {
        let count = self.items.len();
        let mut meta = Map::new();
        if let Some(page) = self.plan.page {
            meta.insert("limit".to_owned(), page.limit.into());
            meta.insert("offset".to_owned(), page.offset.into());
            meta.insert("count".to_owned(), count.into());
        }
        meta.insert("toolsetVersion".to_owned(), self.toolset_version.into());
        if let Some(model) = self.plan.model {
            meta.insert("model".to_owned(), model.name.into());
        }
        match self.plan.page {
            Some(_) => json!({"items": self.items, "meta": meta}),
            None => json!({"item": self.items.into_iter().next(), "meta": meta}),
        }
    }
}

fn item(plan: &Plan, tables: &Tables, row: &Row) -> Result<Value, Error> {
    if let Some(model) = plan.model {
        return model::read(tables, model, row);
    }
    let mut document = serde_json::to_value(Document::read(row)?).unwrap_or_default();
    if !plan.wanted.outputs.is_empty() {
        let mut values = Map::with_capacity(plan.wanted.outputs.len());
        for (at, output) in plan.wanted.outputs.iter().enumerate() {
            values.insert(output.variable.clone(), row.text(content::COLUMNS.len() + at)?.into());
        }
        document["tvs"] = values.into();
    }
    Ok(document)
}

/// The result that a structured value is, beside itself as one block of compact JSON.
pub(in crate::executor) fn success(structured: Value) -> ServerResult {
    ServerResult::CallToolResult(CallToolResult::structured(structured))
}

/// The result that tells what is wrong with the arguments.
pub(in crate::executor) fn refusal(invalid: &Invalid) -> ServerResult {
    ServerResult::CallToolResult(CallToolResult::error(vec![ContentBlock::text(invalid.text())]))
}
