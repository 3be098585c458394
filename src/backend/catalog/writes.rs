//! Reads what a shard's catalog says about changes of its tables: triggers, defaults, checks, unique and foreign keys.

use std::collections::HashMap;

use tokio_postgres::Row;

use super::snapshot::{ReadError, Relation, get};
use crate::catalog::writes::{DefaultKind, ForeignKey};

/// One row a fact: the table, what it is about, columns (of a check the functions of users that it calls); of a foreign key also the
/// other table and its columns. Functions in a default are found by the OIDs in its tree, which names operators' functions too. Those of
/// users may do anything; of PostgreSQL's own the volatile ones and those that number transactions belong to the server, but for what
/// is random anywhere.
pub(super) const WRITES: &str = r"
WITH RECURSIVE roots AS (
    SELECT c.oid FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE c.relkind IN ('r', 'p') AND n.nspname NOT IN ('pg_catalog', 'information_schema')
        AND n.nspname NOT LIKE 'pg\_toast%' AND n.nspname NOT LIKE 'pg\_temp\_%'),
tree(root, oid) AS (
    SELECT oid, oid FROM roots
    UNION SELECT t.root, i.inhrelid FROM tree t JOIN pg_inherits i ON i.inhparent = t.oid),
defaults AS (
    SELECT d.adrelid, d.adnum, d.adbin::text AS tree,
        ARRAY(SELECT m[1]::oid FROM regexp_matches(d.adbin::text, ':(?:funcid|opfuncid) (\d+)', 'g') m) AS functions
    FROM pg_attrdef d JOIN roots r ON r.oid = d.adrelid)
SELECT t.root, 'trigger', '{}'::text[], '', '', '{}'::text[] FROM tree t
WHERE EXISTS (SELECT FROM pg_trigger g WHERE g.tgrelid = t.oid AND g.tgenabled <> 'D'
        AND (NOT g.tgisinternal OR (g.tgparentid <> 0 AND g.tgconstraint = 0)))
    OR EXISTS (SELECT FROM pg_rewrite w WHERE w.ev_class = t.oid)
UNION SELECT t.root, 'unique', CASE WHEN 0 = ANY (i.indkey::int2[]) THEN '{}' ELSE ARRAY(
        SELECT a.attname::text FROM unnest(i.indkey::int2[]) WITH ORDINALITY AS k(number, place)
            JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.number
        WHERE k.place <= i.indnkeyatts ORDER BY k.place) END, '', '', '{}'
FROM tree t JOIN pg_index i ON i.indrelid = t.oid WHERE i.indisunique OR i.indisexclusion
UNION SELECT t.root, CASE WHEN t.oid = k.conrelid THEN 'foreign' ELSE 'referenced' END,
    ARRAY(SELECT a.attname::text FROM unnest(CASE WHEN t.oid = k.conrelid THEN k.conkey ELSE k.confkey END)
            WITH ORDINALITY AS c(number, place) JOIN pg_attribute a ON a.attrelid = t.oid AND a.attnum = c.number ORDER BY c.place),
    n.nspname::text, o.relname::text,
    ARRAY(SELECT a.attname::text FROM unnest(CASE WHEN t.oid = k.conrelid THEN k.confkey ELSE k.conkey END)
            WITH ORDINALITY AS c(number, place) JOIN pg_attribute a ON a.attrelid = o.oid AND a.attnum = c.number ORDER BY c.place)
FROM tree t JOIN pg_constraint k ON k.contype = 'f' AND t.oid IN (k.conrelid, k.confrelid)
    JOIN pg_class o ON o.oid = CASE WHEN t.oid = k.conrelid THEN k.confrelid ELSE k.conrelid END
    JOIN pg_namespace n ON n.oid = o.relnamespace
UNION SELECT t.root, 'check', ARRAY(
        SELECT p.proname::text FROM pg_depend d LEFT JOIN pg_operator o ON d.refclassid = 'pg_operator'::regclass AND o.oid = d.refobjid
            JOIN pg_proc p ON p.oid = coalesce(o.oprcode, d.refobjid) AND (o.oid IS NOT NULL OR d.refclassid = 'pg_proc'::regclass)
        WHERE d.classid = 'pg_constraint'::regclass AND d.objid = k.oid ORDER BY 1), '', '', '{}'
FROM tree t JOIN pg_constraint k ON k.conrelid = t.oid AND k.contype = 'c'
UNION SELECT r.oid, 'default ' || CASE
        WHEN a.attidentity <> '' OR (d.adnum IS NULL AND y.typdefaultbin IS NOT NULL) THEN 'server'
        WHEN EXISTS (SELECT FROM pg_proc p WHERE p.oid = ANY (d.functions) AND (
                (p.oid >= 16384 AND p.proname NOT LIKE 'uuid\_generate\_v%')
                OR (p.oid < 16384 AND p.provolatile = 'v'
                    AND p.proname NOT IN ('random', 'gen_random_uuid', 'clock_timestamp', 'timeofday'))
                OR p.proname IN ('txid_current', 'txid_current_if_assigned', 'pg_current_xact_id', 'pg_current_xact_id_if_assigned',
                    'pg_backend_pid', 'current_database', 'version', 'inet_server_addr', 'inet_server_port'))) THEN 'server'
        WHEN d.tree LIKE '%SQLVALUEFUNCTION%'
            OR EXISTS (SELECT FROM pg_proc p WHERE p.oid = ANY (d.functions) AND p.provolatile = 's') THEN 'clock'
        ELSE 'value' END, ARRAY[a.attname::text], '', '', '{}'
FROM roots r JOIN pg_attribute a ON a.attrelid = r.oid AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = ''
    JOIN pg_type y ON y.oid = a.atttypid LEFT JOIN defaults d ON d.adrelid = r.oid AND d.adnum = a.attnum
WHERE d.adnum IS NOT NULL OR a.attidentity <> '' OR y.typdefaultbin IS NOT NULL
ORDER BY 1, 2, 3, 4, 5, 6";

/// Adds the facts to their relations.
pub(super) fn add_writes(relations: &mut [Relation], rows: &[Row]) -> Result<(), ReadError> {
    let places: HashMap<u32, usize> = relations
        .iter()
        .enumerate()
        .map(|(place, r)| (r.oid, place))
        .collect();
    for row in rows {
        let Some(place) = places.get(&get(row, 0)?) else {
            continue;
        };
        let writes = &mut relations[*place].writes;
        let what: String = get(row, 1)?;
        let columns: Vec<String> = get(row, 2)?;
        let kind = match what.as_str() {
            "default value" => DefaultKind::Value,
            "default clock" => DefaultKind::Clock,
            "default server" => DefaultKind::Server,
            "trigger" => {
                writes.triggers = true;
                continue;
            }
            "check" => {
                writes.checks.extend(columns);
                continue;
            }
            "unique" => {
                writes.unique.push(columns);
                continue;
            }
            _ => {
                writes.foreign_keys.push(ForeignKey {
                    referenced: what == "referenced",
                    columns,
                    other: (get(row, 3)?, get(row, 4)?),
                    other_columns: get(row, 5)?,
                });
                continue;
            }
        };
        let defaults = columns.into_iter().map(|column| (column, kind));
        writes.defaults.extend(defaults);
    }
    Ok(())
}
