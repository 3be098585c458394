//! Which temporary tables a merge session has: `ON COMMIT DELETE ROWS` ones, kept by the shape of their columns, so that few
//! statements create any.

/// Tables one connection keeps. Each commit that touched a temporary table truncates them all.
const TABLES_MAX: usize = 24;

/// The temporary tables of one connection that a committed transaction has left there, all of them empty.
#[derive(Debug, Default)]
pub struct StageTables {
    /// Shape (column definitions as SQL) and number of each.
    kept: Vec<(String, u32)>,
    /// Numbers never come twice on a connection: prepared statements name tables by them.
    last_number: u32,
}

impl StageTables {
    /// The number of a table of this shape that is not among `taken`; the second is true when it must be created.
    pub fn number(&mut self, shape: &str, taken: &[u32]) -> (u32, bool) {
        let free = |(kept, number): &&(String, u32)| kept == shape && !taken.contains(number);
        if let Some((_, number)) = self.kept.iter().find(free) {
            return (*number, false);
        }
        self.last_number += 1;
        (self.last_number, true)
    }

    /// Notes a table whose creation is committed.
    pub fn keep(&mut self, shape: String, number: u32) {
        self.kept.push((shape, number));
    }

    /// True when there are too many: the caller must then drop them all (`DISCARD TEMP`). They are forgotten here.
    pub fn take_full(&mut self) -> bool {
        let full = self.kept.len() >= TABLES_MAX;
        if full {
            self.kept.clear();
        }
        full
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kept_table_serves_its_shape_once_a_statement() {
        let mut tables = StageTables::default();
        assert_eq!(tables.number("a", &[]), (1, true));
        tables.keep("a".into(), 1);
        assert_eq!(tables.number("a", &[]), (1, false));
        assert_eq!(tables.number("a", &[1]), (2, true));
        assert_eq!(tables.number("b", &[]), (3, true));
    }

    #[test]
    fn tables_that_were_not_kept_are_created_anew() {
        let mut tables = StageTables::default();
        assert_eq!(tables.number("a", &[]), (1, true));
        assert_eq!(tables.number("a", &[]), (2, true));
    }

    #[test]
    fn too_many_tables_go_all_at_once() {
        let mut tables = StageTables::default();
        for _ in 0..TABLES_MAX {
            assert!(!tables.take_full());
            let (number, _) = tables.number("a", &[]);
            tables.keep(format!("{number}"), number);
        }
        assert!(tables.take_full());
        assert!(!tables.take_full());
        assert_eq!(tables.number("1", &[]), (TABLES_MAX as u32 + 1, true));
    }
}
