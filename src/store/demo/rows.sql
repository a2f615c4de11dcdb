-- The rows of the demo site. Closure rows follow from the parents, at the end.
INSERT INTO {p}site_content (id, parent, menuindex, pagetitle, published, isfolder, hidemenu, deleted, deletedon, template, alias, pub_date, createdon, editedon, introtext, content) VALUES
  (1, 0, 0, 'Home', 1, 0, 0, 0, 0, 1, 'home', 0, 1700000060, 1700000090, NULL, '<p>Home</p>'),
  (2, 0, 1, 'Catalog', 1, 1, 0, 0, 0, 1, 'catalog', 0, 1700000120, 1700000150, NULL, '<p>Catalog</p>'),
  (3, 2, 0, 'Blue chair', 1, 1, 0, 0, 0, 2, 'blue-chair', 0, 1700000180, 1700000210, NULL, '<p>Blue chair</p>'),
  (4, 2, 1, 'Red chair', 1, 0, 1, 0, 0, 2, 'red-chair', 0, 1700000240, 1700000270, NULL, '<p>Red chair</p>'),
  (5, 2, 2, 'Oak table', 0, 0, 0, 0, 0, 2, 'oak-table', 1710000000, 1700000300, 1700000330, NULL, '<p>Oak table</p>'),
  (6, 2, 4, 'Shelf', 1, 0, 0, 0, 0, 2, 'shelf', 0, 1700000360, 1700000390, NULL, '<p>Shelf</p>'),
  (7, 3, 0, 'Chair manual', 1, 1, 0, 0, 0, 1, 'chair-manual', 0, 1700000420, 1700000450, NULL, '<p>Chair manual</p>'),
  (8, 7, 0, 'Assembly', 1, 0, 0, 0, 0, 1, 'assembly', 0, 1700000480, 1700000510, NULL, '<p>Assembly</p>'),
  (9, 2, 5, 'Old lamp', 1, 0, 0, 1, 1700100000, 2, 'old-lamp', 0, 1700000540, 1700000570, NULL, '<p>Old lamp</p>'),
  (10, 0, 2, 'Archive', 1, 1, 0, 1, 1700100000, 1, 'archive', 0, 1700000600, 1700000630, NULL, '<p>Archive</p>'),
  (11, 10, 0, 'Stray page', 1, 0, 0, 0, 0, 1, 'stray-page', 0, 1700000660, 1700000690, NULL, '<p>Stray page</p>'),
  (12, 0, 3, 'Новини', 1, 0, 0, 0, 0, 1, NULL, 0, 1700000720, 1700000750, NULL, '<p>Новини</p>');
INSERT INTO {p}site_tmplvars (id, type, name, caption, description, default_text, rank, category) VALUES
  (1, 'number', 'price', 'Price', 'Price in euros', '7', 0, 2),
  (2, 'text', 'color', 'Color', 'Color of the product', 'red', 1, 2),
  (3, 'textarea', 'note', 'Note', 'Internal note', NULL, 2, 1);
INSERT INTO {p}site_tmplvar_contentvalues (id, tmplvarid, contentid, value) VALUES
  (1, 1, 3, '100'), (2, 1, 4, '20'), (3, 1, 5, '250.50'), (4, 1, 6, '0'), (5, 1, 9, '5'), (6, 2, 3, 'blue'), (7, 2, 5, 'brown');
INSERT INTO {p}site_tmplvar_templates (tmplvarid, templateid, rank) VALUES (1, 2, 0), (2, 2, 1), (3, 1, 0), (3, 2, 2);
INSERT INTO {p}categories (id, category, rank) VALUES (1, 'Site', 0), (2, 'Shop', 1);
INSERT INTO {p}site_templates (id, templatename, templatealias, description, category) VALUES
  (1, 'Base', 'base', 'Template of ordinary pages', 1), (2, 'Product', 'product', 'Template of products', 2);
INSERT INTO {p}site_snippets (id, name, description, category, snippet, createdon, editedon) VALUES
  (1, 'Menu', 'Shows the menu', 1, 'return "";', 1700000000, 1700000000);
INSERT INTO {p}site_plugins (id, name, description, category, plugincode, createdon, editedon) VALUES
  (1, 'Sitemap', 'Keeps the site map fresh', 1, 'return;', 1700000000, 1700000000);
INSERT INTO {p}site_modules (id, name, description, category, modulecode, createdon, editedon) VALUES
  (1, 'Orders', 'Lists orders', 2, 'return "";', 1700000000, 1700000000);
INSERT INTO {p}users (id, username) VALUES (1, 'admin'), (2, 'editor'), (3, 'operator');
INSERT INTO {p}user_roles (id, name, description) VALUES
  (1, 'Administrator', 'May do everything'), (2, 'Editor', 'Edits documents'), (3, 'Publisher', 'Publishes documents');
INSERT INTO {p}user_attributes (id, internalKey, fullname, role, email, createdon, editedon) VALUES
  (1, 1, 'Ada Admin', 1, 'admin@example.test', 1700000000, 1700000000),
  (2, 2, 'Ed Editor', 2, 'editor@example.test', 1700000000, 1700000000),
  (3, 3, 'Olga Operator', 3, 'operator@example.test', 1700000000, 1700000000);
INSERT INTO {p}permissions_groups (id, name, lang_key) VALUES (1, 'eMCP', 'eMCP::global.permissions_group');
INSERT INTO {p}permissions (id, name, key, lang_key, group_id, disabled) VALUES
  (1, 'Access eMCP', 'emcp', 'eMCP::global.permission_access', 1, 0),
  (2, 'Manage eMCP', 'emcp_manage', 'eMCP::global.permission_manage', 1, 0),
  (3, 'Dispatch eMCP tasks', 'emcp_dispatch', 'eMCP::global.permission_dispatch', 1, 0);
INSERT INTO {p}role_permissions (id, permission, role_id) VALUES
  (1, 'emcp', 1), (2, 'emcp_manage', 1), (3, 'emcp_dispatch', 1), (4, 'emcp', 3),
  (5, 'access_permissions', 1), (6, 'access_permissions', 2), (7, 'access_permissions', 3);
