//! Several shards' catalogs become one: the catalog shard's OIDs, each table's place by the configuration, and a reason wherever
//! something cannot be exact. Asks no shard anything.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use super::compare::{self, Shards};
use super::snapshot::{Operator, Relation, Snapshot};
use super::tables::{self, Key, Merging};
use super::verify::HashCheck;
use super::{Difference, Loaded};
use crate::catalog::{Catalog, Function, Volatility};
use crate::config::Config;
use crate::plan::{Collation, ShardId};

/// OID of the collation that stands for the database's own.
const DEFAULT_COLLATION: u32 = 100;

/// `snapshots` are in the order of the configuration, the catalog shard first and full.
pub(super) fn merge(
    config: &Config,
    snapshots: &[Snapshot],
    check: &HashCheck,
    version: u64,
) -> Loaded {
    let shards = Shards {
        names: config.shards.iter().map(|s| s.name.as_str()).collect(),
        contents: snapshots.iter().map(|s| &s.contents).collect(),
    };
    let mut differences = Vec::new();
    let unusable = compare::databases(&shards, &mut differences);
    let unlike_types = compare::types(&shards, &mut differences);
    let unlike_functions = compare::functions(&shards, &mut differences);
    let misplaced = hash_check(config, check, &mut differences);
    let first = &snapshots[0].contents;
    let type_oids = type_oids(&shards);
    let mut merging = Merging {
        config,
        snapshots,
        children: snapshots.iter().map(tables::children).collect(),
        unusable,
        misplaced,
        unlike_types,
        type_oids: &type_oids,
        collations: collations(&shards),
        differences,
    };
    let operators = operators(&shards);
    let catalog = Catalog {
        version,
        shards: snapshots.len(),
        catalog_shard: Some(ShardId(0)),
        tables: merging.tables(&shards),
        functions: functions(&first.functions, &unlike_functions),
        types: first
            .types
            .iter()
            .map(|t| (t.definition.oid, Arc::new(t.definition.clone())))
            .collect(),
        default_collation: merging
            .collations
            .get(&DEFAULT_COLLATION)
            .map(|c| (**c).clone()),
        collations: std::mem::take(&mut merging.collations),
        user_operators: operators.iter().map(|(name, _)| name.clone()).collect(),
        overloaded_operators: overloaded_operators(&shards),
        operator_functions: operators,
        search_path: first.search_path.clone(),
        relation_oids: relation_oids(&shards),
        type_oids: type_oids.clone(),
    };
    Loaded {
        catalog: Arc::new(catalog),
        differences: merging.differences,
        parameters: snapshots[0].parameters.clone(),
        isolation: first.isolation.clone(),
        server_versions: shards
            .contents
            .iter()
            .map(|c| c.server_version.clone())
            .collect(),
        unread: Vec::new(),
    }
}

/// Tells what came of the check; `Some` when tables that are spread by PostgreSQL's hash cannot be used.
fn hash_check(
    config: &Config,
    check: &HashCheck,
    differences: &mut Vec<Difference>,
) -> Option<String> {
    let (message, fatal) = match check {
        HashCheck::Passed => return None,
        HashCheck::Skipped(why) => (
            format!("could not be compared with pgbraid's: {why}"),
            false,
        ),
        HashCheck::Differs(what) => (what.clone(), true),
    };
    differences.push(Difference {
        shard: config.shards[0].name.clone(),
        object: "hash function".into(),
        message: message.clone(),
        fatal,
    });
    fatal.then_some(message)
}

fn functions(all: &[Function], unlike: &HashSet<&str>) -> HashMap<String, Vec<Arc<Function>>> {
    let mut functions: HashMap<String, Vec<Arc<Function>>> = HashMap::new();
    for function in all {
        let mut function = function.clone();
        // Not the same everywhere: as good as random, so that nothing is pushed down that calls it.
        if unlike.contains(function.name.as_str()) && function.schema != "pg_catalog" {
            function.volatility = Volatility::Volatile;
            function.names = None;
        }
        let overloads = functions.entry(function.name.clone()).or_default();
        overloads.push(Arc::new(function));
    }
    functions
}

fn operators(shards: &Shards<'_>) -> Vec<(String, String)> {
    let all = shards.contents.iter().flat_map(|c| &c.operators);
    let all: BTreeSet<(String, String)> =
        all.map(|o| (o.name.clone(), o.function.clone())).collect();
    all.into_iter().collect()
}

/// Those that take something besides types that are apart, on any shard.
fn overloaded_operators(shards: &Shards<'_>) -> Vec<String> {
    let mut names = BTreeSet::new();
    for contents in &shards.contents {
        let types = contents.types.iter().filter(|t| t.definition.apart);
        let apart: HashSet<u32> = types.map(|t| t.definition.oid).collect();
        let takes_more = |o: &&Operator| o.operands.iter().any(|t| *t != 0 && !apart.contains(t));
        names.extend(
            contents
                .operators
                .iter()
                .filter(takes_more)
                .map(|o| &o.name),
        );
    }
    names.into_iter().cloned().collect()
}

/// By OID on the catalog shard; a version that is not the same on all shards is none.
fn collations(shards: &Shards<'_>) -> HashMap<u32, Arc<Collation>> {
    let first = shards.contents[0];
    let default = (DEFAULT_COLLATION, "pg_catalog", &first.default_collation);
    let others: Vec<HashMap<(&str, &str), &Collation>> = shards
        .others()
        .map(|(_, _, c)| {
            let named = c
                .collations
                .iter()
                .map(|(_, s, c)| ((s.as_str(), c.name.as_str()), c));
            named
                .chain([(("pg_catalog", "default"), &c.default_collation)])
                .collect()
        })
        .collect();
    let named = first
        .collations
        .iter()
        .map(|(oid, s, c)| (*oid, s.as_str(), c));
    named
        // pg_collation's own row for it says nothing.
        .filter(|(oid, ..)| *oid != DEFAULT_COLLATION)
        .chain([default])
        .map(|(oid, schema, collation)| {
            let mut collation = collation.clone();
            let same = |others: &HashMap<(&str, &str), &Collation>| {
                others
                    .get(&(schema, collation.name.as_str()))
                    .is_some_and(|c| **c == collation)
            };
            if !others.iter().all(same) {
                collation.version = None;
            }
            (oid, Arc::new(collation))
        })
        .collect()
}

/// Types by their names: each shard's OIDs to the catalog shard's, where they differ.
fn type_oids(shards: &Shards<'_>) -> Vec<HashMap<u32, u32>> {
    let first = compare::by_name(&shards.contents[0].types);
    let of_shard = |types: &[super::snapshot::ShardType]| {
        let pairs = types.iter().filter_map(|t| {
            let t = &t.definition;
            let known = first.get(&(t.schema.as_str(), t.name.as_str()))?;
            Some((t.oid, known.definition.oid))
        });
        pairs.filter(|(there, here)| there != here).collect()
    };
    shards.contents.iter().map(|c| of_shard(&c.types)).collect()
}

fn relation_oids(shards: &Shards<'_>) -> Vec<HashMap<u32, u32>> {
    let first: HashMap<Key, u32> = shards.contents[0]
        .relations
        .iter()
        .map(|r| (r.key(), r.oid))
        .collect();
    let of_shard = |relations: &[Relation]| {
        let pairs = relations
            .iter()
            .filter_map(|r| Some((r.oid, *first.get(&r.key())?)));
        pairs.filter(|(there, here)| there != here).collect()
    };
    shards
        .contents
        .iter()
        .map(|c| of_shard(&c.relations))
        .collect()
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::snapshot::{Contents, ShardColumn, ShardType};
    use super::*;
    use crate::backend::mock;
    use crate::catalog::{Distribution, Table, Type};
    use crate::config::{FunctionName, Placement, TableRule};
    use crate::plan::CollationProvider;
    use crate::types::oid;

    fn column(name: &str, attribute: i16, type_oid: u32, type_name: &str) -> ShardColumn {
        ShardColumn {
            attribute,
            name: name.into(),
            type_oid,
            type_modifier: -1,
            type_name: type_name.into(),
            not_null: true,
            collation: 0,
            collation_name: String::new(),
        }
    }

    fn table(oid: u32, name: &str, columns: Vec<ShardColumn>) -> Relation {
        Relation {
            oid,
            schema: "public".into(),
            name: name.into(),
            kind: b'r',
            parents: vec![],
            view_definition: None,
            guarded: false,
            policies: vec![],
            primary_key: vec![1],
            columns,
            writes: Default::default(),
        }
    }

    fn orders(oid: u32) -> Relation {
        let id = column("id", 1, oid::INT8, "bigint");
        table(
            oid,
            "orders",
            vec![id, column("mood", 2, oid + 1000, "public.mood")],
        )
    }

    fn mood(oid: u32, labels: &str) -> ShardType {
        ShardType {
            definition: Type {
                oid,
                schema: "public".into(),
                name: "mood".into(),
                kind: b'e',
                element: 0,
                array: oid + 1,
                base: 0,
                subtype: 0,
                apart: true,
                labels: vec![labels.into()],
                fields: vec![],
                collatable: false,
            },
            signature: format!("enum {labels}"),
        }
    }

    /// A shard whose own OIDs start at `base`.
    pub(in super::super) fn shard(base: u32, version: &str) -> Snapshot {
        let contents = Contents {
            server_version: "15.2".into(),
            major_version: 15,
            search_path: vec!["public".into()],
            grants: String::new(),
            isolation: "read committed".into(),
            settings: vec![("TimeZone".into(), "UTC".into())],
            default_collation: Collation {
                name: "default".into(),
                provider: CollationProvider::Libc,
                locale: "en_US.UTF-8".into(),
                deterministic: true,
                version: Some(version.into()),
            },
            types: vec![mood(base + 1000, "ok")],
            collations: vec![],
            relations: vec![orders(base)],
            functions: vec![],
            bodies: vec![],
            operators: vec![],
        };
        Snapshot {
            contents,
            estimates: HashMap::from([(base, (100.0, 2.0))]),
            parameters: vec![],
        }
    }

    fn merged(shards: &[Snapshot], rules: Vec<(&str, Placement)>) -> Loaded {
        let ports: Vec<u16> = (1..=shards.len() as u16).collect();
        let mut config = (*mock::config(&ports, 1)).clone();
        let rule = |(name, placement): (&str, Placement)| TableRule {
            schema: "public".into(),
            name: name.into(),
            placement,
        };
        config.tables = rules.into_iter().map(rule).collect();
        merge(&config, shards, &HashCheck::Passed, 1)
    }

    fn by_id() -> Placement {
        Placement::Sharded {
            key: Some("id".into()),
            function: FunctionName::Postgres,
            bounds: vec![],
        }
    }

    fn find<'a>(loaded: &'a Loaded, name: &str) -> &'a Table {
        &loaded.catalog.tables[&("public".to_owned(), name.to_owned())]
    }

    fn is_refused(loaded: &Loaded, name: &str) -> bool {
        let refused = matches!(
            find(loaded, name).distribution,
            Distribution::Undeclared { reason: Some(_) }
        );
        assert_eq!(refused, loaded.differences.iter().any(|d| d.fatal));
        refused
    }

    #[test]
    fn tables_are_known_by_the_catalog_shards_oids() {
        let loaded = merged(
            &[shard(100, "2"), shard(200, "2")],
            vec![("orders", by_id())],
        );
        assert!(loaded.differences.is_empty());
        let orders = find(&loaded, "orders");
        assert!(matches!(
            orders.distribution,
            Distribution::Sharded { key: Some(0), .. }
        ));
        assert_eq!((orders.oid, orders.rows), (100, 200.0));
        assert_eq!(loaded.catalog.type_oids[1], HashMap::from([(1200, 1100)]));
        assert_eq!(loaded.catalog.relation_oids[1], HashMap::from([(200, 100)]));
    }

    #[test]
    fn a_table_that_differs_or_is_missing_is_refused() {
        let mut other = shard(200, "2");
        other.contents.relations[0].columns[0].type_name = "integer".into();
        let loaded = merged(&[shard(100, "2"), other.clone()], vec![("orders", by_id())]);
        assert!(is_refused(&loaded, "orders"));
        other.contents.relations.clear();
        let loaded = merged(
            &[shard(100, "2"), other],
            vec![("orders", Placement::Reference)],
        );
        assert!(is_refused(&loaded, "orders"));
    }

    #[test]
    fn a_type_that_differs_takes_its_tables_with_it() {
        let mut other = shard(200, "2");
        other.contents.types = vec![mood(1200, "sad")];
        let loaded = merged(&[shard(100, "2"), other], vec![("orders", by_id())]);
        assert!(is_refused(&loaded, "orders"));
    }

    #[test]
    fn settings_that_differ_leave_only_single_tables() {
        let mut other = shard(200, "2");
        other.contents.settings[0].1 = "Asia/Tokyo".into();
        let shards = [shard(100, "2"), other];
        assert!(is_refused(
            &merged(&shards, vec![("orders", by_id())]),
            "orders"
        ));
        let single = merged(&shards, vec![("orders", Placement::Home(1))]);
        assert!(matches!(
            find(&single, "orders").distribution,
            Distribution::Single(ShardId(1))
        ));
        // From its home shard, but in the catalog shard's words.
        assert_eq!(find(&single, "orders").columns[1].type_oid, 1100);
    }

    #[test]
    fn constraints_hold_only_where_they_hold_everywhere() {
        let mut other = shard(200, "2");
        other.contents.relations[0].columns[0].not_null = false;
        other.contents.relations[0].primary_key.clear();
        let loaded = merged(&[shard(100, "2"), other], vec![("orders", by_id())]);
        let orders = find(&loaded, "orders");
        assert!(!orders.columns[0].not_null && orders.columns[1].not_null);
        assert!(orders.primary_key.is_empty());
    }

    #[test]
    fn partitions_inherit_and_count() {
        let with_partition = |base: u32| {
            let mut shard = shard(base, "2");
            let mut child = table(
                base + 1,
                "orders_1",
                vec![
                    column("note", 1, oid::TEXT, "text"),
                    column("id", 2, oid::INT8, "bigint"),
                ],
            );
            child.parents = vec![base];
            shard.contents.relations[0].kind = b'p';
            shard.contents.relations.push(child);
            shard.estimates = HashMap::from([(base, (-1.0, 0.0)), (base + 1, (50.0, 1.0))]);
            shard
        };
        let shards = [with_partition(100), with_partition(200)];
        let loaded = merged(&shards, vec![("orders", by_id())]);
        let child = find(&loaded, "orders_1");
        assert!(matches!(
            child.distribution,
            Distribution::Sharded { key: Some(1), .. }
        ));
        assert_eq!(find(&loaded, "orders").rows, 100.0);
        // The parent would read rows that lie elsewhere.
        let rules = vec![("orders", by_id()), ("orders_1", Placement::Reference)];
        assert!(is_refused(&merged(&shards, rules), "orders"));
    }

    #[test]
    fn collation_versions_that_differ_prove_nothing() {
        let version = |a, b| {
            let loaded = merged(&[shard(100, a), shard(200, b)], vec![]);
            loaded.catalog.default_collation.clone().unwrap().version
        };
        assert_eq!(version("2.36", "2.36").as_deref(), Some("2.36"));
        assert_eq!(version("2.36", "2.31"), None);
    }

    #[test]
    fn a_hash_that_is_not_the_servers_routes_nothing() {
        let mut config = (*mock::config(&[1, 2], 1)).clone();
        config.tables = vec![TableRule {
            schema: "public".into(),
            name: "orders".into(),
            placement: by_id(),
        }];
        let check = HashCheck::Differs("7 lies elsewhere".into());
        let loaded = merge(&config, &[shard(100, "2"), shard(200, "2")], &check, 1);
        assert!(is_refused(&loaded, "orders"));
    }
}
