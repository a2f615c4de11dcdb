-- Closure rows for every document, from the parents; then the indexes, which are cheaper to build at the end.
INSERT INTO {p}site_content_closure (ancestor, descendant, depth)
WITH RECURSIVE up (ancestor, descendant, depth) AS (
  SELECT id, id, 0 FROM {p}site_content
  UNION ALL
  SELECT c.parent, up.descendant, up.depth + 1 FROM up JOIN {p}site_content c ON c.id = up.ancestor WHERE c.parent <> 0
)
SELECT ancestor, descendant, depth FROM up;
CREATE INDEX {p}site_content_parent ON {p}site_content (parent, menuindex);
CREATE INDEX {p}site_content_type ON {p}site_content (type);
CREATE INDEX {p}site_content_alias ON {p}site_content (alias);
CREATE INDEX {p}site_content_template ON {p}site_content (template);
CREATE INDEX {p}site_content_dates ON {p}site_content (pub_date, unpub_date, published);
CREATE UNIQUE INDEX {p}site_content_closure_pair ON {p}site_content_closure (ancestor, descendant);
CREATE INDEX {p}site_content_closure_up ON {p}site_content_closure (descendant, ancestor);
CREATE INDEX {p}site_content_closure_depth ON {p}site_content_closure (depth);
CREATE INDEX {p}site_tmplvars_rank ON {p}site_tmplvars (rank);
CREATE INDEX {p}site_tmplvars_name ON {p}site_tmplvars (name);
CREATE INDEX {p}site_tmplvar_contentvalues_content ON {p}site_tmplvar_contentvalues (contentid);
CREATE INDEX {p}user_attributes_user ON {p}user_attributes (internalKey);
CREATE INDEX {p}s_tasks_identifier ON {p}s_tasks (identifier, action);
CREATE INDEX {p}s_tasks_status ON {p}s_tasks (status);
ANALYZE;
