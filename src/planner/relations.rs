//! Which relations a statement reads, views looked through: enough to say whether one place answers it.

use super::analyse::{Views, refusal};
use super::functions::{self, Effects};
use super::scope::find_table;
use crate::catalog::{Catalog, Distribution, Table, TableKind};
use crate::metrics::Reason;
use crate::plan::{Refusal, ShardId, Targets};
use crate::sql::ast::{self, node::Node};
use crate::sql::{Child, children, select_children, walk};

/// Views nest at most this deep; a cycle cannot be made in PostgreSQL.
const VIEW_DEPTH_MAX: usize = 32;

/// What a statement reads.
#[derive(Debug, Default)]
pub(super) struct Relations {
    pub(super) views: Views,
    /// Set when a table is named that cannot be read through pgbraid, or whose row security cannot be left to the shards.
    pub(super) undeclared: Option<Refusal>,
    pub(super) system: bool,
    pub(super) sharded: bool,
    pub(super) reference: bool,
    pub(super) singles: bool,
    /// The one shard of all single tables, if they share one.
    single: Option<ShardId>,
    several_singles: bool,
    /// Why catalogs and sharded rows do not go together, where they do not.
    mixed: Option<Refusal>,
}

impl Relations {
    /// The place that answers the whole statement, when no sharded table is in it.
    pub(super) fn one_place(&self, looks_at_catalog: bool) -> Option<Targets> {
        if self.sharded || self.several_singles {
            return None;
        }
        match (self.single, self.system) {
            (Some(_), true) => None,
            (Some(shard), false) => Some(Targets::Shard(shard)),
            (None, true) => Some(Targets::Catalog),
            (None, false) if looks_at_catalog => Some(Targets::Catalog),
            (None, false) => Some(Targets::Any),
        }
    }

    /// Why catalogs do not go together with what else is read. Beside sharded tables they are the catalog shard's, brought to where
    /// the rows are: no OID of another server may meet theirs.
    pub(super) fn unmixable(&self, effects: &[&Effects], unknown: bool) -> Option<Refusal> {
        let by_oid = effects.iter().any(|e| e.catalog || e.types);
        let why = self.mixed.as_ref();
        why.filter(|_| by_oid || self.singles || unknown).cloned()
    }
}

/// Names of WITH queries in scope.
type Names<'a> = Vec<&'a str>;

struct Collector<'c> {
    catalog: &'c Catalog,
    found: Relations,
}

/// Collects the relations of a SELECT.
///
/// # Errors
/// A refusal for a statement with parts that are not understood at all.
pub(super) fn collect(
    catalog: &Catalog,
    search_path: &[String],
    select: &ast::SelectStmt,
) -> Result<Relations, Refusal> {
    let mut collector = Collector {
        catalog,
        found: Relations::default(),
    };
    collector.select(select, search_path, &Vec::new(), 0)?;
    Ok(collector.found)
}

impl Collector<'_> {
    fn select(
        &mut self,
        select: &ast::SelectStmt,
        path: &[String],
        names: &Names<'_>,
        depth: usize,
    ) -> Result<(), Refusal> {
        let mut names = names.clone();
        if let Some(with) = &select.with_clause {
            let named = |node| match node {
                &ast::Node {
                    node: Some(Node::CommonTableExpr(ref cte)),
                } => Some(cte.ctename.as_str()),
                _ => None,
            };
            if with.recursive {
                names.extend(with.ctes.iter().filter_map(named));
            }
            for node in &with.ctes {
                let Some(name) = named(node) else {
                    continue;
                };
                for part in children(node).unwrap_or_default() {
                    self.child(part, path, &names, depth)?;
                }
                if !with.recursive {
                    names.push(name);
                }
            }
        }
        let with = usize::from(select.with_clause.is_some())
            * select.with_clause.as_ref().map_or(0, |w| w.ctes.len());
        for part in select_children(select).into_iter().skip(with) {
            self.child(part, path, &names, depth)?;
        }
        Ok(())
    }

    fn child(
        &mut self,
        child: Child<'_>,
        path: &[String],
        names: &Names<'_>,
        depth: usize,
    ) -> Result<(), Refusal> {
        let node = match child {
            Child::Select(s) => return self.select(s, path, names, depth),
            Child::Node(n) => n,
        };
        match &node.node {
            Some(Node::SelectStmt(s)) => self.select(s, path, names, depth),
            Some(Node::RangeVar(v)) => self.range_var(v, path, names, depth),
            Some(
                Node::InsertStmt(_)
                | Node::UpdateStmt(_)
                | Node::DeleteStmt(_)
                | Node::MergeStmt(_),
            ) => Err(refusal(
                Reason::Write,
                "writes are not supported over several shards",
                "Run the change as a statement of its own.",
                -1,
            )),
            _ => {
                let parts = children(node).ok_or_else(|| {
                    refusal(
                        Reason::Form,
                        "this kind of expression is not supported",
                        "Write the statement in another form.",
                        -1,
                    )
                })?;
                for part in parts {
                    self.child(part, path, names, depth)?;
                }
                Ok(())
            }
        }
    }

    fn range_var(
        &mut self,
        v: &ast::RangeVar,
        path: &[String],
        names: &Names<'_>,
        depth: usize,
    ) -> Result<(), Refusal> {
        if v.schemaname.is_empty() && names.contains(&v.relname.as_str()) {
            return Ok(());
        }
        let Some(table) = find_table(self.catalog, path, &v.schemaname, &v.relname).cloned() else {
            let of_system = ["pg_catalog", "information_schema"].contains(&v.schemaname.as_str())
                || (v.schemaname.is_empty() && v.relname.starts_with("pg_"));
            match of_system {
                true => self.note_system(v),
                false => {
                    self.found.undeclared.get_or_insert_with(|| {
                        refusal(
                            Reason::Undeclared,
                            format!("relation \"{}\" is not known to pgbraid", v.relname),
                            "If it was just created, try again in a moment.",
                            v.location,
                        )
                    });
                }
            }
            return Ok(());
        };
        if self.catalog.shards > 1 && !self.judges_by_row(&table) {
            self.found.undeclared.get_or_insert_with(|| {
                let name = &table.name;
                refusal(
                    Reason::RowSecurity,
                    format!("table {name} has row security that may read rows of other shards"),
                    "Only policies over the row itself, reference tables and the session can be left to the shards.",
                    v.location,
                )
            });
        }
        match &table.distribution {
            _ if table.kind == TableKind::System => self.note_system(v),
            Distribution::System => self.note_system(v),
            Distribution::Sharded { .. } => {
                self.found.sharded = true;
            }
            Distribution::Reference => self.found.reference = true,
            Distribution::Single(shard) => {
                self.found.singles = true;
                self.found.several_singles |= self.found.single.is_some_and(|s| s != *shard);
                self.found.single = Some(*shard);
            }
            Distribution::Undeclared { reason } => {
                let name = format!("{}.{}", table.schema, table.name);
                self.found.undeclared.get_or_insert_with(|| match reason {
                    Some(reason) => refusal(
                        Reason::Undeclared,
                        format!("table {name} cannot be used: {reason}"),
                        "pgbraid check shows what must be mended.",
                        v.location,
                    ),
                    None => refusal(
                        Reason::Undeclared,
                        format!("table {name} is not declared"),
                        "Declare it in the configuration: [[table]] with key, reference = true or home.",
                        v.location,
                    ),
                });
            }
            Distribution::View => return self.view(&table, v, depth),
        }
        Ok(())
    }

    /// True where a shard alone can say which rows of a table a role may see: by the row itself and what all shards have.
    fn judges_by_row(&self, table: &Table) -> bool {
        table.policies.iter().all(|policy| {
            let parsed = crate::sql::parse(&format!("SELECT {policy}"));
            let Some(Node::SelectStmt(policy)) =
                parsed.ok().and_then(|mut p| p.pop()).map(|s| s.node)
            else {
                return false;
            };
            let mut local = true;
            let known = walk(Child::Select(&policy), &mut |child| {
                if let Child::Node(ast::Node {
                    node: Some(Node::RangeVar(v)),
                }) = child
                {
                    let read = find_table(self.catalog, &[], &v.schemaname, &v.relname);
                    local &= read.is_some_and(|read| match &read.distribution {
                        Distribution::Reference | Distribution::System => true,
                        Distribution::Single(there) => {
                            matches!(&table.distribution, Distribution::Single(here) if here == there)
                        }
                        _ => read.kind == TableKind::System,
                    });
                }
                true
            });
            let effects = functions::effects(self.catalog, &[], [&*policy].into_iter());
            known && local && effects.unproved.is_none()
        })
    }

    fn note_system(&mut self, v: &ast::RangeVar) {
        self.found.system = true;
        self.found.mixed.get_or_insert_with(|| {
            refusal(
                Reason::Catalog,
                "catalogs and tables of several shards cannot be read in one statement",
                "Read the catalog in a statement of its own, or name no object by its OID.",
                v.location,
            )
        });
    }

    fn view(
        &mut self,
        table: &crate::catalog::Table,
        v: &ast::RangeVar,
        depth: usize,
    ) -> Result<(), Refusal> {
        let key = (table.schema.clone(), table.name.clone());
        if self.found.views.contains_key(&key) {
            return Ok(());
        }
        let unreadable = || {
            refusal(
                Reason::View,
                format!("view {} cannot be looked into", table.name),
                "Write its query into the statement.",
                v.location,
            )
        };
        if depth > VIEW_DEPTH_MAX {
            return Err(unreadable());
        }
        let text = table.view_definition.as_deref().ok_or_else(unreadable)?;
        let body = crate::sql::parse(text)
            .ok()
            .and_then(|mut all| all.pop())
            .map(|s| s.node);
        let Some(Node::SelectStmt(body)) = body else {
            return Err(unreadable());
        };
        self.select(&body, &[], &Vec::new(), depth + 1)?;
        self.found.views.insert(key, *body);
        Ok(())
    }
}
