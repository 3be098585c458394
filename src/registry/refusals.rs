//! What was refused lately, and what to do about it. Kept apart from the statements that are answered: nothing is written here on their way.

use std::collections::VecDeque;
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// A refusal that has not come up for so long is forgotten.
pub const KEPT: Duration = Duration::from_secs(60 * 60);
/// Different refusals that are kept; beyond that the one that has not come up for longest goes.
pub const DIFFERENT_MAX: usize = 100;

/// A refusal, and how often it has come up. All texts are such as may be shown: no literals, no parameters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// The label of a [`crate::metrics::Reason`].
    pub reason: &'static str,
    /// What the client was told.
    pub message: String,
    /// What it may do instead; empty where it was told nothing.
    pub hint: String,
    /// The statement.
    pub statement: String,
    /// The role it was logged in as, the last time.
    pub user: String,
    /// How often.
    pub count: u64,
    /// The first time; before that it had not come up for [`KEPT`], or others were more frequent.
    pub first: Instant,
    /// The last time.
    pub last: Instant,
}

impl Refused {
    fn is_same(&self, other: &Self) -> bool {
        (self.reason, &self.message, &self.hint, &self.statement)
            == (other.reason, &other.message, &other.hint, &other.statement)
    }
}

/// The one that came up last comes first.
#[derive(Debug, Default)]
struct Recent(VecDeque<Refused>);

impl Recent {
    fn note(&mut self, mut refused: Refused) {
        self.forget(refused.last);
        if let Some(at) = self.0.iter().position(|r| r.is_same(&refused))
            && let Some(known) = self.0.remove(at)
        {
            refused.first = known.first;
            refused.count += known.count;
        }
        self.0.truncate(DIFFERENT_MAX - 1);
        self.0.push_front(refused);
    }

    fn forget(&mut self, now: Instant) {
        let is_old = |r: &Refused| now.saturating_duration_since(r.last) > KEPT;
        while self.0.back().is_some_and(is_old) {
            self.0.pop_back();
        }
    }
}

/// One for the process, as there is one count of refusals.
static RECENT: LazyLock<Mutex<Recent>> = LazyLock::new(Mutex::default);

/// Notes one; the same again is counted, not kept again.
pub fn note(refused: Refused) {
    RECENT.lock().note(refused);
}

/// Those of the last hour, the latest first.
pub fn recent() -> Vec<Refused> {
    let mut recent = RECENT.lock();
    recent.forget(Instant::now());
    recent.0.iter().cloned().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(message: &str, at: Instant) -> Refused {
        Refused {
            reason: "write",
            message: message.into(),
            hint: String::new(),
            statement: "update a set b = $1".into(),
            user: "app".into(),
            count: 1,
            first: at,
            last: at,
        }
    }

    #[test]
    fn the_same_is_counted_and_comes_first_again() {
        let (mut recent, start) = (Recent::default(), Instant::now());
        let later = start + Duration::from_secs(5);
        recent.note(refused("one", start));
        recent.note(refused("two", start));
        recent.note(refused("one", later));
        let shown: Vec<_> = recent.0.iter().map(|r| (&*r.message, r.count)).collect();
        assert_eq!(shown, [("one", 2), ("two", 1)]);
        assert_eq!((recent.0[0].first, recent.0[0].last), (start, later));
    }

    #[test]
    fn what_is_kept_is_bounded_in_number_and_time() {
        let (mut recent, start) = (Recent::default(), Instant::now());
        for n in 0..2 * DIFFERENT_MAX {
            recent.note(refused(&n.to_string(), start));
        }
        assert_eq!(recent.0.len(), DIFFERENT_MAX);
        recent.note(refused("late", start + KEPT + Duration::from_secs(1)));
        assert_eq!(recent.0.len(), 1);
    }
}
