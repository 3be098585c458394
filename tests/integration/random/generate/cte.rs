//! WITH: plain, materialized or not, hiding a table's name, recursive.

use super::{Generator, Leaf, Named, Place, number};
use crate::random::ast::*;
use crate::random::schema::{TABLES, Table};
use crate::random::types::Type;

impl Generator {
    /// The CTEs of the statement, and whether it is WITH RECURSIVE.
    pub(super) fn with(&mut self) -> (bool, Vec<Cte>) {
        let recursive = self.random.chance(25);
        let count = 1 + self.random.below(2);
        let mut ctes = Vec::new();
        for n in 0..count {
            let (cte, named) = match recursive && n == 0 {
                true => self.recursive_cte(),
                false => self.plain_cte(&Place::derived(1), recursive),
            };
            ctes.push(cte);
            self.ctes.push(named);
        }
        (recursive, ctes)
    }

    /// A CTE for one subquery, which may refer to what is around that.
    pub(super) fn inner_cte(&mut self, outer: &[Leaf]) -> Cte {
        let place = Place {
            outer,
            ..Place::derived(0)
        };
        let (cte, named) = self.plain_cte(&place, false);
        self.ctes.push(named);
        cte
    }

    fn plain_cte(&mut self, place: &Place, recursive: bool) -> (Cte, Named) {
        let types = self.types(3);
        let made = self.query(&types, place);
        // A name that hides a table: the generator then writes public.name for the table.
        let free = |t: &&str| self.ctes.iter().all(|c| c.name != **t);
        let hidden = ["lonely", "tags", "dupes"].into_iter().find(free);
        // In WITH RECURSIVE the name would be its own in its own query.
        let hidden = hidden.filter(|_| !recursive);
        let name = match hidden {
            Some(table) if self.random.chance(10) => table.to_string(),
            _ => self.alias("w"),
        };
        let columns: Vec<_> = (1..=types.len()).map(|n| format!("c{n}")).collect();
        let described = columns.iter().zip(&types).zip(&made.keys);
        let described = described.map(|((c, t), k)| (c.clone(), *t, *k)).collect();
        let named = Named {
            name: name.clone(),
            columns: described,
            rows: made.rows,
        };
        let materialized = self
            .random
            .one_of(&[None, None, None, Some(true), Some(false)]);
        let cte = Cte {
            name,
            columns,
            materialized,
            query: made.query,
            suffix: "",
        };
        (cte, named)
    }

    /// Counts, or follows a column of a table from key to key for a few steps.
    fn recursive_cte(&mut self) -> (Cte, Named) {
        let name = self.alias("r");
        let (start, step) = match self.random.chance(25) {
            true => counting(&name),
            false => self.following(&name),
        };
        let suffixes = [
            "",
            "",
            "",
            " search breadth first by a set seq",
            " cycle a set cyc using path",
        ];
        let operator = match self.random.chance(60) {
            true => "union all",
            false => "union",
        };
        let cte = Cte {
            name: name.clone(),
            columns: vec!["a".into(), "b".into()],
            materialized: None,
            query: Query::of(Body::SetOperation {
                operator,
                left: Box::new(start),
                right: Box::new(step),
            }),
            suffix: self.random.one_of(&suffixes),
        };
        let columns = vec![
            ("a".into(), Type::Int, true),
            ("b".into(), Type::Int, false),
        ];
        let named = Named {
            name,
            columns,
            rows: 50.0,
        };
        (cte, named)
    }

    fn following(&mut self, name: &str) -> (Query, Query) {
        let fits = |t: &&Table| {
            let ints = t.columns.iter().filter(|c| c.1 == Type::Int).count();
            t.rows < 400.0 && ints > 1 && t.columns.contains(&(t.key, Type::Int))
        };
        let tables: Vec<_> = TABLES.iter().filter(fits).collect();
        let table = self.random.one_of(&tables);
        let ints = table.columns.iter().filter(|c| c.1 == Type::Int);
        let ints: Vec<_> = ints.map(|c| c.0).collect();
        let (from, to) = (self.alias("t"), self.alias("t"));
        let first = column(&from, table.key);
        let few = ["({} < 5)", "({} in (3, 7, 20))", "({} % 50 = 3)"];
        let few: &'static str = self.random.one_of(&few);
        let few = Expr::form(Type::Bool, few, vec![first.clone()]);
        let start = select(
            [wide(first), number("0")],
            vec![item(table.name, &from)],
            vec![few],
        );
        let (a, b) = (column(name, "a"), column(name, "b"));
        let on = Expr::form(Type::Bool, "({} = {})", vec![column(&to, table.key), a]);
        let follow = wide(column(&to, self.random.one_of(&ints)));
        let join = From::Join {
            kind: "join",
            left: Box::new(own(name)),
            right: Box::new(item(table.name, &to)),
            on: On::Conditions(vec![on]),
        };
        let steps = steps(&b);
        (start, select([follow, next(b)], vec![join], vec![steps]))
    }
}

fn counting(name: &str) -> (Query, Query) {
    let (a, b) = (column(name, "a"), column(name, "b"));
    let start = select([wide(number("1")), number("0")], vec![], vec![]);
    let steps = steps(&b);
    let step = select([wide(next(a)), next(b)], vec![own(name)], vec![steps]);
    (start, step)
}

fn column(relation: &str, name: &str) -> Expr {
    Expr::column(Type::Int, relation, name)
}

fn wide(expr: Expr) -> Expr {
    Expr::form(Type::Int, "({})::int8", vec![expr])
}

fn next(expr: Expr) -> Expr {
    Expr::form(Type::Int, "({} + 1)", vec![expr])
}

fn steps(count: &Expr) -> Expr {
    Expr::form(Type::Bool, "({} < 3)", vec![count.clone()])
}

/// The CTE itself.
fn own(name: &str) -> From {
    From::Table {
        name: name.to_string(),
        alias: name.to_string(),
    }
}

fn item(name: &str, alias: &str) -> From {
    From::Table {
        name: format!("public.{name}"),
        alias: alias.into(),
    }
}

fn select(exprs: [Expr; 2], from: Vec<From>, filters: Vec<Expr>) -> Query {
    let output = |expr| Output {
        expr,
        name: String::new(),
    };
    Query::of(Body::Select(Box::new(Select {
        distinct: Distinct::No,
        outputs: exprs.into_iter().map(output).collect(),
        from,
        filters,
        grouping: None,
        having: None,
    })))
}
