//! Columns that are equal in every row, and the keys that follow from it.

use std::rc::Rc;
use std::sync::Arc;

use super::analyse::Distributed;
use super::scope::{AttrId, Env};
use crate::catalog::sharding::Sharding;

/// Columns that equalities make the same.
#[derive(Debug, Default)]
pub(super) struct Classes {
    sets: Vec<Vec<AttrId>>,
}

impl Classes {
    pub(super) fn new(pairs: impl Iterator<Item = (AttrId, AttrId)>) -> Self {
        let mut out = Self::default();
        for (a, b) in pairs {
            let find = |sets: &[Vec<AttrId>], x| sets.iter().position(|s| s.contains(&x));
            match (find(&out.sets, a), find(&out.sets, b)) {
                (None, None) => out.sets.push(vec![a, b]),
                (Some(i), None) => out.sets[i].push(b),
                (None, Some(i)) => out.sets[i].push(a),
                (Some(i), Some(j)) if i != j => {
                    let moved = std::mem::take(&mut out.sets[j]);
                    out.sets[i].extend(moved);
                }
                _ => {}
            }
        }
        out
    }

    pub(super) fn same(&self, a: AttrId, b: AttrId) -> bool {
        a == b || self.sets.iter().any(|s| s.contains(&a) && s.contains(&b))
    }

    /// The keys with all columns equal to one of them. Where an equality holds strictly, neither side is NULL.
    pub(super) fn close(&self, keys: &[(AttrId, bool)]) -> Vec<(AttrId, bool)> {
        let mut out: Vec<(AttrId, bool)> = Vec::new();
        for (key, strict) in keys {
            match self.sets.iter().find(|s| s.contains(key)) {
                Some(set) => out.extend(set.iter().map(|a| (*a, true))),
                None => out.push((*key, *strict)),
            }
        }
        out.sort_unstable();
        out.dedup();
        out
    }
}

/// True when two relations' keys are spread alike and made equal.
pub(super) fn meets(a: &Distributed, b: &Distributed, classes: &Classes) -> bool {
    same_sharding(a.sharding.as_ref(), b.sharding.as_ref())
        && a.keys
            .iter()
            .any(|(x, _)| b.keys.iter().any(|(y, _)| classes.same(*x, *y)))
}

pub(super) fn same_sharding(a: Option<&Arc<Sharding>>, b: Option<&Arc<Sharding>>) -> bool {
    matches!((a, b), (Some(a), Some(b)) if a == b)
}

/// True when rows are tied to the key of a query around them: for one outer row they all lie on its shard.
pub(super) fn tied(d: &Distributed, classes: &Classes, env: Option<&Rc<Env>>) -> bool {
    let mut next = env;
    while let Some(env) = next {
        if env
            .keys
            .as_ref()
            .is_some_and(|outer| meets(d, outer, classes))
        {
            return true;
        }
        next = env.parent.as_ref();
    }
    false
}
