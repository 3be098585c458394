//! Statements as SQL text.

use super::ast::*;
use super::types::Type;

impl Statement {
    /// The text; with `inline` literals stand for the parameters.
    pub fn sql(&self, inline: bool) -> String {
        let printer = Printer {
            parameters: (!inline).then_some(&self.parameters[..]),
        };
        printer.query(&self.query)
    }
}

struct Printer<'a> {
    /// `None`: parameters are written as literals.
    parameters: Option<&'a [Parameter]>,
}

impl Printer<'_> {
    fn query(&self, query: &Query) -> String {
        let mut sql = String::new();
        if !query.ctes.is_empty() {
            let ctes: Vec<_> = query.ctes.iter().map(|c| self.cte(c)).collect();
            let recursive = if query.recursive { "recursive " } else { "" };
            sql += &format!("with {recursive}{} ", ctes.join(", "));
        }
        sql += &match &query.body {
            Body::Select(select) => self.select(select),
            Body::Values(rows) => {
                let row = |row: &Vec<Expr>| format!("({})", self.list(row));
                let rows: Vec<_> = rows.iter().map(row).collect();
                format!("values {}", rows.join(", "))
            }
            Body::SetOperation {
                operator,
                left,
                right,
            } => format!("{} {operator} {}", self.arm(left), self.arm(right)),
        };
        sql += &self.order(&query.order, query.width());
        sql + &self.limit(query.limit.as_ref())
    }

    fn arm(&self, query: &Query) -> String {
        let bare = query.ctes.is_empty() && query.limit.is_none() && !query.order.total;
        match query.body {
            Body::SetOperation { .. } => format!("({})", self.query(query)),
            _ if bare && query.order.keys.is_empty() => self.query(query),
            _ => format!("({})", self.query(query)),
        }
    }

    fn cte(&self, cte: &Cte) -> String {
        let columns = match cte.columns.is_empty() {
            true => String::new(),
            false => format!("({})", cte.columns.join(", ")),
        };
        let materialized = match cte.materialized {
            None => "",
            Some(true) => "materialized ",
            Some(false) => "not materialized ",
        };
        let query = self.query(&cte.query);
        let (name, suffix) = (&cte.name, cte.suffix);
        format!("{name}{columns} as {materialized}({query}){suffix}")
    }

    fn select(&self, select: &Select) -> String {
        let mut sql = match &select.distinct {
            Distinct::No => "select ".to_string(),
            Distinct::All => "select distinct ".to_string(),
            Distinct::On(keys) => format!("select distinct on ({}) ", self.list(keys)),
        };
        let outputs: Vec<_> = select.outputs.iter().map(|o| self.expr(&o.expr)).collect();
        let named = outputs.iter().zip(&select.outputs);
        let named: Vec<_> = named
            .map(|(sql, output)| match output.name.as_str() {
                "" => sql.clone(),
                name => format!("{sql} as {name}"),
            })
            .collect();
        sql += &named.join(", ");
        if !select.from.is_empty() {
            let items: Vec<_> = select.from.iter().map(|f| self.from(f)).collect();
            sql += &format!(" from {}", items.join(", "));
        }
        sql += &self.conjuncts(" where ", &select.filters);
        if let Some(grouping) = &select.grouping {
            sql += &self.grouping(grouping, &outputs);
        }
        let having = select.having.iter().map(|h| self.expr(h));
        sql + &having.map(|h| format!(" having {h}")).collect::<String>()
    }

    fn grouping(&self, grouping: &Grouping, outputs: &[String]) -> String {
        let key = |key: &Expr| {
            let sql = self.expr(key);
            let at = outputs.iter().position(|o| *o == sql);
            match at {
                Some(at) if grouping.by_ordinal => (at + 1).to_string(),
                _ => sql,
            }
        };
        let keys: Vec<_> = grouping.keys.iter().map(key).collect();
        let all = keys.join(", ");
        match grouping.kind {
            _ if keys.is_empty() => " group by ()".to_string(),
            GroupingKind::Plain => format!(" group by {all}"),
            GroupingKind::Rollup => format!(" group by rollup({all})"),
            GroupingKind::Cube => format!(" group by cube({all})"),
            GroupingKind::Sets => {
                let rest = keys[1..].join(", ");
                format!(" group by grouping sets(({all}), ({rest}), ())")
            }
        }
    }

    fn from(&self, from: &From) -> String {
        match from {
            From::Table { name, alias } => match name == alias {
                true => name.clone(),
                false => format!("{name} {alias}"),
            },
            From::Derived {
                lateral,
                query,
                alias,
                columns,
            } => {
                let lateral = if *lateral { "lateral " } else { "" };
                let (query, columns) = (self.query(query), columns.join(", "));
                format!("{lateral}({query}) {alias}({columns})")
            }
            From::Rows {
                template,
                arguments,
            } => fill(template, arguments.iter().map(|a| self.expr(a))),
            From::Join {
                kind,
                left,
                right,
                on,
            } => {
                let left = self.from(left);
                let right = match **right {
                    From::Join { .. } => format!("({})", self.from(right)),
                    _ => self.from(right),
                };
                let on = match on {
                    On::Conditions(all) if all.is_empty() => " on true".to_string(),
                    On::Conditions(all) => self.conjuncts(" on ", all),
                    On::Using(column) => format!(" using ({column})"),
                    On::Nothing => String::new(),
                };
                format!("{left} {kind} {right}{on}")
            }
        }
    }

    fn conjuncts(&self, word: &str, conditions: &[Expr]) -> String {
        let all: Vec<_> = conditions.iter().map(|c| self.expr(c)).collect();
        match all.is_empty() {
            true => String::new(),
            false => format!("{word}{}", all.join(" and ")),
        }
    }

    fn list(&self, exprs: &[Expr]) -> String {
        let all: Vec<_> = exprs.iter().map(|e| self.expr(e)).collect();
        all.join(", ")
    }

    fn order(&self, order: &Order, width: usize) -> String {
        let mut keys: Vec<_> = order.keys.iter().map(|k| self.key(k)).collect();
        if order.total {
            keys.extend((1..=width).map(|n| n.to_string()));
        }
        match keys.is_empty() {
            true => String::new(),
            false => format!(" order by {}", keys.join(", ")),
        }
    }

    fn limit(&self, limit: Option<&Limit>) -> String {
        let Some(limit) = limit else {
            return String::new();
        };
        let offset = limit.offset.iter().map(|o| self.expr(o));
        let offset = offset.map(|o| format!(" offset {o}"));
        let count = limit.count.iter().map(|c| self.expr(c));
        let count = count.map(|c| match limit.with_ties {
            true => format!(" fetch first {c} rows with ties"),
            false => format!(" limit {c}"),
        });
        count.chain(offset).collect()
    }

    fn key(&self, key: &SortKey) -> String {
        let by = match &key.by {
            SortBy::Ordinal(n) => n.to_string(),
            SortBy::Name(name) => name.clone(),
            SortBy::Expr(expr) => self.expr(expr),
        };
        by + key.direction
    }

    fn keys(&self, keys: &[SortKey]) -> String {
        let all: Vec<_> = keys.iter().map(|k| self.key(k)).collect();
        all.join(", ")
    }

    fn expr(&self, expr: &Expr) -> String {
        match &expr.node {
            Node::Column { relation, name } => match relation.as_str() {
                "" => name.clone(),
                relation => format!("{relation}.{name}"),
            },
            Node::Literal { value, parameter } => match (self.parameters, parameter) {
                (Some(_), Some(n)) => format!("${}", n + 1),
                _ => literal(expr.ty, *value),
            },
            Node::Form {
                template,
                arguments,
            } => fill(template, arguments.iter().map(|a| self.expr(a))),
            Node::Canonical(inner) => {
                let template = expr.ty.canonical().unwrap_or("{}");
                fill(template, std::iter::once(self.expr(inner)))
            }
            Node::Aggregate(aggregate) => self.aggregate(aggregate),
            Node::Window(window) => self.window(window),
            Node::Subquery {
                template,
                arguments,
                query,
            } => {
                let arguments = arguments.iter().map(|a| self.expr(a));
                fill(template, arguments.chain([self.query(query)]))
            }
        }
    }

    fn aggregate(&self, aggregate: &Aggregate) -> String {
        let mut template = aggregate.template.to_string();
        let order = match aggregate.order.is_empty() {
            true => String::new(),
            false => format!("order by {}", self.keys(&aggregate.order)),
        };
        if aggregate.distinct {
            template = template.replacen('(', "(distinct ", 1);
        }
        let mut sql = fill(&template, aggregate.arguments.iter().map(|a| self.expr(a)));
        sql = sql.replace("{order}", &order);
        if aggregate.within_group {
            sql += &format!(" within group ({order})");
        }
        if let Some(filter) = &aggregate.filter {
            sql += &format!(" filter (where {})", self.expr(filter));
        }
        sql
    }

    fn window(&self, window: &Window) -> String {
        let mut parts = Vec::new();
        if !window.partition.is_empty() {
            parts.push(format!("partition by {}", self.list(&window.partition)));
        }
        if !window.order.is_empty() {
            parts.push(format!("order by {}", self.keys(&window.order)));
        }
        if !window.frame.is_empty() {
            parts.push(window.frame.to_string());
        }
        let call = fill(
            window.template,
            window.arguments.iter().map(|a| self.expr(a)),
        );
        format!("{call} over ({})", parts.join(" "))
    }
}

/// The template with its `{}` replaced in order.
fn fill(template: &str, mut arguments: impl Iterator<Item = String>) -> String {
    let mut pieces = template.split("{}");
    let mut sql = pieces.next().unwrap_or("").to_string();
    for piece in pieces {
        sql += &arguments.next().expect("an argument for each place");
        sql += piece;
    }
    sql
}

fn literal(ty: Type, value: Option<&str>) -> String {
    match (ty, value) {
        (Type::Int, Some(v)) if v.starts_with('-') => format!("({v})"),
        (Type::Int | Type::Bool, Some(v)) => v.to_string(),
        (Type::CText, Some(v)) => format!("'{v}'::text collate \"C\""),
        (Type::CText, None) => "null::text collate \"C\"".to_string(),
        (ty, Some(v)) => format!("'{v}'::{}", ty.name()),
        (ty, None) => format!("null::{}", ty.name()),
    }
}
