//! Whether two answers are the same: rows as multisets, in order where the statement orders them.

use std::collections::HashMap;

use super::answer::{Row, Rows};
use crate::sql::Statement;
use crate::sql::ast::{self, node::Node};

/// What a statement says of the order of its rows.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Order {
    /// The columns it orders by; `None`: by nothing, or by something that is no column of it.
    keys: Option<Vec<Key>>,
    /// It has an ORDER BY at its top.
    ordered: bool,
    /// It has a LIMIT or an OFFSET there: which of equal rows come is open.
    cut: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Key {
    Place(usize),
    Name(String),
}

impl Order {
    /// That of a SELECT.
    pub fn of(statement: &Statement) -> Self {
        let Node::SelectStmt(select) = &statement.node else {
            return Self::default();
        };
        Self {
            keys: (!select.sort_clause.is_empty())
                .then(|| select.sort_clause.iter().map(key).collect())
                .flatten(),
            ordered: !select.sort_clause.is_empty(),
            cut: select.limit_count.is_some() || select.limit_offset.is_some(),
        }
    }

    /// Positions of the columns ordered by, where all of them are known.
    fn places(&self, rows: &Rows) -> Option<Vec<usize>> {
        let place = |key: &Key| match key {
            Key::Place(place) => (*place < rows.columns.len()).then_some(*place),
            Key::Name(name) => {
                let mut found = (0..rows.columns.len()).filter(|n| rows.columns[*n].0 == *name);
                // Of two columns of one name it is not known which is meant.
                found.next().filter(|_| found.next().is_none())
            }
        };
        self.keys.as_ref()?.iter().map(place).collect()
    }
}

/// A column of the output by place or name.
fn key(sort: &ast::Node) -> Option<Key> {
    let Some(Node::SortBy(sort)) = &sort.node else {
        return None;
    };
    match &sort.node.as_ref()?.node {
        Some(Node::AConst(constant)) => match constant.val.as_ref()? {
            ast::a_const::Val::Ival(place) => usize::try_from(place.ival)
                .ok()?
                .checked_sub(1)
                .map(Key::Place),
            _ => None,
        },
        Some(Node::ColumnRef(column)) => match column.fields.last()?.node.as_ref()? {
            Node::String(name) => Some(Key::Name(name.sval.clone())),
            _ => None,
        },
        _ => None,
    }
}

/// How `given` differs from `expected`.
pub fn difference(order: &Order, expected: &Rows, given: &Rows) -> Option<String> {
    if expected.columns != given.columns {
        return Some(format!(
            "columns: the reference has {:?}, pgbraid {:?}",
            expected.columns, given.columns
        ));
    }
    if expected.rows.len() != given.rows.len() {
        return Some(format!(
            "the reference gives {} rows, pgbraid {}{}",
            expected.rows.len(),
            given.rows.len(),
            odd_row(&expected.rows, &given.rows)
        ));
    }
    let places = order.places(expected);
    match (order.ordered, &places) {
        // Which rows a LIMIT without ORDER BY takes is open.
        (false, _) if order.cut => None,
        (false, _) => multiset(&expected.rows, &given.rows),
        (true, Some(places)) => in_order(order, places, expected, given),
        (true, None) => {
            let at = expected
                .rows
                .iter()
                .zip(&given.rows)
                .position(|(e, g)| e != g)?;
            Some(match multiset(&expected.rows, &given.rows) {
                Some(odd) => odd,
                None => format!(
                    "the same rows in another order from row {} on, which is right only if ORDER BY leaves it open",
                    at + 1
                ),
            })
        }
    }
}

/// The order of the columns ordered by must be the same; rows that are equal in them may change places, and where the statement is cut
/// others of them may come.
fn in_order(order: &Order, places: &[usize], expected: &Rows, given: &Rows) -> Option<String> {
    let keys = |row: &Row| -> Row { places.iter().map(|p| row[*p].clone()).collect() };
    let pairs = expected.rows.iter().zip(&given.rows);
    if let Some((n, (e, g))) = pairs.enumerate().find(|(_, (e, g))| keys(e) != keys(g)) {
        return Some(format!(
            "row {} in order: the reference has {e:?}, pgbraid {g:?}",
            n + 1
        ));
    }
    if !order.cut {
        return multiset(&expected.rows, &given.rows);
    }
    let edges = [expected.rows.first(), expected.rows.last()].map(|row| row.map(keys));
    let inner = |rows: &[Row]| -> Vec<Row> {
        let inside = |row: &&Row| !edges.contains(&Some(keys(row)));
        rows.iter().filter(inside).cloned().collect()
    };
    multiset(&inner(&expected.rows), &inner(&given.rows))
}

fn multiset(expected: &[Row], given: &[Row]) -> Option<String> {
    let odd = odd_row(expected, given);
    (!odd.is_empty()).then(|| format!("other rows{odd}"))
}

/// A row that is there more often on one side.
fn odd_row(expected: &[Row], given: &[Row]) -> String {
    let mut counts: HashMap<&Row, i64> = HashMap::new();
    for row in expected {
        *counts.entry(row).or_default() += 1;
    }
    for row in given {
        *counts.entry(row).or_default() -= 1;
    }
    let find = |side: &[Row], sign: i64| {
        let odd = side
            .iter()
            .find(|row| counts.get(row).is_some_and(|n| n * sign > 0));
        odd.cloned()
    };
    let mut text = String::new();
    if let Some(row) = find(expected, 1) {
        text.push_str(&format!("; only the reference has {row:?}"));
    }
    if let Some(row) = find(given, -1) {
        text.push_str(&format!("; only pgbraid has {row:?}"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order(sql: &str) -> Order {
        Order::of(&crate::sql::parse(sql).expect("valid")[0])
    }

    fn rows(list: &[&[&str]]) -> Rows {
        let row = |row: &&[&str]| row.iter().map(|v| Some((*v).to_owned())).collect();
        Rows {
            columns: vec![("a".into(), "int4".into()), ("b".into(), "int4".into())],
            rows: list.iter().map(row).collect(),
        }
    }

    fn same(sql: &str, expected: &[&[&str]], given: &[&[&str]]) -> bool {
        difference(&order(sql), &rows(expected), &rows(given)).is_none()
    }

    #[test]
    fn rows_without_an_order_are_a_multiset() {
        let sql = "select a, b from t";
        assert!(same(
            sql,
            &[&["1", "2"], &["3", "4"]],
            &[&["3", "4"], &["1", "2"]]
        ));
        assert!(!same(
            sql,
            &[&["1", "2"], &["1", "2"]],
            &[&["1", "2"], &["3", "4"]]
        ));
        assert!(!same(sql, &[&["1", "2"]], &[&["1", "2"], &["1", "2"]]));
    }

    #[test]
    fn rows_equal_in_what_orders_them_may_change_places() {
        let (x, y, z): (&[&str], &[&str], &[&str]) = (&["1", "2"], &["1", "3"], &["4", "5"]);
        for sql in [
            "select a, b from t order by a",
            "select a, b from t order by 1 desc, t.a",
        ] {
            assert!(same(sql, &[x, y, z], &[y, x, z]), "{sql}");
            assert!(!same(sql, &[x, y, z], &[z, x, y]), "{sql}");
        }
        // By an expression nothing is known of ties.
        assert!(!same("select a, b from t order by a + 0", &[x, y], &[y, x]));
    }

    #[test]
    fn a_cut_leaves_its_edges_open() {
        let sql = "select a, b from t order by a limit 3";
        let (x, y): (&[&str], &[&str]) = (&["1", "1"], &["2", "2"]);
        assert!(same(sql, &[x, y, &["3", "4"]], &[x, y, &["3", "5"]]));
        assert!(!same(
            sql,
            &[x, y, &["3", "4"]],
            &[x, &["2", "9"], &["3", "4"]]
        ));
        assert!(same("select a, b from t limit 1", &[x], &[y]));
    }

    #[test]
    fn columns_must_have_the_same_names_and_types() {
        let mut other = rows(&[]);
        other.columns[1].1 = "int8".into();
        assert!(difference(&Order::default(), &rows(&[]), &other).is_some());
    }
}
