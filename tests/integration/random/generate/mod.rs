//! Random SELECTs over the test schema. Each has one right answer: where PostgreSQL is free (which rows a LIMIT keeps, which
//! of equal values stands for its group, which row fails first) the generator takes the freedom away.

mod aggregate;
mod condition;
mod cte;
mod expression;
mod failing;
mod from;
mod select;

use super::ast::*;
use super::types::{COMMON, Type};
use crate::harness::Random;

/// The statement that belongs to a seed.
pub fn statement(seed: u64) -> Statement {
    let mut generator = Generator::new(seed);
    let query = generator.top();
    Statement {
        query,
        parameters: generator.parameters,
    }
}

/// What expressions may refer to.
#[derive(Debug, Clone)]
struct Leaf {
    expr: Expr,
    /// The sharding key of a table, or what came from one.
    key: bool,
}

/// What a FROM gives.
#[derive(Debug, Clone, Default)]
struct Scope {
    leaves: Vec<Leaf>,
    /// Rows that agree in all of these are alike.
    identity: Vec<Expr>,
    /// An estimate, to keep joins small.
    rows: f64,
    /// The primary key, when it is one table that has one.
    primary_key: Vec<Expr>,
}

/// What an expression may be made of where it stands.
#[derive(Debug, Clone, Copy)]
struct Env<'a> {
    leaves: &'a [Leaf],
    /// Columns of enclosing queries.
    outer: &'a [Leaf],
    /// What aggregates are computed over; `None` where there may be none.
    aggregates: Option<&'a Scope>,
    /// What tells rows apart for window functions; `None` where there may be none.
    windows: Option<&'a [Expr]>,
    subqueries: bool,
}

impl<'a> Env<'a> {
    fn of(leaves: &'a [Leaf], outer: &'a [Leaf]) -> Self {
        Self {
            leaves,
            outer,
            aggregates: None,
            windows: None,
            subqueries: true,
        }
    }

    fn without_subqueries(self) -> Self {
        Self {
            subqueries: false,
            ..self
        }
    }

    /// What a subquery that stands here may refer to.
    fn for_subquery(&self) -> Vec<Leaf> {
        let all = self.leaves.iter().chain(self.outer);
        all.filter(|l| l.expr.is_qualified()).cloned().collect()
    }
}

/// Where a query stands.
#[derive(Debug, Clone, Copy)]
struct Place<'a> {
    outer: &'a [Leaf],
    /// Tie it to the outer query by a condition.
    correlate: bool,
    /// How many levels of derived tables and set operations it may have.
    depth: usize,
    /// Equal values must have equal bytes.
    exact: bool,
    top: bool,
}

impl<'a> Place<'a> {
    fn derived(depth: usize) -> Self {
        Self {
            outer: &[],
            correlate: false,
            depth,
            exact: false,
            top: false,
        }
    }

    fn correlated(outer: &'a [Leaf], correlate: bool) -> Self {
        Self {
            outer,
            correlate,
            ..Self::derived(0)
        }
    }
}

/// A query, which of its columns are sharding keys, and about how many rows it has.
struct Made {
    query: Query,
    keys: Vec<bool>,
    rows: f64,
}

/// A CTE that may be named.
#[derive(Debug, Clone)]
struct Named {
    name: String,
    columns: Vec<(String, Type, bool)>,
    rows: f64,
}

struct Generator {
    random: Random,
    parameters: Vec<Parameter>,
    /// The statement has parameters at all.
    parametrised: bool,
    aliases: usize,
    /// Tables that stand under their own name: each once, so that no name hides another.
    bare: Vec<&'static str>,
    ctes: Vec<Named>,
    /// How many more SELECTs the statement may have.
    budget: usize,
}

impl Generator {
    fn new(seed: u64) -> Self {
        let mut random = Random::new(seed);
        Self {
            parametrised: random.chance(30),
            budget: 2 + random.below(6),
            random,
            parameters: Vec::new(),
            aliases: 0,
            bare: Vec::new(),
            ctes: Vec::new(),
        }
    }

    fn top(&mut self) -> Query {
        if self.random.chance(4) {
            return self.failing();
        }
        let (recursive, ctes) = match self.random.chance(22) {
            true => self.with(),
            false => (false, Vec::new()),
        };
        let mut want = self.types(5);
        // What has no equality can only be shown.
        if self.random.chance(6) {
            want.push(Type::Opaque);
        }
        let place = Place {
            top: true,
            ..Place::derived(2)
        };
        let made = self.query(&want, &place);
        Query {
            recursive,
            ctes,
            ..made.query
        }
    }

    fn types(&mut self, most: usize) -> Vec<Type> {
        let count = 1 + self.random.below(most);
        (0..count).map(|_| self.random.one_of(&COMMON)).collect()
    }

    fn alias(&mut self, prefix: &str) -> String {
        self.aliases += 1;
        format!("{prefix}{}", self.aliases)
    }

    fn query(&mut self, want: &[Type], place: &Place) -> Made {
        if !place.top && self.budget > 1 && self.random.chance(4) {
            let known = self.ctes.len();
            let cte = self.inner_cte(place.outer);
            let mut made = self.query_without_ctes(want, place);
            self.ctes.truncate(known);
            made.query.ctes.push(cte);
            return made;
        }
        self.query_without_ctes(want, place)
    }

    fn query_without_ctes(&mut self, want: &[Type], place: &Place) -> Made {
        let sortable = want.iter().all(|t| t.is_ordered());
        let ordered = sortable && self.random.chance(if place.top { 55 } else { 14 });
        // With ties, which rows there are does not depend on how ties are ordered.
        let with_ties = ordered && self.random.chance(8);
        let total = ordered && !with_ties;
        let place = Place {
            exact: place.exact || total,
            ..*place
        };
        if sortable && place.depth > 0 && self.budget > 1 && self.random.chance(17) {
            let mut made = self.set_operation(want, &place);
            if ordered {
                made.query.order.keys = self.keys_by_output(want);
                self.finish(&mut made, with_ties);
            }
            return made;
        }
        let mut selected = self.select(want, &place);
        let mut made = Made {
            keys: selected.keys,
            rows: selected.rows,
            query: Query::of(Body::Select(Box::new(selected.select))),
        };
        if let Some(order) = selected.order {
            made.query.order = order;
        } else if ordered {
            let keys = &mut made.query.order.keys;
            while let Some(expr) = selected.sortable.pop() {
                keys.push(self.sort_key(SortBy::Expr(expr)));
            }
            if keys.is_empty() {
                *keys = self.keys_by_output(want);
            }
            self.finish(&mut made, with_ties);
        }
        self.name_keys(&mut made.query);
        made
    }

    /// Some keys by the name of the output column instead of its position.
    fn name_keys(&mut self, query: &mut Query) {
        let Body::Select(select) = &query.body else {
            return;
        };
        for key in &mut query.order.keys {
            let SortBy::Ordinal(n) = key.by else {
                continue;
            };
            let name = &select.outputs[n - 1].name;
            if !name.is_empty() && self.random.chance(50) {
                key.by = SortBy::Name(name.clone());
            }
        }
    }

    /// Completes the order, or has ties decide, and perhaps limits the rows.
    fn finish(&mut self, made: &mut Made, with_ties: bool) {
        made.query.order.total = !with_ties;
        if with_ties {
            let count = Some(self.random.pick(&["1", "2", "3", "5", "10"]));
            let count = count.map(|c| number(c));
            made.query.limit = Some(Limit {
                count,
                offset: None,
                with_ties,
            });
        } else if self.random.chance(62) {
            let count = self.random.chance(90).then(|| self.count());
            let offset = (count.is_none() || self.random.chance(25)).then(|| self.count());
            made.query.limit = Some(Limit {
                count,
                offset,
                with_ties,
            });
        }
        if made.query.limit.is_some() {
            made.rows = made.rows.min(10.0);
        }
    }

    /// What LIMIT or OFFSET has: a constant, a parameter, something to compute.
    fn count(&mut self) -> Expr {
        match self.random.below(20) {
            0 => Expr::form(Type::Int, "(1 + 2)", Vec::new()),
            1 => Expr::form(Type::Int, "(select count(*) from countries)", Vec::new()),
            2 => Expr::form(Type::Int, "null", Vec::new()),
            3..7 if self.parametrised => {
                let value = Some(self.random.one_of(&["0", "1", "4", "10"]));
                let ty = Type::Int;
                self.parameters.push(Parameter { ty, value });
                let parameter = Some(self.parameters.len() - 1);
                Expr::new(ty, Node::Literal { value, parameter })
            }
            _ => {
                let counts = ["0", "1", "2", "3", "5", "10", "40"];
                number(self.random.one_of(&counts))
            }
        }
    }

    /// Some output columns, by position or by name.
    fn keys_by_output(&mut self, want: &[Type]) -> Vec<SortKey> {
        let mut keys = Vec::new();
        for _ in 0..=self.random.below(2) {
            let ordinal = 1 + self.random.below(want.len());
            keys.push(self.sort_key(SortBy::Ordinal(ordinal)));
        }
        keys
    }

    fn sort_key(&mut self, by: SortBy) -> SortKey {
        let directions = [
            "",
            "",
            "",
            " desc",
            " asc",
            " nulls first",
            " desc nulls last",
        ];
        let direction = self.random.pick(&directions);
        SortKey { by, direction }
    }

    fn set_operation(&mut self, want: &[Type], place: &Place) -> Made {
        let operators = [
            "union all",
            "union all",
            "union",
            "intersect",
            "except",
            "except all",
            "intersect all",
        ];
        let mut made: Option<Made> = None;
        let arms = 2 + usize::from(self.random.chance(25));
        for n in 0..arms {
            let operator = self.random.one_of(&operators);
            let inner = Place {
                // Operators further out may compare what this one only puts together.
                exact: true,
                depth: place.depth - 1,
                top: false,
                ..*place
            };
            let mut arm = match n > 0 && self.random.chance(12) {
                true => self.values(want),
                false => self.query(want, &inner),
            };
            if n > 0 && self.random.chance(6) {
                self.untyped_null(&mut arm);
            }
            made = Some(match made {
                None => arm,
                Some(left) => Made {
                    keys: left
                        .keys
                        .iter()
                        .zip(&arm.keys)
                        .map(|(a, b)| *a && *b)
                        .collect(),
                    rows: left.rows + arm.rows,
                    query: Query::of(Body::SetOperation {
                        operator,
                        left: Box::new(left.query),
                        right: Box::new(arm.query),
                    }),
                },
            });
        }
        made.expect("two arms at least")
    }

    /// A bare NULL as a column: its type is that of the other arms.
    fn untyped_null(&mut self, arm: &mut Made) {
        if let Body::Select(select) = &mut arm.query.body
            && matches!(select.distinct, Distinct::No)
            && select.grouping.is_none()
        {
            let at = self.random.below(select.outputs.len());
            let ty = select.outputs[at].expr.ty;
            select.outputs[at].expr = Expr::form(ty, "null", Vec::new());
            arm.keys[at] = false;
        }
    }

    fn values(&mut self, want: &[Type]) -> Made {
        let rows = 1 + self.random.below(3);
        let row = |this: &mut Self| {
            let literals = want.iter().map(|t| this.literal(*t).canonical());
            literals.collect::<Vec<_>>()
        };
        Made {
            query: Query::of(Body::Values((0..rows).map(|_| row(self)).collect())),
            keys: vec![false; want.len()],
            rows: rows as f64,
        }
    }
}

fn number(value: &'static str) -> Expr {
    let node = Node::Literal {
        value: Some(value),
        parameter: None,
    };
    Expr::new(Type::Int, node)
}
