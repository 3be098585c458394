//! The statements that list what a shard's database consists of, good from PostgreSQL 13 on. Each gives rows of one form: kind, object
//! in words, schema and name of the table it belongs to, the object it is part of, what makes two of them the same, what must stay the
//! same for a replacement in place, the statements that create it, those that bring one of another definition to it, and those that
//! do where the form differs. They run under an empty search_path, so that every printed name has its schema.

/// Relations that are part of an extension come and go with it.
macro_rules! not_of_extension {
    ($class:literal, $oid:literal) => {
        concat!(
            "NOT EXISTS (SELECT FROM pg_depend x WHERE x.classid = '",
            $class,
            "'::regclass AND x.objid = ",
            $oid,
            " AND x.deptype = 'e')"
        )
    };
}

macro_rules! user_schema {
    () => {
        "n.nspname NOT IN ('pg_catalog', 'information_schema') AND n.nspname !~ '^pg_(toast|temp)'"
    };
}

/// Extensions and schemas.
pub(super) const DATABASE: &str = concat!(
    "
SELECT 'extension', 'extension ' || e.extname, NULL::text, NULL::text, NULL::text, 'version ' || e.extversion, '',
    ARRAY[format('CREATE EXTENSION %I WITH SCHEMA %I VERSION %L', e.extname, n.nspname, e.extversion)],
    ARRAY[format('ALTER EXTENSION %I UPDATE TO %L', e.extname, e.extversion)], '{}'::text[]
FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace
UNION ALL
SELECT 'schema', 'schema ' || n.nspname, NULL, NULL, NULL, 'a schema', '', ARRAY[format('CREATE SCHEMA %I', n.nspname)], '{}', '{}'
FROM pg_namespace n WHERE ",
    user_schema!(),
    " AND ",
    not_of_extension!("pg_namespace", "n.oid")
);

/// Enums, domains, composites, ranges. An enum grows in place, the other ones must be made anew.
pub(super) const TYPES: &str = concat!(
    "
SELECT CASE t.typtype WHEN 'e' THEN 'enum' ELSE 'type' END, concat('type ', n.nspname, '.', t.typname), NULL::text, NULL::text,
    NULL::text,
    CASE t.typtype
    WHEN 'e' THEN 'enum (' || e.labels || ')'
    WHEN 'd' THEN concat('domain over ', format_type(t.typbasetype, t.typtypmod), CASE WHEN t.typnotnull THEN ' NOT NULL' END,
        ' DEFAULT ' || t.typdefault)
    WHEN 'r' THEN 'range of ' || format_type(r.rngsubtype, NULL)
    ELSE 'composite (' || coalesce(a.fields, '') || ')' END, '',
    ARRAY[format('CREATE %s %I.%I AS %s', CASE t.typtype WHEN 'd' THEN 'DOMAIN' ELSE 'TYPE' END, n.nspname, t.typname,
        CASE t.typtype
        WHEN 'e' THEN 'ENUM (' || e.labels || ')'
        WHEN 'd' THEN concat(format_type(t.typbasetype, t.typtypmod), ' DEFAULT ' || t.typdefault,
            CASE WHEN t.typnotnull THEN ' NOT NULL' END)
        WHEN 'r' THEN format('RANGE (SUBTYPE = %s)', format_type(r.rngsubtype, NULL))
        ELSE '(' || coalesce(a.fields, '') || ')' END)],
    CASE WHEN t.typtype = 'e' THEN e.additions ELSE '{}'::text[] END, '{}'::text[]
FROM pg_type t JOIN pg_namespace n ON n.oid = t.typnamespace
    LEFT JOIN pg_range r ON r.rngtypid = t.oid
    LEFT JOIN pg_class c ON c.oid = t.typrelid
    LEFT JOIN LATERAL (
        SELECT string_agg(quote_literal(l.enumlabel), ', ' ORDER BY l.enumsortorder) AS labels,
            coalesce(array_agg(format('ALTER TYPE %I.%I ADD VALUE IF NOT EXISTS %L AFTER %L', n.nspname, t.typname, l.enumlabel,
                l.before) ORDER BY l.enumsortorder) FILTER (WHERE l.before IS NOT NULL), '{}') AS additions
        FROM (SELECT enumlabel, enumsortorder, lag(enumlabel) OVER (ORDER BY enumsortorder) AS before
              FROM pg_enum WHERE enumtypid = t.oid) l) e ON t.typtype = 'e'
    LEFT JOIN LATERAL (
        SELECT string_agg(format('%I %s', attname, format_type(atttypid, atttypmod)), ', ' ORDER BY attnum) AS fields
        FROM pg_attribute WHERE attrelid = t.typrelid AND attnum > 0 AND NOT attisdropped) a ON t.typtype = 'c'
WHERE (t.typtype IN ('e', 'd', 'r') OR (t.typtype = 'c' AND c.relkind = 'c')) AND ",
    user_schema!(),
    " AND ",
    not_of_extension!("pg_type", "t.oid"),
    "
UNION ALL
SELECT 'domain constraint', concat('constraint ', k.conname, ' of domain ', n.nspname, '.', t.typname), NULL, NULL,
    concat('type ', n.nspname, '.', t.typname), pg_get_constraintdef(k.oid), '',
    ARRAY[format('ALTER DOMAIN %I.%I ADD CONSTRAINT %I %s', n.nspname, t.typname, k.conname, pg_get_constraintdef(k.oid))],
    ARRAY[format('ALTER DOMAIN %I.%I DROP CONSTRAINT %I', n.nspname, t.typname, k.conname),
          format('ALTER DOMAIN %I.%I ADD CONSTRAINT %I %s', n.nspname, t.typname, k.conname, pg_get_constraintdef(k.oid))], '{}'
FROM pg_constraint k JOIN pg_type t ON t.oid = k.contypid JOIN pg_namespace n ON n.oid = t.typnamespace
WHERE k.contype = 'c' AND ",
    user_schema!(),
    " AND ",
    not_of_extension!("pg_type", "t.oid")
);

/// Those behind identity columns come with their column. Where a sequence starts may well differ from shard to shard.
pub(super) const SEQUENCES: &str = concat!(
    "
SELECT 'sequence', concat('sequence ', n.nspname, '.', c.relname), o.nspname::text, o.relname::text, NULL::text,
    concat(format_type(s.seqtypid, NULL), ' by ', s.seqincrement, CASE WHEN s.seqcycle THEN ' cycle' END), '',
    ARRAY[format('CREATE SEQUENCE %I.%I AS %s INCREMENT BY %s%s', n.nspname, c.relname, format_type(s.seqtypid, NULL),
        s.seqincrement, CASE WHEN s.seqcycle THEN ' CYCLE' END)],
    ARRAY[format('ALTER SEQUENCE %I.%I AS %s INCREMENT BY %s %sCYCLE', n.nspname, c.relname, format_type(s.seqtypid, NULL),
        s.seqincrement, CASE WHEN s.seqcycle THEN '' ELSE 'NO ' END)], '{}'::text[]
FROM pg_sequence s JOIN pg_class c ON c.oid = s.seqrelid JOIN pg_namespace n ON n.oid = c.relnamespace
    LEFT JOIN LATERAL (
        SELECT d.deptype, w.relname, v.nspname FROM pg_depend d JOIN pg_class w ON w.oid = d.refobjid
            JOIN pg_namespace v ON v.oid = w.relnamespace
        WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.refclassid = 'pg_class'::regclass AND d.deptype IN ('a', 'i')
        LIMIT 1) o ON true
WHERE o.deptype IS DISTINCT FROM 'i' AND ",
    user_schema!(),
    " AND ",
    not_of_extension!("pg_class", "c.oid")
);

/// Tables with their columns; partitions have those of their parents.
pub(super) const TABLES: &str = concat!(
    "
WITH tables AS (
    SELECT c.oid, n.nspname, c.relname, c.relkind, c.relispartition, c.relrowsecurity, c.relforcerowsecurity,
        (SELECT string_agg(i.inhparent::regclass::text, ', ' ORDER BY i.inhseqno) FROM pg_inherits i WHERE i.inhrelid = c.oid) AS parents,
        (SELECT concat('table ', k.nspname, '.', p.relname) FROM pg_inherits i JOIN pg_class p ON p.oid = i.inhparent
            JOIN pg_namespace k ON k.oid = p.relnamespace WHERE i.inhrelid = c.oid ORDER BY i.inhseqno LIMIT 1) AS parent,
        pg_get_expr(c.relpartbound, c.oid) AS bound,
        CASE WHEN c.relkind = 'p' THEN ' PARTITION BY ' || pg_get_partkeydef(c.oid) END AS partitioned
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE c.relkind IN ('r', 'p', 'f') AND ",
    user_schema!(),
    " AND ",
    not_of_extension!("pg_class", "c.oid"),
    "),
columns AS (
    SELECT t.oid, t.nspname, t.relname, a.attname, a.attnum, a.attnotnull, a.attidentity, a.attgenerated,
        concat(format_type(a.atttypid, a.atttypmod), CASE WHEN a.attcollation <> y.typcollation THEN
            (SELECT format(' COLLATE %I.%I', k.nspname, o.collname) FROM pg_collation o JOIN pg_namespace k ON k.oid = o.collnamespace
             WHERE o.oid = a.attcollation) END) AS type,
        pg_get_expr(d.adbin, d.adrelid) AS value,
        CASE a.attidentity WHEN 'a' THEN ' GENERATED ALWAYS AS IDENTITY' WHEN 'd' THEN ' GENERATED BY DEFAULT AS IDENTITY' END AS identity
    FROM tables t JOIN pg_attribute a ON a.attrelid = t.oid AND a.attnum > 0 AND NOT a.attisdropped
        JOIN pg_type y ON y.oid = a.atttypid LEFT JOIN pg_attrdef d ON d.adrelid = t.oid AND d.adnum = a.attnum),
written AS (
    SELECT c.*, concat('column ', c.nspname, '.', c.relname, '.', c.attname) AS object,
        format('ALTER TABLE %I.%I ALTER COLUMN %I', c.nspname, c.relname, c.attname) AS alter,
        concat(quote_ident(c.attname), ' ', c.type, CASE WHEN c.attgenerated = 's' THEN ' GENERATED ALWAYS AS (' || c.value || ') STORED'
            ELSE ' DEFAULT ' || c.value END, c.identity, CASE WHEN c.attnotnull THEN ' NOT NULL' END) AS whole
    FROM columns c)
SELECT 'table', concat('table ', t.nspname, '.', t.relname), t.nspname::text, t.relname::text, t.parent,
    concat(CASE t.relkind WHEN 'f' THEN 'a foreign table' ELSE 'a table' END, lower(t.partitioned), ' below ' || t.parents, ' ' || t.bound), '',
    CASE WHEN t.relkind = 'f' THEN '{}'::text[]
    WHEN t.relispartition THEN ARRAY[format('CREATE TABLE %I.%I PARTITION OF %s %s%s', t.nspname, t.relname, t.parents, t.bound, t.partitioned)]
    ELSE ARRAY[format('CREATE TABLE %I.%I (%s)%s%s', t.nspname, t.relname,
        (SELECT string_agg(w.whole, ', ' ORDER BY w.attnum) FROM written w WHERE w.oid = t.oid), ' INHERITS (' || t.parents || ')',
        t.partitioned)] END,
    '{}'::text[], '{}'::text[]
FROM tables t
UNION ALL
SELECT 'row security', concat('row security of table ', t.nspname, '.', t.relname), t.nspname, t.relname,
    concat('table ', t.nspname, '.', t.relname),
    concat(CASE WHEN t.relrowsecurity THEN 'enabled' ELSE 'disabled' END, CASE WHEN t.relforcerowsecurity THEN ', forced' END), '', '{}',
    ARRAY[format('ALTER TABLE %I.%I %s ROW LEVEL SECURITY, %s ROW LEVEL SECURITY', t.nspname, t.relname,
        CASE WHEN t.relrowsecurity THEN 'ENABLE' ELSE 'DISABLE' END, CASE WHEN t.relforcerowsecurity THEN 'FORCE' ELSE 'NO FORCE' END)], '{}'
FROM tables t
UNION ALL
SELECT 'column order', concat('order of the columns of table ', t.nspname, '.', t.relname), t.nspname, t.relname,
    concat('table ', t.nspname, '.', t.relname),
    (SELECT string_agg(w.attname, ', ' ORDER BY w.attnum) FROM written w WHERE w.oid = t.oid),
    (SELECT string_agg(w.attname, ', ' ORDER BY w.attname) FROM written w WHERE w.oid = t.oid), '{}', '{}', '{}'
FROM tables t
UNION ALL
SELECT 'column', w.object, w.nspname, w.relname, concat('table ', w.nspname, '.', w.relname), w.type, '',
    ARRAY[format('ALTER TABLE %I.%I ADD COLUMN %s', w.nspname, w.relname, w.whole)],
    ARRAY[format('%s TYPE %s USING %I::%s', w.alter, w.type, w.attname, regexp_replace(w.type, ' COLLATE .*', ''))], '{}'
FROM written w JOIN tables t ON t.oid = w.oid WHERE NOT t.relispartition
UNION ALL
SELECT 'nullability', 'nullability of ' || w.object, w.nspname, w.relname, w.object,
    CASE WHEN w.attnotnull THEN 'NOT NULL' ELSE 'NULL' END, '', '{}',
    ARRAY[format('%s %s NOT NULL', w.alter, CASE WHEN w.attnotnull THEN 'SET' ELSE 'DROP' END)], '{}'
FROM written w
UNION ALL
SELECT 'default', 'default of ' || w.object, w.nspname, w.relname, w.object,
    CASE WHEN w.attgenerated <> '' THEN 'generated: ' || w.value ELSE coalesce(w.value, 'none') END, '', '{}',
    CASE WHEN w.attgenerated <> '' THEN '{}' WHEN w.value IS NULL THEN ARRAY[w.alter || ' DROP DEFAULT']
    ELSE ARRAY[concat(w.alter, ' SET DEFAULT ', w.value)] END, '{}'
FROM written w
UNION ALL
SELECT 'identity', 'identity of ' || w.object, w.nspname, w.relname, w.object, coalesce(ltrim(w.identity), 'none'), coalesce(w.identity, ''), '{}',
    '{}', CASE WHEN w.identity IS NULL THEN ARRAY[w.alter || ' DROP IDENTITY'] ELSE ARRAY[
        w.alter || ' DROP IDENTITY IF EXISTS', concat(w.alter, ' ADD', w.identity)] END
FROM written w"
);

/// Those behind constraints come with them, those of partitions with the index of their parent. What is compared has no name.
pub(super) const INDEXES: &str = concat!(
    "
WITH indexes AS (
    SELECT n.nspname, c.relname AS name, t.relname, v.nspname AS table_schema, i.indisvalid, c.relkind,
        -- ONLY would leave an index without those of the partitions, and invalid.
        regexp_replace(pg_get_indexdef(i.indexrelid), CASE c.relkind WHEN 'I' THEN ' ON ONLY ' ELSE '^$' END, ' ON ') AS statement
    FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_namespace n ON n.oid = c.relnamespace
        JOIN pg_class t ON t.oid = i.indrelid JOIN pg_namespace v ON v.oid = t.relnamespace
    WHERE t.relkind IN ('r', 'p', 'm') AND NOT c.relispartition
        AND NOT EXISTS (SELECT FROM pg_constraint k WHERE k.conindid = i.indexrelid AND k.contype IN ('p', 'u', 'x')) AND ",
    user_schema!(),
    " AND ",
    not_of_extension!("pg_class", "c.oid"),
    ")
SELECT 'index', concat('index ', nspname, '.', name), table_schema::text, relname::text, concat('table ', table_schema, '.', relname),
    replace(statement, format('INDEX %I ON', name), 'INDEX ON'), '', ARRAY[statement],
    ARRAY[format('DROP INDEX %I.%I', nspname, name), statement], '{}'::text[]
FROM indexes
UNION ALL
SELECT 'index state', concat('state of index ', nspname, '.', name), table_schema, relname, concat('index ', nspname, '.', name),
    CASE WHEN indisvalid THEN 'valid' ELSE 'invalid' END, '', '{}', CASE relkind WHEN 'I' THEN ARRAY[format('DROP INDEX %I.%I', nspname, name), statement]
    ELSE ARRAY[format('REINDEX INDEX %I.%I', nspname, name)] END, '{}'
FROM indexes"
);

/// Those of tables, not those inherited: they come with their parent's.
pub(super) const CONSTRAINTS: &str = concat!(
    "
SELECT CASE WHEN k.contype = 'f' THEN 'foreign key' ELSE 'constraint' END,
    concat('constraint ', k.conname, ' of table ', n.nspname, '.', c.relname), n.nspname::text, c.relname::text,
    concat('table ', n.nspname, '.', c.relname), replace(d.text, ' NOT VALID', ''), '',
    ARRAY[format('ALTER TABLE %I.%I ADD CONSTRAINT %I %s', n.nspname, c.relname, k.conname, d.text)],
    ARRAY[format('ALTER TABLE %I.%I DROP CONSTRAINT %I, ADD CONSTRAINT %I %s', n.nspname, c.relname, k.conname, k.conname, d.text)],
    '{}'::text[]
FROM pg_constraint k JOIN pg_class c ON c.oid = k.conrelid JOIN pg_namespace n ON n.oid = c.relnamespace,
    LATERAL pg_get_constraintdef(k.oid) d(text)
WHERE k.contype IN ('p', 'u', 'x', 'c', 'f') AND k.coninhcount = 0 AND k.conparentid = 0 AND ",
    user_schema!(),
    " AND ",
    not_of_extension!("pg_class", "c.oid"),
    "
UNION ALL
SELECT 'validation', concat('validation of constraint ', k.conname, ' of table ', n.nspname, '.', c.relname), n.nspname, c.relname,
    concat('constraint ', k.conname, ' of table ', n.nspname, '.', c.relname),
    CASE WHEN k.convalidated THEN 'validated' ELSE 'not validated' END, '', '{}',
    CASE WHEN k.convalidated THEN ARRAY[format('ALTER TABLE %I.%I VALIDATE CONSTRAINT %I', n.nspname, c.relname, k.conname)]
    ELSE '{}' END, '{}'
FROM pg_constraint k JOIN pg_class c ON c.oid = k.conrelid JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE k.contype IN ('c', 'f') AND k.coninhcount = 0 AND k.conparentid = 0 AND ",
    user_schema!()
);

/// CREATE OR REPLACE keeps a view's columns.
pub(super) const VIEWS: &str = concat!(
    "
SELECT 'view', concat(CASE c.relkind WHEN 'm' THEN 'materialized view ' ELSE 'view ' END, n.nspname, '.', c.relname),
    CASE c.relkind WHEN 'm' THEN n.nspname::text END, CASE c.relkind WHEN 'm' THEN c.relname::text END, NULL::text,
    concat(o.options, d.text),
    (SELECT string_agg(concat(a.attname, ' ', format_type(a.atttypid, a.atttypmod)), ', ' ORDER BY a.attnum) FROM pg_attribute a
     WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped) || c.relkind::text,
    ARRAY[format('CREATE %sVIEW %I.%I%s AS%s', m.word, n.nspname, c.relname, o.options, d.text)],
    CASE c.relkind WHEN 'v' THEN ARRAY[format('CREATE OR REPLACE VIEW %I.%I%s AS%s', n.nspname, c.relname, o.options, d.text)]
    ELSE r.anew END, r.anew
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace,
    LATERAL (SELECT rtrim(pg_get_viewdef(c.oid), ';')) d(text),
    LATERAL (SELECT ' WITH (' || array_to_string(c.reloptions, ', ') || ')') o(options),
    LATERAL (SELECT CASE c.relkind WHEN 'm' THEN 'MATERIALIZED ' ELSE '' END) m(word),
    LATERAL (SELECT ARRAY[format('DROP %sVIEW %I.%I', m.word, n.nspname, c.relname),
        format('CREATE %sVIEW %I.%I%s AS%s', m.word, n.nspname, c.relname, o.options, d.text)]) r(anew)
WHERE c.relkind IN ('v', 'm') AND ",
    user_schema!(),
    " AND ",
    not_of_extension!("pg_class", "c.oid")
);

/// CREATE OR REPLACE keeps a function's arguments and result.
pub(super) const FUNCTIONS: &str = concat!(
    "
SELECT 'function', concat('function ', n.nspname, '.', p.proname, '(', a.identity, ')'), NULL::text, NULL::text, NULL::text,
    d.text, concat(pg_get_function_result(p.oid), ' ', pg_get_function_arguments(p.oid), ' ', p.prokind), ARRAY[d.text],
    CASE p.prokind WHEN 'a' THEN r.anew ELSE ARRAY[d.text] END, r.anew
FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace LEFT JOIN pg_aggregate g ON g.aggfnoid = p.oid,
    LATERAL pg_get_function_identity_arguments(p.oid) a(identity),
    LATERAL (SELECT CASE WHEN p.prokind <> 'a' THEN rtrim(pg_get_functiondef(p.oid), E'\\n')
        ELSE format('CREATE AGGREGATE %I.%I(%s) (SFUNC = %s, STYPE = %s%s%s%s%s%s)', n.nspname, p.proname, a.identity,
            g.aggtransfn::regproc, format_type(g.aggtranstype, NULL),
            CASE WHEN g.aggfinalfn <> 0 THEN format(', FINALFUNC = %s', g.aggfinalfn::regproc) END,
            CASE WHEN g.aggcombinefn <> 0 THEN format(', COMBINEFUNC = %s', g.aggcombinefn::regproc) END,
            format(', INITCOND = %L', g.agginitval),
            CASE WHEN g.aggkind = 'h' THEN ', HYPOTHETICAL' END,
            format(', PARALLEL = %s', CASE p.proparallel WHEN 's' THEN 'SAFE' WHEN 'r' THEN 'RESTRICTED' ELSE 'UNSAFE' END)) END) d(text),
    LATERAL (SELECT ARRAY[format('DROP %s %I.%I(%s)',
        CASE p.prokind WHEN 'a' THEN 'AGGREGATE' WHEN 'p' THEN 'PROCEDURE' ELSE 'FUNCTION' END, n.nspname, p.proname, a.identity),
        d.text]) r(anew)
WHERE ",
    user_schema!(),
    " AND ",
    not_of_extension!("pg_proc", "p.oid")
);

/// Triggers and policies of tables.
pub(super) const TRIGGERS: &str = concat!(
    "
WITH triggers AS (
    SELECT n.nspname, c.relname, t.tgname, t.tgenabled, pg_get_triggerdef(t.oid) AS statement,
        concat('trigger ', t.tgname, ' of table ', n.nspname, '.', c.relname) AS object
    FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE NOT t.tgisinternal AND t.tgparentid = 0 AND ",
    user_schema!(),
    ")
SELECT 'trigger', object, nspname::text, relname::text, concat('table ', nspname, '.', relname), statement, '', ARRAY[statement],
    ARRAY[format('DROP TRIGGER %I ON %I.%I', tgname, nspname, relname), statement], '{}'::text[]
FROM triggers
UNION ALL
SELECT 'trigger state', 'state of ' || object, nspname, relname, object,
    CASE tgenabled WHEN 'D' THEN 'disabled' WHEN 'A' THEN 'always' WHEN 'R' THEN 'on replicas' ELSE 'enabled' END, '', '{}',
    ARRAY[format('ALTER TABLE %I.%I %s TRIGGER %I', nspname, relname, CASE tgenabled WHEN 'D' THEN 'DISABLE' WHEN 'A' THEN 'ENABLE ALWAYS'
        WHEN 'R' THEN 'ENABLE REPLICA' ELSE 'ENABLE' END, tgname)], '{}'
FROM triggers
UNION ALL
SELECT 'policy', concat('policy ', p.policyname, ' of table ', p.schemaname, '.', p.tablename), p.schemaname, p.tablename,
    concat('table ', p.schemaname, '.', p.tablename), d.text, '',
    ARRAY[format('CREATE POLICY %I ON %I.%I', p.policyname, p.schemaname, p.tablename) || d.text],
    ARRAY[format('DROP POLICY %I ON %I.%I', p.policyname, p.schemaname, p.tablename),
          format('CREATE POLICY %I ON %I.%I', p.policyname, p.schemaname, p.tablename) || d.text], '{}'
FROM pg_policies p, LATERAL (SELECT concat(' AS ', p.permissive, ' FOR ', p.cmd, ' TO ',
    (SELECT string_agg(CASE r WHEN 'public' THEN 'PUBLIC' ELSE quote_ident(r) END, ', ') FROM unnest(p.roles) r),
    ' USING (' || p.qual || ')', ' WITH CHECK (' || p.with_check || ')')) d(text)"
);

/// What roles other than the owner may do. `replace` takes everything from the role.
pub(super) const PRIVILEGES: &str = concat!(
    "
WITH objects AS (
    SELECT CASE c.relkind WHEN 'S' THEN 'sequence ' WHEN 'v' THEN 'view ' WHEN 'm' THEN 'materialized view ' ELSE 'table ' END AS word,
        CASE c.relkind WHEN 'S' THEN 'SEQUENCE' ELSE 'TABLE' END AS keyword, concat(n.nspname, '.', c.relname) AS title,
        format('%I.%I', n.nspname, c.relname) AS name, CASE WHEN c.relkind IN ('r', 'p', 'f', 'm') THEN n.nspname::text END AS schema,
        CASE WHEN c.relkind IN ('r', 'p', 'f', 'm') THEN c.relname::text END AS relation, c.relowner AS owner,
        coalesce(c.relacl, acldefault(CASE c.relkind WHEN 'S' THEN 's'::\"char\" ELSE 'r' END, c.relowner)) AS acl
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE c.relkind IN ('r', 'p', 'f', 'm', 'v', 'S') AND ",
    user_schema!(),
    " AND ",
    not_of_extension!("pg_class", "c.oid"),
    "
    UNION ALL SELECT 'schema ', 'SCHEMA', n.nspname, format('%I', n.nspname), NULL, NULL, n.nspowner,
        coalesce(n.nspacl, acldefault('n', n.nspowner))
    FROM pg_namespace n WHERE ",
    user_schema!(),
    " AND ",
    not_of_extension!("pg_namespace", "n.oid"),
    "
    UNION ALL SELECT 'function ', 'ROUTINE', concat(n.nspname, '.', p.proname, '(', pg_get_function_identity_arguments(p.oid), ')'),
        format('%I.%I(%s)', n.nspname, p.proname, pg_get_function_identity_arguments(p.oid)), NULL, NULL, p.proowner,
        coalesce(p.proacl, acldefault('f', p.proowner))
    FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace WHERE ",
    user_schema!(),
    " AND ",
    not_of_extension!("pg_proc", "p.oid"),
    "),
grants AS (
    SELECT o.*, g.role, g.quoted, g.list
    FROM objects o, LATERAL (
        SELECT coalesce(r.rolname::text, 'PUBLIC') AS role, coalesce(quote_ident(r.rolname), 'PUBLIC') AS quoted,
            string_agg(a.privilege_type, ', ' ORDER BY a.privilege_type) AS list
        FROM aclexplode(o.acl) a LEFT JOIN pg_roles r ON r.oid = a.grantee
        WHERE a.grantee <> o.owner GROUP BY 1, 2) g)
SELECT 'privileges', concat('privileges of ', role, ' on ', word, title), schema, relation, concat(word, title), list, '',
    ARRAY[format('GRANT %s ON %s %s TO %s', list, keyword, name, quoted)],
    ARRAY[format('REVOKE ALL ON %s %s FROM %s', keyword, name, quoted)], '{}'::text[]
FROM grants"
);

/// Roles, but PostgreSQL's own; only those that clients work as are compared.
pub(super) const ROLES: &str = "
SELECT 'role', concat('role ', r.rolname), NULL::text, NULL::text, NULL::text, concat(f.flags, ' member of ' || m.list), '',
    ARRAY[concat('CREATE ROLE ', quote_ident(r.rolname), ' ', f.flags, ' IN ROLE ' || m.list)],
    ARRAY[concat('ALTER ROLE ', quote_ident(r.rolname), ' ', f.flags)]
        || CASE WHEN m.list IS NULL THEN '{}'::text[] ELSE ARRAY[format('GRANT %s TO %I', m.list, r.rolname)] END, '{}'::text[]
FROM pg_roles r,
    LATERAL (SELECT concat_ws(' ', CASE WHEN r.rolcanlogin THEN 'LOGIN' ELSE 'NOLOGIN' END,
        CASE WHEN r.rolsuper THEN 'SUPERUSER' ELSE 'NOSUPERUSER' END, CASE WHEN r.rolinherit THEN 'INHERIT' ELSE 'NOINHERIT' END,
        CASE WHEN r.rolbypassrls THEN 'BYPASSRLS' ELSE 'NOBYPASSRLS' END)) f(flags),
    LATERAL (SELECT string_agg(quote_ident(g.rolname), ', ' ORDER BY g.rolname) FROM pg_auth_members a JOIN pg_roles g ON g.oid = a.roleid
        WHERE a.member = r.oid) m(list)
WHERE r.rolname !~ '^pg_'";

/// Name, value, source and context of settings.
pub(super) const SETTINGS: &str = "
SELECT name, current_setting(name), source, context FROM pg_settings WHERE name = ANY ($1) ORDER BY name";

/// 150002 for 15.2.
pub(super) const SERVER_VERSION: &str = "SELECT current_setting('server_version_num')::int4";

/// The database's own collation: name in words, version recorded, version at hand, what records it anew. Since PostgreSQL 15.
pub(super) const DEFAULT_COLLATION_VERSION: &str = "
SELECT 'default collation', datcollversion, pg_database_collation_actual_version(oid),
    ARRAY[format('REINDEX DATABASE %I', datname), format('ALTER DATABASE %I REFRESH COLLATION VERSION', datname)]
FROM pg_database WHERE datname = current_database() AND datcollversion IS NOT NULL";

/// The same of other collations in use whose order depends on a library.
pub(super) const COLLATION_VERSIONS: &str = "
SELECT concat('collation ', n.nspname, '.', c.collname), c.collversion, pg_collation_actual_version(c.oid),
    ARRAY(SELECT DISTINCT format('REINDEX TABLE %s', a.attrelid::regclass) FROM pg_attribute a JOIN pg_class r ON r.oid = a.attrelid
          WHERE a.attcollation = c.oid AND r.relkind IN ('r', 'p', 'm') ORDER BY 1)
    || format('ALTER COLLATION %I.%I REFRESH VERSION', n.nspname, c.collname)
FROM pg_collation c JOIN pg_namespace n ON n.oid = c.collnamespace
WHERE c.collversion IS NOT NULL AND (c.oid >= 16384 OR EXISTS (
    SELECT FROM pg_attribute a JOIN pg_class r ON r.oid = a.attrelid JOIN pg_namespace s ON s.oid = r.relnamespace
    WHERE a.attcollation = c.oid AND r.relkind IN ('r', 'p', 'm', 'i') AND s.nspname NOT IN ('pg_catalog', 'information_schema')
        AND s.nspname !~ '^pg_(toast|temp)'))
ORDER BY 1";

/// Tables whose rows can be looked at: kind, size in blocks with all partitions, columns, and what a key must be known by.
pub(super) const ROWS: &str = concat!(
    "
SELECT n.nspname::text, c.relname::text, c.relkind::text, c.relispartition OR EXISTS (SELECT FROM pg_inherits i WHERE i.inhrelid = c.oid),
    (coalesce((SELECT sum(pg_relation_size(p.relid)) FROM pg_partition_tree(c.oid) p), pg_relation_size(c.oid))
        / current_setting('block_size')::int8)::int8,
    a.names, a.type_oids, a.types, a.deterministic, a.stored,
    coalesce((SELECT array_agg(k.attname::text ORDER BY u.place) FROM pg_index i, unnest(i.indkey::int2[]) WITH ORDINALITY u(number, place)
        JOIN pg_attribute k ON k.attrelid = c.oid AND k.attnum = u.number
        WHERE i.indrelid = c.oid AND i.indisprimary), '{}'),
    EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attidentity = 'a')
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace,
    LATERAL (SELECT coalesce(array_agg(a.attname::text ORDER BY a.attnum), '{}'), coalesce(array_agg(a.atttypid ORDER BY a.attnum), '{}'),
        coalesce(array_agg(format_type(a.atttypid, a.atttypmod) ORDER BY a.attnum), '{}'),
        coalesce(array_agg(coalesce(o.collisdeterministic, true) ORDER BY a.attnum), '{}'),
        coalesce(array_agg(a.attgenerated = '' ORDER BY a.attnum), '{}')
        FROM pg_attribute a LEFT JOIN pg_collation o ON o.oid = a.attcollation
        WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped) a(names, type_oids, types, deterministic, stored)
WHERE c.relkind IN ('r', 'p', 'm') AND has_table_privilege(c.oid, 'SELECT') AND ",
    user_schema!(),
    " AND ",
    not_of_extension!("pg_class", "c.oid"),
    "
ORDER BY 1, 2"
);
