//! Statements that may fail, and then on every server: what fails is in the select list, and every row gets there.

use super::{Env, Generator, Place, Scope};
use crate::random::ast::*;
use crate::random::types::Type;

const FORMS: [(&str, Type); 9] = [
    ("(10 / ({} - 3))", Type::Int),
    ("({} % ({} - 5))", Type::Int),
    ("(({}) * 300)::int2", Type::Int),
    ("({})::int4", Type::Wide),
    ("({} + 9223372036854775000)", Type::Wide),
    ("({})::int4", Type::Text),
    ("({})::date", Type::Text),
    ("sqrt({})", Type::Numeric),
    ("ln({})", Type::Float),
];

impl Generator {
    /// One table, one failing expression: as it is, within an aggregate, or in a subquery.
    pub(super) fn failing(&mut self) -> Query {
        let (from, scope) = self.table();
        let env = Env::of(&scope.leaves, &[]).without_subqueries();
        let (template, ty) = self.random.one_of(&FORMS);
        let arguments = template.matches("{}").map(|_| self.expression(&env, ty, 0));
        let mut expr = Expr::form(Type::Opaque, template, arguments.collect());
        let mut grouping = None;
        match self.random.below(4) {
            0 => {
                let aggregates = ["max({})", "count({})", "count(distinct {})"];
                let template: &'static str = self.random.one_of(&aggregates);
                expr = Expr::form(Type::Opaque, template, vec![expr]);
                if let Some(key) = self.group_key(&scope.leaves) {
                    grouping = Some(Grouping {
                        kind: GroupingKind::Plain,
                        keys: vec![key],
                        by_ordinal: false,
                    });
                }
            }
            1 => expr = self.many_rows(&scope),
            _ => {}
        }
        let filter = self.random.chance(40).then(|| self.condition(&env, 0));
        Query::of(Body::Select(Box::new(Select {
            distinct: Distinct::No,
            outputs: vec![Output {
                expr,
                name: String::new(),
            }],
            from: vec![from],
            filters: filter.into_iter().collect(),
            grouping,
            having: None,
        })))
    }

    /// A scalar subquery that may have more than one row.
    fn many_rows(&mut self, scope: &Scope) -> Expr {
        let outer = Env::of(&scope.leaves, &[]).for_subquery();
        let made = self.query(&[Type::Int], &Place::correlated(&outer, true));
        let node = Node::Subquery {
            template: "({})",
            arguments: Vec::new(),
            query: Box::new(made.query),
        };
        Expr::new(Type::Opaque, node)
    }
}
