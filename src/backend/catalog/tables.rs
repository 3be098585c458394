//! One table out of its copies on the shards: its place by the configuration, in the catalog shard's OIDs, or the reason why it
//! cannot be used.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use super::Difference;
use super::compare::{self, Shards};
use super::placement::{self, PARENTS_MAX, Rules};
use super::snapshot::{Relation, ShardColumn, Snapshot};
use crate::catalog::{Column, Distribution, Table, TableKind};
use crate::config::{Config, FunctionName, Placement, Undeclared};
use crate::plan::{Collation, ShardId};

const PAGE_BYTES: f64 = 8192.0;

/// What the tables are made from.
pub(super) struct Merging<'a> {
    pub config: &'a Config,
    pub snapshots: &'a [Snapshot],
    pub children: Vec<HashMap<u32, Vec<&'a Relation>>>,
    /// Why nothing that lies on several shards can be used.
    pub unusable: Option<String>,
    /// Why no key can be hashed.
    pub misplaced: Option<String>,
    pub unlike_types: HashMap<u32, String>,
    pub type_oids: &'a [HashMap<u32, u32>],
    pub collations: HashMap<u32, Arc<Collation>>,
    pub differences: Vec<Difference>,
}

/// Schema and name.
pub(super) type Key = (String, String);

impl<'a> Merging<'a> {
    /// All relations that some shard has, by schema and name.
    pub(super) fn tables(&mut self, shards: &Shards<'a>) -> HashMap<Key, Arc<Table>> {
        let rules: Vec<Rules<'a>> = shards
            .contents
            .iter()
            .map(|c| Rules::new(self.config, &c.relations))
            .collect();
        let contradicted: Vec<_> = rules.iter().map(Rules::contradicted).collect();
        let by_key: Vec<HashMap<Key, &'a Relation>> = shards
            .contents
            .iter()
            .map(|c| c.relations.iter().map(|r| (r.key(), r)).collect())
            .collect();
        let keys: BTreeSet<&Key> = by_key.iter().flat_map(HashMap::keys).collect();

        let mut tables = HashMap::with_capacity(keys.len());
        for key in keys {
            let copies: Vec<Option<&'a Relation>> =
                by_key.iter().map(|shard| shard.get(key).copied()).collect();
            let reason = copies.iter().zip(&contradicted);
            let reason = reason
                .filter_map(|(copy, contradicted)| contradicted.get(&(*copy)?.oid))
                .next();
            let Some(table) = self.table(&copies, &rules, reason) else {
                continue;
            };
            tables.insert(key.clone(), Arc::new(table));
        }
        self.missing(&tables);
        tables
    }

    /// Rules that name nothing.
    fn missing(&mut self, tables: &HashMap<Key, Arc<Table>>) {
        for rule in &self.config.tables {
            let key = (rule.schema.clone(), rule.name.clone());
            if !tables.contains_key(&key) {
                self.differences.push(Difference {
                    shard: self.config.shards[0].name.clone(),
                    object: format!("table {}.{}", rule.schema, rule.name),
                    message: "is declared but on no shard".into(),
                    fatal: true,
                });
            }
        }
    }

    /// One relation, from its copies on the shards.
    fn table(
        &mut self,
        copies: &[Option<&'a Relation>],
        rules: &[Rules<'a>],
        contradicted: Option<&String>,
    ) -> Option<Table> {
        let (source, relation) = copies
            .iter()
            .enumerate()
            .find_map(|(shard, copy)| Some((shard, (*copy)?)))?;
        if relation.is_system() {
            return Some(self.build(source, relation, Distribution::System));
        }
        let is_view = relation.kind == b'v';
        let placed = rules[source].placement(relation);
        let declared = rules[source].is_declared(relation);
        let placed = match (is_view, placed) {
            (true, _) => return Some(self.view(copies, source, relation)),
            (false, Err(reason)) => Err(reason),
            (false, Ok(placed)) => Ok(placed.cloned()),
        };
        let placement = match placed {
            Err(reason) => return Some(self.refused(source, relation, 0, reason)),
            Ok(None) => {
                let nobody = Distribution::Undeclared { reason: None };
                return Some(self.build(source, relation, nobody));
            }
            Ok(Some(placement)) => placement,
        };
        if let Some(reason) = contradicted {
            return Some(self.refused(source, relation, 0, reason.clone()));
        }
        if let Placement::Home(home) = placement {
            return self.single(copies, home, declared);
        }
        Some(self.everywhere(copies, source, relation, &placement))
    }

    /// A sharded or reference table: the same on all shards, or unusable.
    fn everywhere(
        &mut self,
        copies: &[Option<&'a Relation>],
        source: usize,
        relation: &Relation,
        placement: &Placement,
    ) -> Table {
        let names: Vec<&str> = self.config.shards.iter().map(|s| s.name.as_str()).collect();
        if let Some((shard, reason)) = compare::relation(&names, copies) {
            let reason = format!("on shard {} it {reason}", names[shard]);
            return self.refused(source, relation, shard, reason);
        }
        let unlike = relation
            .columns
            .iter()
            .find_map(|c| self.unlike_types.get(&c.type_oid));
        let hashed = matches!(
            placement,
            Placement::Sharded {
                key: Some(_),
                function: FunctionName::Postgres,
                ..
            }
        );
        let misplaced = self.misplaced.as_ref().filter(|_| hashed);
        let reason = unlike.or(self.unusable.as_ref()).or(misplaced);
        if let Some(reason) = reason.cloned() {
            // Said once, where the difference is.
            let distribution = Distribution::Undeclared {
                reason: Some(reason),
            };
            return self.build(source, relation, distribution);
        }
        let shards = self.snapshots.len();
        let collations = &self.collations;
        let deterministic = |c: &ShardColumn| {
            collations
                .get(&c.collation)
                .is_some_and(|c| c.deterministic)
        };
        match placement::distribution(placement, relation, shards, deterministic) {
            Err(reason) => self.refused(source, relation, source, reason),
            Ok(distribution) => {
                let mut table = self.build(source, relation, distribution);
                agree(&mut table, copies);
                table
            }
        }
    }

    /// A table on one shard; what other shards have under the same name is not looked at.
    fn single(
        &mut self,
        copies: &[Option<&'a Relation>],
        home: usize,
        declared: bool,
    ) -> Option<Table> {
        let distribution = Distribution::Single(ShardId(home as u16));
        if let Some(relation) = copies.get(home).copied().flatten() {
            let mut table = self.build(home, relation, distribution);
            // Clients know it by the catalog shard's OID where it has one.
            table.oid = copies[0].map_or(0, |r| r.oid);
            return Some(table);
        }
        let elsewhere = copies.iter().flatten().next()?;
        self.differences.push(Difference {
            shard: self.config.shards[home].name.clone(),
            object: format!("table {}.{}", elsewhere.schema, elsewhere.name),
            message: "is missing on its home shard but exists on another one".into(),
            fatal: declared,
        });
        None
    }

    fn view(
        &mut self,
        copies: &[Option<&'a Relation>],
        source: usize,
        relation: &Relation,
    ) -> Table {
        // Views over single tables may exist with their tables only; a statement that is sent elsewhere fails there by name.
        let at_home = match self.config.database.undeclared {
            Undeclared::Home(home) => copies.get(home).copied().flatten().map(|r| (home, r)),
            _ => None,
        };
        if let Some((home, relation)) = at_home
            && copies.iter().any(Option::is_none)
        {
            return self.build(home, relation, Distribution::View);
        }
        let names: Vec<&str> = self.config.shards.iter().map(|s| s.name.as_str()).collect();
        match compare::relation(&names, copies) {
            None => {
                let mut table = self.build(source, relation, Distribution::View);
                agree(&mut table, copies);
                table
            }
            Some((shard, reason)) => {
                let reason = format!("on shard {} it {reason}", names[shard]);
                self.refused(source, relation, shard, reason)
            }
        }
    }

    fn refused(
        &mut self,
        source: usize,
        relation: &Relation,
        shard: usize,
        reason: String,
    ) -> Table {
        let kind = if relation.kind == b'v' {
            "view"
        } else {
            "table"
        };
        self.differences.push(Difference {
            shard: self.config.shards[shard].name.clone(),
            object: format!("{kind} {}.{}", relation.schema, relation.name),
            message: reason.clone(),
            fatal: true,
        });
        let distribution = Distribution::Undeclared {
            reason: Some(reason),
        };
        self.build(source, relation, distribution)
    }

    /// The table as shard `source` has it, in the catalog shard's OIDs.
    fn build(&self, source: usize, relation: &Relation, distribution: Distribution) -> Table {
        let (rows, row_bytes) = self.estimates(relation, source, &distribution);
        let place = |attribute: &i16| {
            relation
                .columns
                .iter()
                .position(|c| c.attribute == *attribute)
        };
        Table {
            schema: relation.schema.clone(),
            name: relation.name.clone(),
            oid: if source == 0 { relation.oid } else { 0 },
            kind: match relation.kind {
                _ if relation.is_system() => TableKind::System,
                b'p' => TableKind::Partitioned,
                b'v' => TableKind::View,
                b'm' => TableKind::MaterializedView,
                b'f' => TableKind::Foreign,
                _ => TableKind::Table,
            },
            distribution,
            columns: relation
                .columns
                .iter()
                .map(|c| self.column(source, c))
                .collect(),
            primary_key: relation.primary_key.iter().filter_map(place).collect(),
            // A materialized view has rows of its own: what they were made of says nothing any more.
            view_definition: relation
                .view_definition
                .as_ref()
                .filter(|_| relation.kind == b'v')
                .map(|d| d.trim_end_matches(';').trim().to_owned()),
            guarded: relation.guarded,
            policies: relation.policies.clone(),
            rows,
            row_bytes,
            writes: relation.writes.clone(),
        }
    }

    fn column(&self, source: usize, column: &ShardColumn) -> Column {
        let mapped = self.type_oids[source].get(&column.type_oid);
        Column {
            name: column.name.clone(),
            type_oid: mapped.copied().unwrap_or(column.type_oid),
            type_modifier: column.type_modifier,
            type_name: column.type_name.clone(),
            not_null: column.not_null,
            collation: self.collation_oid(source, column),
        }
    }

    fn collation_oid(&self, source: usize, column: &ShardColumn) -> u32 {
        if source == 0 || column.collation == 0 {
            return column.collation;
        }
        let known = &self.snapshots[0].contents.collations;
        let known = known.iter().find(|(_, schema, collation)| {
            column.collation_name == format!("{schema}.{}", collation.name)
        });
        // One that the catalog shard has not: nothing is known of it, so nothing is proved by it.
        known.map_or(u32::MAX, |(oid, ..)| *oid)
    }

    /// Rows over all shards that have some, and bytes a row.
    fn estimates(
        &self,
        relation: &Relation,
        source: usize,
        distribution: &Distribution,
    ) -> (f64, f64) {
        let (mut rows, mut pages) = (0.0, 0.0);
        for (shard, snapshot) in self.snapshots.iter().enumerate() {
            let counts = match distribution {
                Distribution::Sharded { .. } => true,
                _ => shard == source,
            };
            let relations = &snapshot.contents.relations;
            let copy = relations.binary_search_by(|r| {
                (&r.schema, &r.name).cmp(&(&relation.schema, &relation.name))
            });
            if let (true, Ok(copy)) = (counts, copy) {
                let (r, p) = self.with_children(shard, &relations[copy], 0);
                rows += r;
                pages += p;
            }
        }
        let row_bytes = if rows > 0.0 {
            pages * PAGE_BYTES / rows
        } else {
            0.0
        };
        (rows, row_bytes)
    }

    /// Rows and pages of a relation and of the partitions and children below it. Not yet analysed counts as nothing.
    fn with_children(&self, shard: usize, relation: &Relation, depth: usize) -> (f64, f64) {
        let (mut rows, mut pages) = (0.0, 0.0);
        if let Some((r, p)) = self.snapshots[shard].estimates.get(&relation.oid)
            && relation.kind != b'p'
        {
            rows += r.max(0.0);
            pages += p.max(0.0);
        }
        let children = self.children[shard].get(&relation.oid);
        for child in children
            .into_iter()
            .flatten()
            .filter(|_| depth < PARENTS_MAX)
        {
            let (r, p) = self.with_children(shard, child, depth + 1);
            rows += r;
            pages += p;
        }
        (rows, pages)
    }
}

/// What only holds when it holds on every shard, and what holds as soon as it holds on one.
fn agree(table: &mut Table, copies: &[Option<&Relation>]) {
    for copy in copies.iter().flatten() {
        table.guarded |= copy.guarded;
        for policy in &copy.policies {
            if !table.policies.contains(policy) {
                table.policies.push(policy.clone());
            }
        }
        table.writes.add(&copy.writes);
        for (column, other) in table.columns.iter_mut().zip(&copy.columns) {
            column.not_null &= other.not_null;
        }
        let place = |attribute: &i16| copy.columns.iter().position(|c| c.attribute == *attribute);
        let key: Vec<usize> = copy.primary_key.iter().filter_map(place).collect();
        if table.primary_key != key {
            table.primary_key.clear();
        }
    }
}

/// Each shard's partitions and children, by their parent's OID.
pub(super) fn children(snapshot: &Snapshot) -> HashMap<u32, Vec<&Relation>> {
    let mut children: HashMap<u32, Vec<&Relation>> = HashMap::new();
    for relation in &snapshot.contents.relations {
        for parent in &relation.parents {
            children.entry(*parent).or_default().push(relation);
        }
    }
    children
}
