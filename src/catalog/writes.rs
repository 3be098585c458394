//! What a change of a table needs or sets off beyond the rows that the statement names: pure data, as the rest of the catalog.

/// Of a table with its partitions and children, over all shards.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Writes {
    /// It has triggers or rules of users, which may do anything.
    pub triggers: bool,
    /// What columns without a value get, where that is not NULL.
    pub defaults: Vec<(String, DefaultKind)>,
    /// Functions of users that its CHECK constraints call, operators' too.
    pub checks: Vec<String>,
    /// Columns of each unique or exclusion constraint or index; none for one over expressions.
    pub unique: Vec<Vec<String>>,
    /// Its own foreign keys, and those of other tables that name it.
    pub foreign_keys: Vec<ForeignKey>,
}

/// What a column's default depends on, the worst last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum DefaultKind {
    /// Nothing: a value, or one that is random on one server too.
    Value,
    /// The session or its transaction: now().
    Clock,
    /// The server: a sequence, or a function of users.
    Server,
}

/// A foreign key, seen from a table at one of its ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ForeignKey {
    /// True at the end that is referenced.
    pub referenced: bool,
    /// Of the table.
    pub columns: Vec<String>,
    /// Schema and name of the table at the other end.
    pub other: (String, String),
    /// There, in the order of `columns`.
    pub other_columns: Vec<String>,
}

impl Writes {
    /// Adds what holds on another shard: whichever shard is written, nothing is overlooked.
    pub fn add(&mut self, other: &Self) {
        self.triggers |= other.triggers;
        for (column, kind) in &other.defaults {
            match self.defaults.iter_mut().find(|(c, _)| c == column) {
                Some((_, known)) => *known = (*known).max(*kind),
                None => self.defaults.push((column.clone(), *kind)),
            }
        }
        for function in &other.checks {
            if !self.checks.contains(function) {
                self.checks.push(function.clone());
            }
        }
        for columns in &other.unique {
            if !self.unique.contains(columns) {
                self.unique.push(columns.clone());
            }
        }
        for key in &other.foreign_keys {
            if !self.foreign_keys.contains(key) {
                self.foreign_keys.push(key.clone());
            }
        }
    }

    /// What a column gets without a value; `None`: NULL.
    pub fn default_of(&self, column: &str) -> Option<DefaultKind> {
        let found = self.defaults.iter().find(|(c, _)| c == column);
        found.map(|(_, kind)| *kind)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_one_shard_has_all_have() {
        let mut here = Writes {
            defaults: vec![("at".into(), DefaultKind::Value)],
            unique: vec![vec!["id".into()]],
            ..Writes::default()
        };
        let there = Writes {
            triggers: true,
            defaults: vec![
                ("at".into(), DefaultKind::Clock),
                ("n".into(), DefaultKind::Server),
            ],
            unique: vec![vec!["id".into()], vec![]],
            ..Writes::default()
        };
        here.add(&there);
        assert!(here.triggers);
        assert_eq!(here.default_of("at"), Some(DefaultKind::Clock));
        assert_eq!(here.default_of("n"), Some(DefaultKind::Server));
        assert_eq!(here.default_of("id"), None);
        assert_eq!(here.unique, [vec!["id".to_owned()], vec![]]);
    }
}
