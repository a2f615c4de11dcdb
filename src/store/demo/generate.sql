-- A tree of {documents} documents in which each has up to ten children: number n hangs under (n - 1) / 10.
WITH RECURSIVE numbers (n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM numbers WHERE n + 1 < {documents})
INSERT INTO {p}site_content (id, parent, menuindex, pagetitle, alias, published, isfolder, template, createdon, editedon)
SELECT
  {first} + n,
  CASE n WHEN 0 THEN 0 ELSE {first} + (n - 1) / 10 END,
  CASE n WHEN 0 THEN 1000 ELSE (n - 1) % 10 END,
  'Document ' || n,
  'document-' || n,
  1,
  n * 10 + 1 < {documents},
  1 + n % 2,
  1700000000 + n,
  1700000000 + n
FROM numbers;
