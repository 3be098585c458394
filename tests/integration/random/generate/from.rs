//! FROM: tables, views, CTEs, derived tables and sets of rows, joined in every way, on the key and off it.

use super::{Env, Generator, Leaf, Place, Scope};
use crate::random::ast::*;
use crate::random::schema::{TABLES, Table};
use crate::random::types::Type;

/// Joins beyond this many rows get a key to join on, or a filter.
const ROWS_MAX: f64 = 15_000.0;

impl Generator {
    /// Items, what they give, and the conditions of WHERE that join them.
    pub(super) fn from(&mut self, place: &Place) -> (Vec<From>, Scope, Vec<Expr>) {
        if self.random.chance(7) {
            return self.using_chain();
        }
        let (mut last, mut scope) = self.item(place, &Scope::default());
        // What the last item has: a condition of ON sees nothing of the items before it.
        let mut last_scope = scope.clone();
        let mut items = Vec::new();
        let mut filters = Vec::new();
        let joins = [0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 3][self.random.below(11)];
        for _ in 0..joins {
            let (right, other) = self.item(place, &scope);
            if self.random.chance(15) {
                filters.extend(self.join_conditions(&scope, &other, false));
                items.push(last);
                last = right;
                last_scope = other.clone();
            } else {
                last = self.join(last, &last_scope, right, &other);
                last_scope = joined(last_scope, other.clone());
            }
            scope = joined(scope, other);
        }
        items.push(last);
        (items, scope, filters)
    }

    /// An item; `left` is what a lateral one may refer to.
    fn item(&mut self, place: &Place, left: &Scope) -> (From, Scope) {
        match self.random.below(100) {
            0..25 if !self.ctes.is_empty() => self.cte_reference(),
            25..37 if place.depth > 0 && self.budget > 1 => self.derived(place, left),
            37..42 if !left.leaves.is_empty() && self.budget > 1 => self.lateral(place, left),
            42..49 => self.rows(left),
            _ => self.table(),
        }
    }

    pub(super) fn table(&mut self) -> (From, Scope) {
        let total = TABLES.iter().map(|t| t.weight).sum();
        let mut at = self.random.below(total);
        let chosen = TABLES.iter().find(|t| match at.checked_sub(t.weight) {
            Some(rest) => {
                at = rest;
                false
            }
            None => true,
        });
        let table = chosen.expect("below the sum of the weights");
        self.table_item(table)
    }

    fn table_item(&mut self, table: &'static Table) -> (From, Scope) {
        let hidden = self.ctes.iter().any(|c| c.name == table.name);
        let simple = !table.name.contains(['.', '"']);
        let bare = simple && !hidden && !self.bare.contains(&table.name) && self.random.chance(15);
        let alias = match bare {
            true => {
                self.bare.push(table.name);
                table.name.to_string()
            }
            false => self.alias("t"),
        };
        let name = match !table.name.contains('.') && (hidden || self.random.chance(5)) && !bare {
            true => format!("public.{}", table.name),
            false => table.name.to_string(),
        };
        let scope = scope_of(table, &alias);
        (From::Table { name, alias }, scope)
    }

    fn cte_reference(&mut self) -> (From, Scope) {
        let named = self.random.pick(&self.ctes).clone();
        let alias = self.alias("x");
        let leaf = |(name, ty, key): &(String, Type, bool)| Leaf {
            expr: Expr::column(*ty, &alias, name),
            key: *key,
        };
        let scope = Scope::of_all(named.columns.iter().map(leaf).collect(), named.rows);
        let name = named.name;
        (From::Table { name, alias }, scope)
    }

    fn derived(&mut self, place: &Place, left: &Scope) -> (From, Scope) {
        let types = self.types(4);
        let inner = Place {
            // Not lateral, it may still refer to what is outside of the whole query.
            outer: if left.leaves.is_empty() {
                place.outer
            } else {
                &[]
            },
            ..Place::derived(place.depth - 1)
        };
        self.derived_of(&types, &inner, false)
    }

    fn lateral(&mut self, place: &Place, left: &Scope) -> (From, Scope) {
        let types = self.types(2);
        let columns = left.leaves.iter().filter(|l| l.expr.is_column());
        let outer: Vec<_> = columns.chain(place.outer).cloned().collect();
        let correlate = self.random.chance(85);
        self.derived_of(&types, &Place::correlated(&outer, correlate), true)
    }

    fn derived_of(&mut self, types: &[Type], place: &Place, lateral: bool) -> (From, Scope) {
        let made = self.query(types, place);
        let alias = self.alias("q");
        let columns: Vec<_> = (1..=types.len()).map(|n| format!("c{n}")).collect();
        let described = columns.iter().zip(types).zip(&made.keys);
        let leaves = described.map(|((name, ty), key)| Leaf {
            expr: Expr::column(*ty, &alias, name),
            key: *key,
        });
        let scope = Scope::of_all(leaves.collect(), made.rows);
        let query = Box::new(made.query);
        let derived = From::Derived {
            lateral,
            query,
            alias,
            columns,
        };
        (derived, scope)
    }

    /// VALUES, generate_series, unnest: of constants, or of columns of what stands to the left.
    fn rows(&mut self, left: &Scope) -> (From, Scope) {
        let alias = self.alias("g");
        let of = |ty| {
            let fits = |l: &&Leaf| l.expr.ty == ty && l.expr.is_column();
            left.leaves.iter().filter(fits).collect::<Vec<_>>()
        };
        let (ints, texts, any_texts) = (of(Type::Int), of(Type::Texts), of(Type::Text));
        let mut arguments = Vec::new();
        let (template, columns, rows): (String, &[(&str, Type)], f64) = match self.random.below(6) {
            0 | 1 => {
                let values = "(values (1, 'a'), (2, 'b'), (null, 'c'), (40, null))";
                (
                    format!("{values} {alias}(x, y)"),
                    &[("x", Type::Int), ("y", Type::Text)],
                    4.0,
                )
            }
            2 if !ints.is_empty() => {
                arguments.push(self.random.pick(&ints).expr.clone());
                let series = format!("generate_series(1, ({{}} % 4)::int4) {alias}(x)");
                (series, &[("x", Type::Int)], 2.0)
            }
            3 if !texts.is_empty() => {
                arguments.push(self.random.pick(&texts).expr.clone());
                let series = format!("unnest({{}}) with ordinality {alias}(y, x)");
                (series, &[("y", Type::Text), ("x", Type::Int)], 2.0)
            }
            2 | 3 if !any_texts.is_empty() => {
                arguments.push(self.random.pick(&any_texts).expr.clone());
                let rows = format!("regexp_split_to_table({{}}, ' ') {alias}(y)");
                (rows, &[("y", Type::Text)], 2.0)
            }
            4 if self.random.chance(50) => {
                let arrays = "unnest(array[3, 7, 12], array['a', null])";
                (
                    format!("{arrays} with ordinality {alias}(x, y, n)"),
                    &[("x", Type::Int), ("y", Type::Text), ("n", Type::Int)],
                    3.0,
                )
            }
            5 if self.random.chance(30) => {
                let both = "rows from (generate_series(1, 3), unnest(array['a', 'b']))";
                (
                    format!("{both} {alias}(x, y)"),
                    &[("x", Type::Int), ("y", Type::Text)],
                    3.0,
                )
            }
            4 => {
                let array = "unnest(array[1, 2, null, 40]::int8[])";
                (format!("{array} {alias}(x)"), &[("x", Type::Int)], 4.0)
            }
            _ => {
                let series = format!("generate_series(1, 12) {alias}(x)");
                (series, &[("x", Type::Int)], 12.0)
            }
        };
        let leaf = |(name, ty): &(&str, Type)| Leaf {
            expr: Expr::column(*ty, &alias, name),
            key: *ty == Type::Int,
        };
        let scope = Scope::of_all(columns.iter().map(leaf).collect(), rows);
        let rows = From::Rows {
            template,
            arguments,
        };
        (rows, scope)
    }

    fn join(&mut self, left: From, scope: &Scope, right: From, other: &Scope) -> From {
        let lateral = match &right {
            From::Derived { lateral, .. } => *lateral,
            From::Rows { arguments, .. } => !arguments.is_empty(),
            _ => false,
        };
        let kinds = [
            "join",
            "join",
            "inner join",
            "left join",
            "left join",
            "left join",
            "right join",
            "full join",
            "cross join",
        ];
        let mut kind = self.random.one_of(&kinds);
        if lateral && ["right join", "full join"].contains(&kind) {
            kind = "left join";
        }
        if kind == "cross join" && scope.rows * other.rows > ROWS_MAX {
            kind = "join";
        }
        let on = match kind {
            "cross join" => On::Nothing,
            _ if lateral && self.random.chance(70) => On::Conditions(Vec::new()),
            _ => On::Conditions(self.join_conditions(scope, other, kind == "full join")),
        };
        let right = match kind != "full join" && !lateral && self.random.chance(12) {
            true => self.nested_join(right, other),
            false => right,
        };
        From::Join {
            kind,
            left: Box::new(left),
            right: Box::new(right),
            on,
        }
    }

    /// A join on the right side of a join. What it adds is not referred to.
    fn nested_join(&mut self, right: From, scope: &Scope) -> From {
        let (third, other) = self.table();
        let pairs = pairs(scope, &other);
        let Some((a, b)) = pairs.iter().find(|(a, b)| a.key && b.key) else {
            return right;
        };
        let arguments = vec![b.expr.clone(), a.expr.clone()];
        From::Join {
            kind: self
                .random
                .pick::<&'static str>(&["join", "left join", "full join"]),
            left: Box::new(right),
            right: Box::new(third),
            on: On::Conditions(vec![Expr::form(Type::Bool, "{} = {}", arguments)]),
        }
    }

    /// Conditions between both sides; of a FULL JOIN only equalities can be computed.
    fn join_conditions(&mut self, left: &Scope, right: &Scope, full: bool) -> Vec<Expr> {
        let pairs = pairs(left, right);
        let by_key: Vec<_> = pairs.iter().filter(|(a, b)| a.key && b.key).collect();
        let large = left.rows * right.rows > ROWS_MAX * 4.0;
        let mut conditions = Vec::new();
        let pair = match self.random.below(100) {
            _ if pairs.is_empty() => None,
            0..58 if !by_key.is_empty() => Some(self.random.one_of(&by_key)),
            _ if large && !by_key.is_empty() => Some(self.random.one_of(&by_key)),
            58..94 => Some(self.random.pick(&pairs)),
            _ if full || large => Some(self.random.pick(&pairs)),
            _ => None,
        };
        if let Some((a, b)) = pair {
            let (a, b) = (a.expr.clone(), b.expr.clone());
            let flip = self.random.chance(50);
            let arguments = if flip { vec![b, a] } else { vec![a, b] };
            let odd = [
                "({} is not distinct from {})",
                "({} <= {})",
                "({} <> {})",
                "(coalesce({}, null) = {})",
            ];
            let template = match !full && !large && self.random.chance(8) {
                true => self.random.one_of(&odd),
                false => "{} = {}",
            };
            conditions.push(Expr::form(Type::Bool, template, arguments));
        }
        if conditions.is_empty() && full {
            conditions.push(Expr::form(Type::Bool, "(1 = 1)", Vec::new()));
        }
        if !full && (conditions.is_empty() || self.random.chance(25)) {
            let all: Vec<_> = left.leaves.iter().chain(&right.leaves).cloned().collect();
            let env = Env::of(&all, &[]);
            let env = match self.random.chance(8) {
                true => env,
                false => env.without_subqueries(),
            };
            conditions.push(self.condition(&env, 1));
        }
        if !full && large && pair.is_none_or(|(a, b)| !(a.key && b.key)) {
            // Neither side is small, and many rows may agree.
            conditions.extend(few(left).into_iter().chain(few(right)));
        }
        conditions
    }

    /// Tables joined by USING (id), and the column that stands for both.
    fn using_chain(&mut self) -> (Vec<From>, Scope, Vec<Expr>) {
        let fits = |t: &&Table| t.key == "id" && t.columns[0] == ("id", Type::Int) && t.primary_key;
        let tables: Vec<_> = TABLES.iter().filter(fits).collect();
        let kinds = ["join", "left join", "right join", "full join"];
        let (mut from, mut scope) = {
            let first = self.random.one_of(&tables);
            self.table_item(first)
        };
        for _ in 0..=self.random.below(2) {
            let table = self.random.one_of(&tables);
            let (right, other) = self.table_item(table);
            let kind = self.random.one_of(&kinds);
            from = From::Join {
                kind,
                left: Box::new(from),
                right: Box::new(right),
                on: On::Using("id"),
            };
            scope = joined(scope, other);
        }
        let merged = Expr::column(Type::Int, "", "id");
        scope.identity.push(merged.clone());
        scope.leaves.push(Leaf {
            expr: merged,
            key: true,
        });
        (vec![from], scope, Vec::new())
    }
}

impl Scope {
    /// Rows without a key: only all columns tell them apart.
    fn of_all(leaves: Vec<Leaf>, rows: f64) -> Self {
        Self {
            identity: leaves.iter().map(|l| l.expr.clone()).collect(),
            leaves,
            rows,
            primary_key: Vec::new(),
        }
    }
}

fn scope_of(table: &Table, alias: &str) -> Scope {
    let column = |name: &str| {
        let described = table.columns.iter().find(|c| c.0 == name);
        let (name, ty) = described.expect("a column of the table");
        Expr::column(*ty, alias, name)
    };
    let leaf = |(name, ty): &(&str, Type)| {
        let expr = column(name);
        Leaf {
            key: *name == table.key,
            expr: match ty {
                // Arrays of different integers do not mix.
                Type::Ints => Expr::form(*ty, "({})::int8[]", vec![expr]),
                _ => expr,
            },
        }
    };
    let mut leaves: Vec<_> = table.columns.iter().map(leaf).collect();
    // The whole row, and all of its columns.
    for (relation, name) in [("", alias), (alias, "*")] {
        if !relation.is_empty() || !alias.contains('.') {
            leaves.push(Leaf {
                expr: Expr::column(Type::Opaque, relation, name),
                key: false,
            });
        }
    }
    let identity: Vec<_> = table.identity.iter().map(|name| column(name)).collect();
    Scope {
        leaves,
        primary_key: if table.primary_key {
            identity.clone()
        } else {
            Vec::new()
        },
        identity,
        rows: table.rows,
    }
}

fn joined(left: Scope, right: Scope) -> Scope {
    let by_key = pairs(&left, &right).iter().any(|(a, b)| a.key && b.key);
    let rows = match by_key {
        true => left.rows.max(right.rows) * 1.5,
        false => left.rows * right.rows / 10.0,
    };
    Scope {
        rows: rows.clamp(1.0, ROWS_MAX * 2.0),
        leaves: [left.leaves, right.leaves].concat(),
        identity: [left.identity, right.identity].concat(),
        primary_key: Vec::new(),
    }
}

/// Columns of one type on both sides.
fn pairs<'a>(left: &'a Scope, right: &'a Scope) -> Vec<(&'a Leaf, &'a Leaf)> {
    let mut pairs = Vec::new();
    for a in left.leaves.iter().filter(|l| l.expr.is_column()) {
        let fits = |b: &&Leaf| b.expr.ty == a.expr.ty && b.expr.is_column();
        pairs.extend(right.leaves.iter().filter(fits).map(|b| (a, b)));
    }
    pairs.retain(|(a, _)| a.expr.ty.is_ordered());
    pairs
}

/// A condition that few rows pass.
fn few(scope: &Scope) -> Option<Expr> {
    let key = scope
        .leaves
        .iter()
        .find(|l| l.key && l.expr.ty == Type::Int)?;
    let argument = vec![key.expr.clone()];
    Some(Expr::form(Type::Bool, "({} < 12)", argument))
}
