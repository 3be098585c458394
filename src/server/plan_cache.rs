//! Statements met before, with their plans: shared by all sessions.

use std::sync::Arc;

use super::prepared::{CacheKey, Prepared};
use super::session::Session;
use crate::sql::Kind;

impl Session {
    /// The cached plan of a statement, if there is one.
    pub fn cached(&self, key: &CacheKey) -> Option<Arc<Prepared>> {
        let found = self.shared.plans.get(key);
        self.shared
            .metrics
            .plan_cache_hits
            .inc_by(u64::from(found.is_some()));
        found
    }

    /// In the cache, where a statement of its text would be the same again.
    pub(super) fn kept(&self, key: CacheKey, prepared: Prepared) -> Arc<Prepared> {
        let prepared = Arc::new(prepared);
        if cacheable(&prepared.kind) && !prepared.clock_words {
            self.shared.plans.insert(key, prepared.clone());
            let entries = self.shared.plans.len() as i64;
            self.shared.metrics.plan_cache_entries.set(entries);
            let bytes = self.shared.plans.weight() as i64;
            self.shared.metrics.plan_cache_bytes.set(bytes);
        }
        prepared
    }
}

fn cacheable(kind: &Kind) -> bool {
    matches!(
        kind,
        Kind::Select { .. } | Kind::Insert | Kind::Update | Kind::Delete | Kind::Merge
    )
}
