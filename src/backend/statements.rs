//! Which prepared statements a connection has: a bounded, least-recently-used map from text and parameter types to a name.

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use hashbrown::{Equivalent, HashMap};

/// Statements one connection keeps prepared. A plan takes tens of kilobytes in the shard's backend; drivers stop at 100-256.
const STATEMENTS_MAX: usize = 512;

#[derive(Debug, PartialEq, Eq)]
struct Key {
    sql: Arc<str>,
    parameter_types: Box<[u32]>,
    context: u64,
}

/// A key to look up with, nothing copied.
struct Borrowed<'a>(&'a str, &'a [u32], u64);

impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        Borrowed(&self.sql, &self.parameter_types, self.context).hash(state);
    }
}

impl Hash for Borrowed<'_> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.hash(state);
        self.1.hash(state);
        self.2.hash(state);
    }
}

impl Equivalent<Key> for Borrowed<'_> {
    fn equivalent(&self, key: &Key) -> bool {
        *self.0 == *key.sql && *self.1 == *key.parameter_types && self.2 == key.context
    }
}

#[derive(Debug)]
struct Prepared {
    number: u64,
    name: Arc<str>,
    /// Up to which Sync its Parse belongs: an error there leaves it unknown whether the Parse was carried out.
    batch: u64,
    used: u64,
}

/// The statements of one connection.
#[derive(Debug, Default)]
pub(super) struct Statements {
    prepared: HashMap<Key, Prepared, foldhash::fast::RandomState>,
    /// Names never come twice on a connection, so a forgotten statement can do no harm.
    last_number: u64,
    /// Settings that the next statements are parsed under, as a number: a statement keeps its literals as those meant them.
    pub(super) context: u64,
    clock: u64,
    /// Statements the shard may still have although they are forgotten here.
    to_close: Vec<u64>,
}

impl Statements {
    /// The name of a statement that is prepared already.
    pub(super) fn known(&mut self, sql: &str, parameter_types: &[u32]) -> Option<Arc<str>> {
        self.clock += 1;
        let key = Borrowed(sql, parameter_types, self.context);
        let known = self.prepared.get_mut(&key)?;
        known.used = self.clock;
        Some(known.name.clone())
    }

    /// The name of the statement, and true when it is new: then the statements in `to_close` are to be closed, too.
    pub(super) fn name(
        &mut self,
        sql: &Arc<str>,
        parameter_types: &[u32],
        batch: u64,
    ) -> (Arc<str>, bool) {
        if let Some(name) = self.known(sql, parameter_types) {
            return (name, false);
        }
        if self.prepared.len() >= STATEMENTS_MAX {
            self.evict();
        }
        self.last_number += 1;
        let key = Key {
            sql: sql.clone(),
            parameter_types: parameter_types.into(),
            context: self.context,
        };
        let name: Arc<str> = name_of(self.last_number).into();
        let prepared = Prepared {
            number: self.last_number,
            name: name.clone(),
            batch,
            used: self.clock,
        };
        self.prepared.insert(key, prepared);
        (name, true)
    }

    /// A scan: it happens only with a Parse, which costs the shard a hundred times as much.
    fn evict(&mut self) {
        let oldest = self.prepared.values().map(|p| p.used).min();
        let to_close = &mut self.to_close;
        self.prepared.retain(|_, p| {
            let evicted = Some(p.used) == oldest;
            if evicted {
                to_close.push(p.number);
            }
            !evicted
        });
    }

    pub(super) fn forget(&mut self, sql: &str, parameter_types: &[u32]) {
        if let Some(forgotten) = self
            .prepared
            .remove(&Borrowed(sql, parameter_types, self.context))
        {
            self.to_close.push(forgotten.number);
        }
    }

    /// An error skipped what was left of `batch`: its statements are prepared again when they are next needed.
    pub(super) fn forget_batch(&mut self, batch: u64) {
        let to_close = &mut self.to_close;
        self.prepared.retain(|_, p| {
            if p.batch == batch {
                to_close.push(p.number);
            }
            p.batch != batch
        });
    }

    /// The shard has dropped them all (DISCARD ALL, DEALLOCATE ALL).
    pub(super) fn forget_all(&mut self) {
        self.prepared.clear();
        self.to_close.clear();
    }

    pub(super) fn take_to_close(&mut self) -> Vec<u64> {
        std::mem::take(&mut self.to_close)
    }
}

/// What a statement is called on the shard.
pub(super) fn name_of(number: u64) -> String {
    format!("pgbraid_{number}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_statement_is_its_text_and_its_types() {
        let mut statements = Statements::default();
        let sql: Arc<str> = "SELECT $1".into();
        assert_eq!(statements.name(&sql, &[23], 0), ("pgbraid_1".into(), true));
        assert_eq!(statements.name(&sql, &[25], 0), ("pgbraid_2".into(), true));
        assert_eq!(statements.name(&sql, &[23], 3), ("pgbraid_1".into(), false));
    }

    #[test]
    fn the_least_recently_used_statement_is_closed() {
        let mut statements = Statements::default();
        let texts: Vec<Arc<str>> = (0..=STATEMENTS_MAX)
            .map(|i| format!("{i}").into())
            .collect();
        for text in &texts[..STATEMENTS_MAX] {
            statements.name(text, &[], 0);
        }
        assert!(!statements.name(&texts[0], &[], 0).1);
        assert!(statements.name(&texts[STATEMENTS_MAX], &[], 0).1);
        assert_eq!(statements.take_to_close(), [2]);
        assert!(!statements.name(&texts[0], &[], 0).1);
        assert!(statements.name(&texts[1], &[], 0).1);
    }

    #[test]
    fn an_error_forgets_the_statements_of_its_batch_only() {
        let mut statements = Statements::default();
        let (old, new): (Arc<str>, Arc<str>) = ("old".into(), "new".into());
        statements.name(&old, &[], 1);
        statements.name(&new, &[], 2);
        statements.forget_batch(2);
        assert!(!statements.name(&old, &[], 3).1);
        assert_eq!(statements.name(&new, &[], 3), ("pgbraid_3".into(), true));
        assert_eq!(statements.take_to_close(), [2]);
    }
}
