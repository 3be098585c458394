//! Statements over temporary tables, and those that leave something in the session: they run on the one connection where the session has
//! such things, and only where nothing they read or call is different on another shard.
//!
//! As with function bodies, the names in a text decide: what is not named is not read.

use std::collections::HashSet;

use super::analyse::refusal;
use super::proof::{self, Proof};
use crate::catalog::{Catalog, TableKind};
use crate::metrics::Reason;
use crate::plan::Refusal;
use crate::sql::ast::node::Node;
use crate::sql::{Child, Statement, names_in_order, walk_statement};

/// The temporary relations of a session.
#[derive(Debug, Clone, Copy)]
pub struct Temporary<'a> {
    /// Their names; no two are the same.
    pub names: &'a [String],
    /// The session's search_path.
    pub search_path: &'a [String],
}

impl Temporary<'_> {
    /// True when this name alone means a temporary relation of the session.
    pub fn has(&self, schema: &str, name: &str) -> bool {
        let named = match schema {
            "" => self.comes_first(),
            schema => is_temporary_schema(schema),
        };
        named && self.names.iter().any(|n| n == name)
    }

    /// Temporary relations come before all others, unless the search_path says otherwise.
    fn comes_first(&self) -> bool {
        !self.search_path.iter().any(|s| is_temporary_schema(s))
    }

    /// True when a statement must run where the temporary relations are: it reads one, or it names one that hides another table.
    pub fn concerns(&self, statement: &Statement, catalog: &Catalog) -> bool {
        if self.names.is_empty() {
            return false;
        }
        let Some(names) = names_in_order(&statement.text) else {
            return true;
        };
        let named = |name: &String| self.names.contains(name);
        let mut reads = false;
        let known = walk_statement(&statement.node, &mut |child| {
            if let Child::Node(node) = child
                && let Some(Node::RangeVar(v)) = &node.node
            {
                reads |= named(&v.relname);
            }
            true
        });
        let hides = |name: &str| {
            self.names.iter().any(|n| n == name) && catalog.tables.keys().any(|(_, n)| n == name)
        };
        reads || (!known && names.iter().any(named)) || reaches(catalog, &names, hides)
    }

    /// Proves that a text may run on the one shard where the temporary relations are. `new`: a name that it makes; `like`: tables of
    /// which it takes columns and no rows.
    ///
    /// # Errors
    /// The refusal, which names what stands in the way.
    pub fn prove(
        &self,
        text: &str,
        catalog: &Catalog,
        new: Option<&str>,
        like: &[String],
    ) -> Result<(), Refusal> {
        let Some(names) = names_in_order(text) else {
            return Err(refusal(
                Reason::Temporary,
                "names in escapes are not supported in a statement over temporary tables",
                "Write them in double quotes.",
                -1,
            ));
        };
        let mut next = ["", ""];
        let mut proved = HashSet::new();
        for name in &names {
            let [schema, dot] = next;
            next = [dot, name];
            let qualified = dot == ".";
            let own = match qualified {
                true => is_temporary_schema(schema) && self.names.contains(name),
                false => self.has("", name) || new == Some(name),
            };
            if !proved.insert((name, own)) {
                continue;
            }
            let proof = match own || like.contains(name) {
                true => proof::of_functions(catalog, name),
                false => proof::of_text(catalog, std::slice::from_ref(name)),
            };
            if proof == Proof::None {
                return Err(refusal(
                    Reason::Temporary,
                    format!(
                        "\"{name}\" in a statement over temporary tables is not supported over several shards"
                    ),
                    "Such a statement may read temporary and reference tables and call functions that read no others.",
                    -1,
                ));
            }
        }
        Ok(())
    }

    /// True where a text names a table that is not temporary.
    pub fn names_others(&self, text: &str, catalog: &Catalog) -> bool {
        let names = names_in_order(text).unwrap_or_default();
        let others = |name: &&String| !self.has("", name);
        names
            .iter()
            .filter(others)
            .any(|name| catalog.tables.keys().any(|(_, n)| n == name))
    }
}

/// Words of a text that name no relation and no function of the catalog. Should they be names of one after all, it is too new to be
/// known.
pub fn unknown_names(text: &str, catalog: &Catalog) -> Vec<String> {
    let known: HashSet<&str> = catalog.tables.keys().map(|(_, n)| n.as_str()).collect();
    let is_word = |n: &String| n.starts_with(|c: char| c.is_alphabetic() || c == '_');
    let mut names = names_in_order(text).unwrap_or_default();
    names.retain(|n| is_word(n) && !known.contains(&**n) && !catalog.functions.contains_key(n));
    names.sort_unstable();
    names.dedup();
    names
}

/// `pg_temp`, and what it stands for.
pub fn is_temporary_schema(name: &str) -> bool {
    name == "pg_temp" || name.starts_with("pg_temp_")
}

/// Proves that a DO block may run on any one shard: its body is judged as a function's is.
pub fn prove_block(catalog: &Catalog, body: &str) -> bool {
    let names = crate::sql::names_in_source(body);
    names.is_some_and(|names| proof::of_text(catalog, &names) != Proof::None)
}

/// What functions of a statement leave on the connection that ran them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Leaves {
    /// They take or give up advisory locks, of the session or of the transaction.
    pub locks: bool,
    /// Some of these are the session's.
    pub session_locks: bool,
    /// They notify, or look at what the session listens to.
    pub notifies: bool,
}

impl Leaves {
    /// Of a statement with these names in its text, by way of whatever functions and views it uses.
    pub fn of(catalog: &Catalog, names: &[String]) -> Self {
        let lock = |n: &str| n.starts_with("pg_advisory_") || n.starts_with("pg_try_advisory_");
        let locks = reaches(catalog, names, lock);
        Self {
            locks,
            session_locks: locks && reaches(catalog, names, |n| lock(n) && !n.contains("_xact_")),
            notifies: reaches(catalog, names, |n| {
                matches!(n, "pg_notify" | "pg_listening_channels")
            }),
        }
    }
}

/// True when one of the names, or of those in the bodies of functions and views behind them, is wanted.
fn reaches(catalog: &Catalog, names: &[String], wanted: impl Fn(&str) -> bool) -> bool {
    let mut seen = HashSet::new();
    let mut left: Vec<String> = names.to_vec();
    while let Some(name) = left.pop() {
        if wanted(&name) {
            return true;
        }
        if !seen.insert(name.clone()) {
            continue;
        }
        let functions = catalog.functions.get(&name).into_iter().flatten();
        left.extend(functions.flat_map(|f| f.names.iter().flatten().cloned()));
        let behind = catalog.operator_functions.iter();
        let behind = behind.filter(|(o, _)| *o == name || o.strip_prefix("::") == Some(&name));
        left.extend(behind.map(|(_, function)| function.clone()));
        let views = catalog.tables.iter();
        let views = views.filter(|((_, n), t)| *n == name && t.kind == TableKind::View);
        for text in views.filter_map(|(_, t)| t.view_definition.as_deref()) {
            left.extend(names_in_order(text).unwrap_or_default());
        }
    }
    false
}
