//! WITH: plain, materialized or not, hiding a table's name, recursive.

use super::{Generator, Named, Place};
use crate::random::ast::*;
use crate::random::schema::TABLES;
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
                false => self.plain_cte(),
            };
            ctes.push(cte);
            self.ctes.push(named);
        }
        (recursive, ctes)
    }

    fn plain_cte(&mut self) -> (Cte, Named) {
        let types = self.types(3);
        let made = self.query(&types, &Place::derived(1));
        // A name that hides a table: the generator then writes public.name for the table.
        let free = |t: &&str| self.ctes.iter().all(|c| c.name != **t);
        let hidden = ["lonely", "tags", "dupes"].into_iter().find(free);
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
        let materialized = *self
            .random
            .pick(&[None, None, None, Some(true), Some(false)]);
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
        let chains: Vec<_> = TABLES.iter().filter(|t| t.rows < 400.0).collect();
        let ints = |t: &&&crate::random::schema::Table| {
            let ints = t.columns.iter().filter(|c| c.1 == Type::Int).count();
            !t.key.is_empty() && ints > 1 && t.columns.iter().any(|c| *c == (t.key, Type::Int))
        };
        let chains: Vec<_> = chains.iter().filter(ints).copied().collect();
        let column = |relation: &str, column: &str| Expr::column(Type::Int, relation, column);
        let wide = |e: Expr| Expr::form(Type::Int, "({})::int8", vec![e]);
        let next = |e: Expr| Expr::form(Type::Int, "({} + 1)", vec![e]);
        let (a, b) = (column(&name, "a"), column(&name, "b"));
        let number = |value| {
            let node = Node::Literal {
                value: Some(value),
                parameter: None,
            };
            Expr::new(Type::Int, node)
        };
        let steps = Expr::form(Type::Bool, "({} < 3)", vec![b.clone()]);
        let own = From::Table {
            name: name.clone(),
            alias: name.clone(),
        };
        let (start, step) = match self.random.chance(25) {
            true => {
                let start = select([wide(number("1")), number("0")], vec![], vec![]);
                let step = select([wide(next(a)), next(b)], vec![own], vec![steps]);
                (start, step)
            }
            false => {
                let table = *self.random.pick(&chains);
                let ints = table.columns.iter().filter(|c| c.1 == Type::Int);
                let ints: Vec<_> = ints.map(|c| c.0).collect();
                let (from, to) = (self.alias("t"), self.alias("t"));
                let first = column(&from, table.key);
                let few = self
                    .random
                    .pick(&["({} < 5)", "({} in (3, 7, 20))", "({} % 50 = 3)"]);
                let few = Expr::form(Type::Bool, few, vec![first.clone()]);
                let start = select(
                    [wide(first), number("0")],
                    vec![item(table.name, &from)],
                    vec![few],
                );
                let on = Expr::form(Type::Bool, "({} = {})", vec![column(&to, table.key), a]);
                let follow = *self.random.pick(&ints);
                let follow = wide(column(&to, follow));
                let join = From::Join {
                    kind: "join",
                    left: Box::new(own),
                    right: Box::new(item(table.name, &to)),
                    on: On::Conditions(vec![on]),
                };
                (start, select([follow, next(b)], vec![join], vec![steps]))
            }
        };
        let suffixes = [
            "",
            "",
            "",
            " search breadth first by a set seq",
            " cycle a set cyc using path",
        ];
        let suffix = *self.random.pick(&suffixes);
        let cte = Cte {
            name: name.clone(),
            columns: vec!["a".into(), "b".into()],
            materialized: None,
            query: Query::of(Body::SetOperation {
                operator: if self.random.chance(60) {
                    "union all"
                } else {
                    "union"
                },
                left: Box::new(start),
                right: Box::new(step),
            }),
            suffix,
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
