//! The statements that read a shard's catalog, good from PostgreSQL 13 on: columns that newer versions added are taken out of
//! `to_jsonb(row)`, where they are NULL before. `$1` is true on the catalog shard, which is read with its system objects.

use tokio_postgres::types::{ToSql, Type as SqlType};

/// What a new session finds, before the path is emptied, and a digest of what decides which schemas a role may look into.
pub(super) const SESSION: &str = "
SELECT current_setting('server_version'), current_setting('server_version_num')::int4, current_schemas(false)::text[],
    md5(concat((SELECT string_agg(concat_ws(' ', nspname, nspowner, nspacl), ',' ORDER BY nspname) FROM pg_namespace
            WHERE nspname NOT LIKE 'pg\\_%'),
        (SELECT string_agg(concat_ws(' ', roleid, member), ',' ORDER BY roleid, member) FROM pg_auth_members))),
    current_setting('default_transaction_isolation')";

/// An empty path makes the server print every name with its schema; the limits keep a locked table from stopping the catalog.
pub(super) const PREPARE: &str = "
SET LOCAL search_path = ''; SET LOCAL lock_timeout = '5s'; SET LOCAL statement_timeout = '30s'";

/// Settings in which results differ when they differ. TimeZone and its like are the login role's defaults here.
pub const RESULT_SETTINGS: [&str; 17] = [
    "server_encoding",
    "integer_datetimes",
    "standard_conforming_strings",
    "lc_monetary",
    "lc_numeric",
    "lc_time",
    "TimeZone",
    "timezone_abbreviations",
    "DateStyle",
    "IntervalStyle",
    "bytea_output",
    "extra_float_digits",
    "xmlbinary",
    "xmloption",
    "array_nulls",
    "transform_null_equals",
    "default_text_search_config",
];

/// Their names as a parameter.
pub(super) fn result_settings() -> [(&'static (dyn ToSql + Sync), SqlType); 1] {
    [(&RESULT_SETTINGS, SqlType::TEXT_ARRAY)]
}

/// Those settings; `$1` are their names.
pub(super) const SETTINGS: &str =
    "SELECT name, setting FROM pg_settings WHERE name = ANY ($1) ORDER BY name";

/// Name, provider, locale, determinism, version, as `COLLATIONS` from its third column on. Before 15 no version is recorded for the
/// database: that of the same locale's collation stands in.
pub(super) const DEFAULT_COLLATION: &str = "
SELECT 'default', coalesce(j->>'datlocprovider', 'c'),
    CASE WHEN coalesce(j->>'datlocprovider', 'c') = 'c' THEN datcollate::text
         ELSE coalesce(j->>'datlocale', j->>'daticulocale', datcollate::text) END,
    true,
    CASE WHEN j ? 'datcollversion' THEN j->>'datcollversion'
         ELSE (SELECT min(collversion) FROM pg_collation WHERE collprovider = 'c' AND collcollate = datcollate) END
FROM (SELECT datcollate, to_jsonb(d) AS j FROM pg_database d WHERE datname = current_database()) d";

/// A true array is what its element type names as its array; point and name have elements, too.
pub(super) const TYPES: &str = "
SELECT t.oid, n.nspname::text, t.typname::text, t.typtype::text,
    CASE WHEN e.oid IS NULL THEN 0::oid ELSE t.typelem END, t.typarray, t.typbasetype,
    coalesce(r.rngsubtype, CASE WHEN t.typtype = 'm' THEN
        (SELECT m.rngtypid FROM pg_range m WHERE (to_jsonb(m)->>'rngmultitypid')::oid = t.oid) END, 0::oid),
    t.typcollation <> 0,
    CASE WHEN t.typtype = 'e' THEN
        ARRAY(SELECT enumlabel::text FROM pg_enum WHERE enumtypid = t.oid ORDER BY enumsortorder) ELSE '{}'::text[] END,
    CASE WHEN t.typtype = 'c' THEN
        ARRAY(SELECT atttypid FROM pg_attribute WHERE attrelid = t.typrelid AND attnum > 0 AND NOT attisdropped ORDER BY attnum)
        ELSE '{}'::oid[] END,
    CASE WHEN n.nspname = 'pg_catalog' THEN ''
    WHEN t.typtype = 'e' THEN
        'enum ' || ARRAY(SELECT enumlabel::text FROM pg_enum WHERE enumtypid = t.oid ORDER BY enumsortorder)::text
    WHEN t.typtype = 'd' THEN concat_ws(' ', 'domain', format_type(t.typbasetype, t.typtypmod), t.typnotnull,
        (SELECT string_agg(pg_get_constraintdef(k.oid), ' ' ORDER BY k.conname) FROM pg_constraint k WHERE k.contypid = t.oid))
    WHEN t.typtype = 'r' THEN 'range ' || format_type(r.rngsubtype, NULL)
    WHEN t.typtype = 'c' AND c.relkind = 'c' THEN 'composite ' ||
        ARRAY(SELECT concat_ws(' ', attname, format_type(atttypid, atttypmod)) FROM pg_attribute
              WHERE attrelid = t.typrelid AND attnum > 0 AND NOT attisdropped ORDER BY attnum)::text
    WHEN t.typtype = 'b' AND e.oid IS NULL THEN 'base ' || concat_ws(' ', t.typlen, t.typinput, t.typoutput)
    ELSE '' END,
    n.nspname <> 'pg_catalog' AND t.typtype IN ('b', 'c', 'e', 'r', 'm') AND e.oid IS NULL AND NOT EXISTS (
        SELECT FROM pg_cast k JOIN pg_type s ON s.oid = k.castsource JOIN pg_namespace o ON o.oid = s.typnamespace
        WHERE k.casttarget = t.oid AND k.castcontext = 'i' AND o.nspname = 'pg_catalog')
FROM pg_type t JOIN pg_namespace n ON n.oid = t.typnamespace
    LEFT JOIN pg_type e ON e.oid = t.typelem AND e.typarray = t.oid
    LEFT JOIN pg_range r ON r.rngtypid = t.oid
    LEFT JOIN pg_class c ON c.oid = t.typrelid
WHERE n.nspname NOT LIKE 'pg\\_toast%' AND n.nspname NOT LIKE 'pg\\_temp\\_%' AND ($1 OR n.nspname <> 'pg_catalog')
ORDER BY n.nspname, t.typname";

pub(super) const COLLATIONS: &str = "
SELECT c.oid, n.nspname::text, c.collname::text, c.collprovider::text,
    coalesce(j->>'colllocale', j->>'colliculocale', c.collcollate::text, ''), c.collisdeterministic, c.collversion
FROM (SELECT *, to_jsonb(c) AS j FROM pg_collation c) c JOIN pg_namespace n ON n.oid = c.collnamespace
WHERE c.collencoding IN (-1, pg_char_to_encoding('UTF8')) AND n.nspname NOT LIKE 'pg\\_temp\\_%'
ORDER BY n.nspname, c.collname";

/// Which rows of a table with row security somebody sees depends on the role; whoever reads a view of it has the view owner's eyes.
pub(super) const RELATIONS: &str = "
SELECT c.oid, n.nspname::text, c.relname::text, c.relkind::text,
    ARRAY(SELECT inhparent FROM pg_inherits WHERE inhrelid = c.oid ORDER BY inhseqno),
    CASE WHEN c.relkind IN ('v', 'm') AND n.nspname NOT IN ('pg_catalog', 'information_schema') THEN pg_get_viewdef(c.oid) END,
    c.relrowsecurity OR EXISTS (
        SELECT FROM pg_options_to_table(c.reloptions) WHERE option_name = 'security_barrier' AND option_value::bool)
    OR (c.relkind = 'v' AND EXISTS (
        SELECT FROM pg_rewrite w JOIN pg_depend d ON d.classid = 'pg_rewrite'::regclass AND d.objid = w.oid
            AND d.refclassid = 'pg_class'::regclass JOIN pg_class t ON t.oid = d.refobjid
        WHERE w.ev_class = c.oid AND t.relrowsecurity)),
    coalesce((SELECT i.indkey::int2[] FROM pg_index i WHERE i.indrelid = c.oid AND i.indisprimary), '{}'),
    c.reltuples::float8, c.relpages::float8,
    CASE WHEN c.relrowsecurity THEN ARRAY(
        SELECT x.expression FROM pg_policy p,
            LATERAL (VALUES (pg_get_expr(p.polqual, c.oid)), (pg_get_expr(p.polwithcheck, c.oid))) AS x(expression)
        WHERE p.polrelid = c.oid AND x.expression IS NOT NULL ORDER BY 1) ELSE '{}' END
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f') AND n.nspname NOT LIKE 'pg\\_toast%' AND n.nspname NOT LIKE 'pg\\_temp\\_%'
    AND ($1 OR n.nspname NOT IN ('pg_catalog', 'information_schema'))
ORDER BY n.nspname, c.relname";

pub(super) const ATTRIBUTES: &str = "
SELECT a.attrelid, a.attnum, a.attname::text, a.atttypid, a.atttypmod, format_type(a.atttypid, a.atttypmod), a.attnotnull,
    a.attcollation, coalesce(k.nspname || '.' || o.collname, '')
FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid JOIN pg_namespace n ON n.oid = c.relnamespace
    LEFT JOIN pg_collation o ON o.oid = a.attcollation LEFT JOIN pg_namespace k ON k.oid = o.collnamespace
WHERE a.attnum > 0 AND NOT a.attisdropped AND c.relkind IN ('r', 'p', 'v', 'm', 'f')
    AND n.nspname NOT LIKE 'pg\\_toast%' AND n.nspname NOT LIKE 'pg\\_temp\\_%'
    AND ($1 OR n.nspname NOT IN ('pg_catalog', 'information_schema'))
ORDER BY a.attrelid, a.attnum";

/// The last but one column is the source of user-defined functions, in which the names are looked for.
pub(super) const FUNCTIONS: &str = "
SELECT n.nspname::text, p.proname::text, p.prokind::text, p.provolatile::text, p.proisstrict, p.proargtypes::oid[], p.prorettype,
    p.proretset, l.lanname::text, p.provariadic <> 0, p.pronargdefaults,
    CASE WHEN n.nspname IN ('pg_catalog', 'information_schema') THEN NULL
    WHEN p.prokind = 'a' THEN (
        SELECT concat_ws(' ', a.aggtransfn, a.aggfinalfn, a.aggcombinefn, a.aggmtransfn, a.aggminvtransfn, a.aggmfinalfn)
        FROM pg_aggregate a WHERE a.aggfnoid = p.oid)
    WHEN l.lanname IN ('c', 'internal') THEN coalesce(pg_get_expr(p.proargdefaults, 0), '')
    WHEN l.lanname IN ('sql', 'plpgsql') THEN
        CASE WHEN p.prosrc = '' THEN substring(pg_get_functiondef(p.oid) from '\n(BEGIN ATOMIC.*|RETURN .*)$') ELSE p.prosrc END
        || E'\n;\n' || coalesce(pg_get_expr(p.proargdefaults, 0), '') END,
    ARRAY(SELECT coalesce(a.name, '') FROM unnest(p.proargmodes, p.proargnames) WITH ORDINALITY AS a(mode, name, position)
        WHERE a.mode IN ('o', 'b', 't') ORDER BY a.position)
FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace JOIN pg_language l ON l.oid = p.prolang
WHERE $1 AND n.nspname NOT LIKE 'pg\\_temp\\_%'
ORDER BY n.nspname, p.proname, p.oid";

/// User-defined functions by signature, with a digest of all that decides what they do.
pub(super) const BODIES: &str = "
SELECT p.proname::text, concat(n.nspname, '.', p.proname, '(', pg_get_function_identity_arguments(p.oid), ')'),
    md5(CASE WHEN p.prokind = 'a' THEN (
        SELECT concat_ws(' ', a.aggkind, a.aggtransfn::regprocedure, a.aggfinalfn, a.aggcombinefn, a.agginitval,
            a.aggsortop::regoperator, format_type(p.prorettype, NULL))
        FROM pg_aggregate a WHERE a.aggfnoid = p.oid)
    ELSE pg_get_functiondef(p.oid) END)
FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
WHERE n.nspname NOT IN ('pg_catalog', 'information_schema') AND n.nspname NOT LIKE 'pg\\_temp\\_%'
ORDER BY 2";

/// With what an operator takes, 0 where there is nothing on that side. A cast goes by the name of its type behind `::`; a domain's
/// runs what its constraints, and those of the domains below, name.
pub(super) const OPERATORS: &str = "
WITH RECURSIVE below AS (
    SELECT oid AS domain, oid AS base FROM pg_type WHERE typtype = 'd'
    UNION ALL SELECT b.domain, t.typbasetype FROM below b JOIN pg_type t ON t.oid = b.base WHERE t.typtype = 'd'),
checks AS (
    SELECT '::' || t.typname AS name, d.refclassid, d.refobjid
    FROM below b JOIN pg_type t ON t.oid = b.domain JOIN pg_constraint k ON k.contypid = b.base
        JOIN pg_depend d ON d.classid = 'pg_constraint'::regclass AND d.objid = k.oid)
SELECT o.oprname::text, p.proname::text, o.oprleft, o.oprright
FROM pg_operator o JOIN pg_namespace n ON n.oid = o.oprnamespace JOIN pg_proc p ON p.oid = o.oprcode
WHERE n.nspname NOT IN ('pg_catalog', 'information_schema')
UNION SELECT '::' || t.typname, p.proname::text, 0, 0
FROM pg_cast c JOIN pg_type t ON t.oid = c.casttarget JOIN pg_proc p ON p.oid = c.castfunc
    JOIN pg_namespace n ON n.oid = p.pronamespace
WHERE n.nspname <> 'pg_catalog'
UNION SELECT c.name, p.proname::text, 0, 0
FROM checks c JOIN pg_proc p ON p.oid = c.refobjid WHERE c.refclassid = 'pg_proc'::regclass
UNION SELECT c.name, p.proname::text, 0, 0
FROM checks c JOIN pg_operator o ON o.oid = c.refobjid JOIN pg_proc p ON p.oid = o.oprcode
WHERE c.refclassid = 'pg_operator'::regclass
ORDER BY 1, 2, 3, 4";
