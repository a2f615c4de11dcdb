-- The tables of a content site as its own installer makes them, in SQLite's words. {p} is the prefix.
CREATE TABLE {p}site_content (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  type TEXT NOT NULL DEFAULT 'document',
  contentType TEXT NOT NULL DEFAULT 'text/html',
  pagetitle TEXT NOT NULL DEFAULT '',
  longtitle TEXT NOT NULL DEFAULT '',
  description TEXT NOT NULL DEFAULT '',
  alias TEXT NULL,
  link_attributes TEXT NOT NULL DEFAULT '',
  published INTEGER NOT NULL DEFAULT 0,
  pub_date INTEGER NOT NULL DEFAULT 0,
  unpub_date INTEGER NOT NULL DEFAULT 0,
  parent INTEGER NOT NULL DEFAULT 0,
  isfolder INTEGER NOT NULL DEFAULT 0,
  introtext TEXT NULL,
  content TEXT NULL,
  richtext INTEGER NOT NULL DEFAULT 1,
  template INTEGER NOT NULL DEFAULT 0,
  menuindex INTEGER NOT NULL DEFAULT 0,
  searchable INTEGER NOT NULL DEFAULT 1,
  cacheable INTEGER NOT NULL DEFAULT 1,
  createdby INTEGER NOT NULL DEFAULT 0,
  createdon INTEGER NOT NULL DEFAULT 0,
  editedby INTEGER NOT NULL DEFAULT 0,
  editedon INTEGER NOT NULL DEFAULT 0,
  deleted INTEGER NOT NULL DEFAULT 0,
  deletedon INTEGER NOT NULL DEFAULT 0,
  deletedby INTEGER NOT NULL DEFAULT 0,
  publishedon INTEGER NOT NULL DEFAULT 0,
  publishedby INTEGER NOT NULL DEFAULT 0,
  menutitle TEXT NOT NULL DEFAULT '',
  hide_from_tree INTEGER NOT NULL DEFAULT 0,
  privateweb INTEGER NOT NULL DEFAULT 0,
  privatemgr INTEGER NOT NULL DEFAULT 0,
  content_dispo INTEGER NOT NULL DEFAULT 0,
  hidemenu INTEGER NOT NULL DEFAULT 0,
  alias_visible INTEGER NOT NULL DEFAULT 1
);
CREATE TABLE {p}site_content_closure (
  closure_id INTEGER PRIMARY KEY AUTOINCREMENT,
  ancestor INTEGER NOT NULL,
  descendant INTEGER NOT NULL,
  depth INTEGER NOT NULL
);
CREATE TABLE {p}site_tmplvars (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  type TEXT NOT NULL DEFAULT '',
  name TEXT NOT NULL DEFAULT '',
  caption TEXT NOT NULL DEFAULT '',
  description TEXT NOT NULL DEFAULT '',
  editor_type INTEGER NOT NULL DEFAULT 0,
  category INTEGER NOT NULL DEFAULT 0,
  locked INTEGER NOT NULL DEFAULT 0,
  elements TEXT NULL,
  rank INTEGER NOT NULL DEFAULT 0,
  display TEXT NULL,
  display_params TEXT NULL,
  default_text TEXT NULL,
  createdon INTEGER NOT NULL DEFAULT 0,
  editedon INTEGER NOT NULL DEFAULT 0,
  properties TEXT NULL
);
CREATE TABLE {p}site_tmplvar_contentvalues (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  tmplvarid INTEGER NOT NULL DEFAULT 0,
  contentid INTEGER NOT NULL DEFAULT 0,
  value TEXT NULL,
  UNIQUE (tmplvarid, contentid)
);
CREATE TABLE {p}site_tmplvar_templates (
  tmplvarid INTEGER NOT NULL DEFAULT 0,
  templateid INTEGER NOT NULL DEFAULT 0,
  rank INTEGER NOT NULL DEFAULT 0,
  PRIMARY KEY (tmplvarid, templateid)
);
CREATE TABLE {p}site_templates (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  templatename TEXT NOT NULL DEFAULT '',
  templatealias TEXT NOT NULL DEFAULT '',
  description TEXT NOT NULL DEFAULT 'Template',
  editor_type INTEGER NOT NULL DEFAULT 0,
  category INTEGER NOT NULL DEFAULT 0,
  icon TEXT NOT NULL DEFAULT '',
  template_type INTEGER NOT NULL DEFAULT 0,
  content TEXT NULL,
  locked INTEGER NOT NULL DEFAULT 0,
  selectable INTEGER NOT NULL DEFAULT 1,
  createdon INTEGER NOT NULL DEFAULT 0,
  editedon INTEGER NOT NULL DEFAULT 0
);
CREATE TABLE {p}site_htmlsnippets (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  name TEXT NOT NULL DEFAULT '',
  description TEXT NOT NULL DEFAULT 'Chunk',
  editor_type INTEGER NOT NULL DEFAULT 0,
  editor_name TEXT NOT NULL DEFAULT 'none',
  category INTEGER NOT NULL DEFAULT 0,
  cache_type INTEGER NOT NULL DEFAULT 0,
  snippet TEXT NULL,
  locked INTEGER NOT NULL DEFAULT 0,
  createdon INTEGER NOT NULL DEFAULT 0,
  editedon INTEGER NOT NULL DEFAULT 0,
  disabled INTEGER NOT NULL DEFAULT 0
);
CREATE TABLE {p}site_snippets (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  name TEXT NOT NULL DEFAULT '',
  description TEXT NOT NULL DEFAULT 'Snippet',
  editor_type INTEGER NOT NULL DEFAULT 0,
  category INTEGER NOT NULL DEFAULT 0,
  cache_type INTEGER NOT NULL DEFAULT 0,
  snippet TEXT NULL,
  locked INTEGER NOT NULL DEFAULT 0,
  properties TEXT NULL,
  moduleguid TEXT NOT NULL DEFAULT '',
  createdon INTEGER NOT NULL DEFAULT 0,
  editedon INTEGER NOT NULL DEFAULT 0,
  disabled INTEGER NOT NULL DEFAULT 0
);
CREATE TABLE {p}site_plugins (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  name TEXT NOT NULL DEFAULT '',
  description TEXT NOT NULL DEFAULT 'Plugin',
  editor_type INTEGER NOT NULL DEFAULT 0,
  category INTEGER NOT NULL DEFAULT 0,
  cache_type INTEGER NOT NULL DEFAULT 0,
  plugincode TEXT NULL,
  locked INTEGER NOT NULL DEFAULT 0,
  properties TEXT NULL,
  disabled INTEGER NOT NULL DEFAULT 0,
  moduleguid TEXT NULL,
  createdon INTEGER NOT NULL DEFAULT 0,
  editedon INTEGER NOT NULL DEFAULT 0
);
CREATE TABLE {p}site_modules (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  name TEXT NOT NULL DEFAULT '',
  description TEXT NOT NULL DEFAULT '0',
  editor_type INTEGER NOT NULL DEFAULT 0,
  disabled INTEGER NOT NULL DEFAULT 0,
  category INTEGER NOT NULL DEFAULT 0,
  wrap INTEGER NOT NULL DEFAULT 0,
  locked INTEGER NOT NULL DEFAULT 0,
  icon TEXT NOT NULL DEFAULT '',
  enable_resource INTEGER NOT NULL DEFAULT 0,
  resourcefile TEXT NOT NULL DEFAULT '',
  createdon INTEGER NOT NULL DEFAULT 0,
  editedon INTEGER NOT NULL DEFAULT 0,
  guid TEXT NULL,
  enable_sharedparams INTEGER NOT NULL DEFAULT 0,
  properties TEXT NULL,
  modulecode TEXT NULL
);
CREATE TABLE {p}categories (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  category TEXT NOT NULL DEFAULT '',
  rank INTEGER NOT NULL DEFAULT 0
);
CREATE TABLE {p}users (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  username TEXT NOT NULL DEFAULT '' UNIQUE,
  password TEXT NOT NULL DEFAULT '',
  cachepwd TEXT NOT NULL DEFAULT '',
  refresh_token TEXT NULL,
  access_token TEXT NULL,
  valid_to TEXT NULL,
  verified_key TEXT NULL
);
CREATE TABLE {p}user_attributes (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  internalKey INTEGER NOT NULL DEFAULT 0,
  fullname TEXT NOT NULL DEFAULT '',
  first_name TEXT NULL,
  last_name TEXT NULL,
  middle_name TEXT NULL,
  role INTEGER NOT NULL DEFAULT 0,
  email TEXT NOT NULL DEFAULT '',
  phone TEXT NOT NULL DEFAULT '',
  mobilephone TEXT NOT NULL DEFAULT '',
  blocked INTEGER NOT NULL DEFAULT 0,
  blockeduntil INTEGER NOT NULL DEFAULT 0,
  blockedafter INTEGER NOT NULL DEFAULT 0,
  logincount INTEGER NOT NULL DEFAULT 0,
  lastlogin INTEGER NOT NULL DEFAULT 0,
  thislogin INTEGER NOT NULL DEFAULT 0,
  failedlogincount INTEGER NOT NULL DEFAULT 0,
  sessionid TEXT NOT NULL DEFAULT '',
  dob INTEGER NULL,
  gender INTEGER NOT NULL DEFAULT 0,
  country TEXT NOT NULL DEFAULT '',
  street TEXT NOT NULL DEFAULT '',
  city TEXT NOT NULL DEFAULT '',
  state TEXT NOT NULL DEFAULT '',
  zip TEXT NOT NULL DEFAULT '',
  fax TEXT NOT NULL DEFAULT '',
  photo TEXT NOT NULL DEFAULT '',
  comment TEXT NULL,
  createdon INTEGER NOT NULL DEFAULT 0,
  editedon INTEGER NOT NULL DEFAULT 0,
  verified INTEGER NOT NULL DEFAULT 0
);
CREATE TABLE {p}user_roles (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  name TEXT NOT NULL DEFAULT '',
  description TEXT NOT NULL DEFAULT ''
);
CREATE TABLE {p}permissions_groups (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  name TEXT NOT NULL DEFAULT '',
  lang_key TEXT NOT NULL DEFAULT '',
  created_at TEXT NULL,
  updated_at TEXT NULL
);
CREATE TABLE {p}permissions (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  name TEXT NOT NULL DEFAULT '',
  key TEXT NOT NULL DEFAULT '',
  lang_key TEXT NOT NULL DEFAULT '',
  group_id INTEGER NULL,
  disabled INTEGER NULL,
  created_at TEXT NULL,
  updated_at TEXT NULL
);
CREATE TABLE {p}role_permissions (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  permission TEXT NOT NULL DEFAULT '',
  role_id INTEGER NOT NULL DEFAULT 0,
  created_at TEXT NULL,
  updated_at TEXT NULL
);
CREATE TABLE {p}active_user_sessions (
  sid TEXT PRIMARY KEY,
  internalKey INTEGER NOT NULL DEFAULT 0,
  lasthit INTEGER NOT NULL DEFAULT 0,
  ip TEXT NOT NULL DEFAULT ''
);
CREATE TABLE {p}s_workers (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  uuid TEXT NULL UNIQUE,
  identifier TEXT NOT NULL UNIQUE,
  scope TEXT NOT NULL DEFAULT '',
  class TEXT NOT NULL DEFAULT '',
  active INTEGER NOT NULL DEFAULT 0,
  position INTEGER NOT NULL DEFAULT 0,
  settings TEXT NOT NULL DEFAULT '[]',
  hidden INTEGER NOT NULL DEFAULT 0,
  created_at TEXT NULL,
  updated_at TEXT NULL
);
CREATE TABLE {p}s_tasks (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  identifier TEXT NOT NULL DEFAULT '',
  action TEXT NOT NULL DEFAULT '',
  status INTEGER NOT NULL DEFAULT 10,
  message TEXT NULL,
  started_by INTEGER NULL,
  meta TEXT NULL,
  result TEXT NULL,
  start_at TEXT NULL,
  finished_at TEXT NULL,
  attempts INTEGER NOT NULL DEFAULT 0,
  max_attempts INTEGER NOT NULL DEFAULT 3,
  priority TEXT NOT NULL DEFAULT 'normal',
  progress INTEGER NOT NULL DEFAULT 0,
  created_at TEXT NULL,
  updated_at TEXT NULL
);
