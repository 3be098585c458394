//! SELECT statements as the generator builds and the shrinker cuts them: less than SQL, and all of it means something.

use super::types::Type;

/// A statement with the parameters that its literals may stand for.
#[derive(Debug, Clone)]
pub struct Statement {
    pub query: Query,
    pub parameters: Vec<Parameter>,
}

/// The value of `$n`.
#[derive(Debug, Clone)]
pub struct Parameter {
    pub ty: Type,
    pub value: Option<&'static str>,
}

/// A query with everything that may stand around its body.
#[derive(Debug, Clone)]
pub struct Query {
    pub recursive: bool,
    pub ctes: Vec<Cte>,
    pub body: Body,
    pub order: Order,
    pub limit: Option<Limit>,
}

/// A named query of WITH.
#[derive(Debug, Clone)]
pub struct Cte {
    pub name: String,
    pub columns: Vec<String>,
    pub materialized: Option<bool>,
    pub query: Query,
    /// What follows the query: SEARCH or CYCLE.
    pub suffix: &'static str,
}

#[derive(Debug, Clone)]
pub enum Body {
    Select(Box<Select>),
    Values(Vec<Vec<Expr>>),
    SetOperation {
        operator: &'static str,
        left: Box<Query>,
        right: Box<Query>,
    },
}

#[derive(Debug, Clone, Default)]
pub struct Order {
    pub keys: Vec<SortKey>,
    /// All columns of the result follow as keys: rows may then be compared in sequence, and a LIMIT is determined.
    pub total: bool,
    /// Keys must stay: which rows there are depends on them.
    pub pinned: bool,
}

#[derive(Debug, Clone)]
pub struct SortKey {
    pub by: SortBy,
    pub direction: &'static str,
}

#[derive(Debug, Clone)]
pub enum SortBy {
    /// An output column by its position, from 1.
    Ordinal(usize),
    Name(String),
    Expr(Expr),
}

#[derive(Debug, Clone)]
pub struct Limit {
    pub count: Option<Expr>,
    pub offset: Option<Expr>,
    pub with_ties: bool,
}

#[derive(Debug, Clone)]
pub struct Select {
    pub distinct: Distinct,
    pub outputs: Vec<Output>,
    pub from: Vec<From>,
    /// Conjuncts of WHERE.
    pub filters: Vec<Expr>,
    pub grouping: Option<Grouping>,
    pub having: Option<Expr>,
}

#[derive(Debug, Clone)]
pub enum Distinct {
    No,
    All,
    On(Vec<Expr>),
}

#[derive(Debug, Clone)]
pub struct Output {
    pub expr: Expr,
    /// Empty: the name is PostgreSQL's choice.
    pub name: String,
}

#[derive(Debug, Clone)]
pub struct Grouping {
    pub kind: GroupingKind,
    pub keys: Vec<Expr>,
    /// Keys that are output columns are named by position.
    pub by_ordinal: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GroupingKind {
    Plain,
    Rollup,
    Cube,
    /// All keys, then all but the first, then none.
    Sets,
}

/// An item of FROM.
#[derive(Debug, Clone)]
pub enum From {
    /// A table, a view or a CTE.
    Table { name: String, alias: String },
    Derived {
        lateral: bool,
        query: Box<Query>,
        alias: String,
        columns: Vec<String>,
    },
    /// A function or VALUES; `template` has the alias in it.
    Rows {
        template: String,
        arguments: Vec<Expr>,
    },
    Join {
        kind: &'static str,
        left: Box<From>,
        right: Box<From>,
        on: On,
    },
}

#[derive(Debug, Clone)]
pub enum On {
    /// Conjuncts.
    Conditions(Vec<Expr>),
    Using(&'static str),
    Nothing,
}

/// An expression and the type of its value.
#[derive(Debug, Clone)]
pub struct Expr {
    pub ty: Type,
    pub node: Node,
}

#[derive(Debug, Clone)]
pub enum Node {
    Column {
        relation: String,
        name: String,
    },
    Literal {
        value: Option<&'static str>,
        /// The parameter it may be, counted from 0.
        parameter: Option<usize>,
    },
    /// `{}` in the template stands for an argument.
    Form {
        template: &'static str,
        arguments: Vec<Expr>,
    },
    /// Makes equal values equal bytes. The shrinker must not take it away.
    Canonical(Box<Expr>),
    Aggregate(Box<Aggregate>),
    Window(Box<Window>),
    /// The last `{}` of the template stands for the query.
    Subquery {
        template: &'static str,
        arguments: Vec<Expr>,
        query: Box<Query>,
    },
}

#[derive(Debug, Clone)]
pub struct Aggregate {
    pub template: &'static str,
    pub arguments: Vec<Expr>,
    pub distinct: bool,
    /// Of its input, with its argument as the last key; for WITHIN GROUP the argument itself.
    pub order: Vec<SortKey>,
    pub within_group: bool,
    pub filter: Option<Expr>,
}

#[derive(Debug, Clone)]
pub struct Window {
    pub template: &'static str,
    pub arguments: Vec<Expr>,
    pub partition: Vec<Expr>,
    pub order: Vec<SortKey>,
    /// Its order leaves nothing open, and must stay.
    pub pinned: bool,
    pub frame: &'static str,
}

impl Query {
    pub fn of(body: Body) -> Self {
        Self {
            recursive: false,
            ctes: Vec::new(),
            body,
            order: Order::default(),
            limit: None,
        }
    }

    /// The number of result columns.
    pub fn width(&self) -> usize {
        match &self.body {
            Body::Select(select) => select.outputs.len(),
            Body::Values(rows) => rows[0].len(),
            Body::SetOperation { left, .. } => left.width(),
        }
    }
}

impl Expr {
    pub fn new(ty: Type, node: Node) -> Self {
        Self { ty, node }
    }

    pub fn form(ty: Type, template: &'static str, arguments: Vec<Expr>) -> Self {
        Self::new(
            ty,
            Node::Form {
                template,
                arguments,
            },
        )
    }

    pub fn column(ty: Type, relation: &str, name: &str) -> Self {
        let (relation, name) = (relation.to_string(), name.to_string());
        Self::new(ty, Node::Column { relation, name })
    }

    /// The same value in the form that all equal values have.
    pub fn canonical(self) -> Self {
        match self.ty.canonical() {
            Some(_) => Self::new(self.ty, Node::Canonical(Box::new(self))),
            None => self,
        }
    }

    pub fn is_column(&self) -> bool {
        matches!(self.node, Node::Column { .. })
    }

    /// A column that means the same inside of a subquery.
    pub fn is_qualified(&self) -> bool {
        matches!(&self.node, Node::Column { relation, .. } if !relation.is_empty())
    }
}
