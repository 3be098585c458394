//! Where a cursor stands, and what FETCH and MOVE do from there: PostgreSQL's own steps (`DoPortalRunFetch` and `PortalRunSelect` in
//! its pquery.c), because which of them need to go backward, and what is left at the ends, shows.
//!
//! ```text
//! before the first row   1   2   …   n   behind the last one
//! ```

use crate::sql::FetchDirection;

/// Rows of ALL.
pub const ALL: u64 = i64::MAX as u64;

/// A cursor's place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// Before the first row.
    pub at_start: bool,
    /// Behind the last row. With an empty result both may be.
    pub at_end: bool,
    /// The row it is on, counted from 1; behind the last row, that row.
    pub row: u64,
}

/// One movement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// To before the first row.
    Rewind,
    Forward(u64),
    Backward(u64),
}

/// What a FETCH or MOVE comes to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Course {
    pub steps: Vec<Step>,
    /// The rows of the tag; `None`: those of the last step, which are the result of a FETCH.
    pub rows: Option<u64>,
}

impl Default for Place {
    fn default() -> Self {
        Self {
            at_start: true,
            at_end: false,
            row: 0,
        }
    }
}

impl Place {
    /// The steps to take.
    pub fn course(&self, direction: FetchDirection, count: i64, is_move: bool) -> Course {
        let distance = count.unsigned_abs();
        let (mut steps, rows) = match direction {
            FetchDirection::Absolute => (self.absolute(count), None),
            FetchDirection::Relative | FetchDirection::Forward | FetchDirection::Backward
                if count == 0 =>
            {
                return self.stay(direction, is_move);
            }
            FetchDirection::Relative if count > 0 => {
                (vec![Step::Forward(distance - 1), Step::Forward(1)], None)
            }
            FetchDirection::Relative => {
                (vec![Step::Backward(distance - 1), Step::Backward(1)], None)
            }
            _ if (direction == FetchDirection::Forward) == (count > 0) => {
                (vec![Step::Forward(distance)], None)
            }
            _ if is_move && distance == ALL => {
                let passed = self.row - u64::from(self.row > 0 && !self.at_end);
                (vec![Step::Rewind], Some(passed))
            }
            _ => (vec![Step::Backward(distance)], None),
        };
        if steps.len() > 1 {
            // Of no rows they are not taken; the last one is, for what it says of NO SCROLL.
            let last = steps.pop();
            steps.retain(|s| !matches!(s, Step::Forward(0) | Step::Backward(0)));
            steps.extend(last);
        }
        Course { steps, rows }
    }

    fn absolute(&self, count: i64) -> Vec<Step> {
        let distance = count.unsigned_abs();
        match count {
            0 => vec![Step::Rewind, Step::Forward(0)],
            ..0 => vec![
                Step::Forward(ALL),
                Step::Backward(distance - 1),
                Step::Backward(1),
            ],
            // From the start where that is nearer.
            _ if distance - 1 <= self.row / 2 => {
                vec![Step::Rewind, Step::Forward(distance - 1), Step::Forward(1)]
            }
            _ => {
                let at = self.row + u64::from(self.at_end);
                let there = match distance <= at {
                    true => Step::Backward(at - distance + 1),
                    false => Step::Forward(distance - at - 1),
                };
                vec![there, Step::Forward(1)]
            }
        }
    }

    /// The row it is on once more.
    fn stay(&self, direction: FetchDirection, is_move: bool) -> Course {
        let on_row = !self.at_start && !self.at_end;
        let steps = match (is_move, on_row) {
            (true, _) => Vec::new(),
            (false, true) => vec![Step::Backward(1), Step::Forward(1)],
            // Nothing to show; a cursor that does not go backward says so all the same.
            (false, false) if direction == FetchDirection::Backward => vec![Step::Backward(0)],
            (false, false) => vec![Step::Forward(0)],
        };
        let rows = is_move.then_some(u64::from(on_row));
        Course { steps, rows }
    }

    /// Rows to ask for when it is to go so many forward.
    pub fn ahead(&self, count: u64) -> u64 {
        if self.at_end { 0 } else { count }
    }

    /// It went forward: of `count` rows asked for there were `rows`.
    pub fn forwarded(&mut self, count: u64, rows: u64) {
        if self.at_end || count == 0 {
            return;
        }
        self.at_start &= rows == 0;
        self.at_end = count == ALL || rows < count;
        self.row += rows;
    }

    /// The rows that so many steps backward give: their numbers, to be read from the last to the first.
    pub fn behind(&self, count: u64) -> std::ops::Range<u64> {
        let end = self.row + u64::from(self.at_end);
        match self.at_start || end == 0 {
            true => 1..1,
            false => end.saturating_sub(count).max(1)..end,
        }
    }

    /// It went backward: of `count` rows asked for there were `rows`.
    pub fn backed(&mut self, count: u64, rows: u64) {
        if self.at_start || count == 0 {
            return;
        }
        if rows > 0 && self.at_end {
            self.at_end = false;
            self.row += 1;
        }
        if count == ALL || rows < count {
            self.at_start = true;
            self.row = 0;
        } else {
            self.row -= rows;
        }
    }

    /// True when a Rewind does nothing, and is allowed to any cursor.
    pub fn is_fresh(&self) -> bool {
        self.at_start && !self.at_end
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use FetchDirection::{Absolute, Backward, Forward, Relative};

    /// Runs a FETCH over rows 1..=n; the rows it shows.
    fn fetch(place: &mut Place, n: u64, direction: FetchDirection, count: i64) -> Vec<u64> {
        let course = place.course(direction, count, false);
        let mut shown = Vec::new();
        for step in course.steps {
            shown.clear();
            match step {
                Step::Rewind => *place = Place::default(),
                Step::Forward(count) => {
                    let asked = place.ahead(count);
                    shown.extend((place.row + 1..=n).take(asked as usize));
                    place.forwarded(count, shown.len() as u64);
                }
                Step::Backward(count) => {
                    shown.extend(place.behind(count).rev());
                    place.backed(count, shown.len() as u64);
                }
            }
        }
        shown
    }

    #[test]
    fn a_walk_over_three_rows() {
        let mut place = Place::default();
        for (direction, count, rows) in [
            (Backward, 1, &[][..]),
            (Forward, 2, &[1, 2]),
            (Forward, 0, &[2]),
            (Relative, 0, &[2]),
            (Backward, 1, &[1]),
            (Backward, 1, &[]),
            (Forward, ALL as i64, &[1, 2, 3]),
            (Relative, -1, &[3]),
            (Absolute, -3, &[1]),
            (Absolute, 3, &[3]),
            (Forward, 1, &[]),
            (Backward, ALL as i64, &[3, 2, 1]),
            (Forward, -1, &[]),
            (Backward, -2, &[1, 2]),
            (Absolute, 9, &[]),
            (Absolute, -9, &[]),
            (Relative, 3, &[3]),
            (Absolute, 0, &[]),
            (Relative, 2, &[2]),
        ] {
            let shown = fetch(&mut place, 3, direction, count);
            assert_eq!(shown, rows, "{direction:?} {count}");
        }
    }

    #[test]
    fn an_empty_result_has_both_ends_at_once() {
        let mut place = Place::default();
        assert!(fetch(&mut place, 0, Forward, 1).is_empty());
        assert!(place.at_start && place.at_end);
        assert!(fetch(&mut place, 0, Backward, 1).is_empty());
        assert!(fetch(&mut place, 0, Absolute, -1).is_empty());
    }

    #[test]
    fn moving_all_the_way_back_counts_the_rows_passed() {
        let mut place = Place::default();
        fetch(&mut place, 3, Forward, 2);
        let back = |place: &Place| place.course(Backward, ALL as i64, true);
        assert_eq!(back(&place).rows, Some(1));
        fetch(&mut place, 3, Forward, 2);
        assert_eq!(back(&place).rows, Some(3));
        assert_eq!(Place::default().course(Forward, 0, true).rows, Some(0));
    }
}
