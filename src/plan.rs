//! The plan: what runs where, as pure data.
//!
//! One tree is at once what the executor runs, what EXPLAIN prints (its `Display`) and what the golden tests compare.
//! Nothing here talks to a shard or looks into a catalog.

mod display;
mod outline;

use std::sync::Arc;

use crate::catalog::sharding::{KeyDatum, Sharding, ShardingFunction};
use crate::metrics::Reason;
use crate::types::compare::TextOrder;

pub use crate::catalog::ShardId;

/// What planning a statement yields: where it may go unchanged, and what runs when that is more than one shard.
#[derive(Debug, Clone)]
pub struct Planned {
    /// The shards to which the *whole* statement is pinned. When it comes to at most one shard with the parameters of a
    /// Bind, the client's text goes there unchanged and `fan_out` is not looked at.
    pub route: Targets,
    /// What runs when `route` leaves several shards.
    pub fan_out: Result<Arc<Plan>, Refusal>,
    /// What runs when `fan_out` fails: it computes nothing ahead of need that may raise an error. `None` where `fan_out` does not
    /// either.
    pub lazy: Option<Arc<Plan>>,
    /// `fan_out` brings rows of tables to a merge session, not only what groups or limits leave of them on the shards.
    pub gathers: bool,
    /// Set for INSERT, UPDATE and DELETE: they run where `route` leaves one shard, or not at all.
    pub write: Option<Write>,
    /// False where a statement may change data or session state.
    pub read_only: bool,
    /// True when it takes no locks and calls nothing that may leave something in its transaction.
    pub leaves_nothing: bool,
    /// It asks for what changes from one moment or server to the next: a client that has sent several statements at once gets it
    /// in its turn.
    pub in_turn: bool,
    /// Set when the client's text names now() or its like: it needs `clocked` where several statements share a transaction.
    pub uses_now: bool,
    /// It has constants such as `'now'::timestamptz`, which mean the moment of its preparation.
    pub frozen: bool,
    /// The client's text for one shard with parameters for what it reads of the clock; `None` where it reads nothing of it, or
    /// reads it where no parameter reaches.
    pub clocked: Option<Remote>,
}

/// What must be known of a change when its parameters are.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Write {
    /// It adds rows: no shard at all is no place for them.
    pub inserts: bool,
    /// 0-based parameters that become sharding keys of new rows: NULL has no place.
    pub key_parameters: Vec<usize>,
    /// The key's type cuts blanks from the end of a string, so that its place would be another one's.
    pub trims: bool,
    /// It reads now(), or a default does: the shard's own.
    pub reads_clock: bool,
}

/// Shards that may hold rows a step needs.
#[derive(Debug, Clone, PartialEq)]
pub enum Targets {
    /// Any one shard gives the same rows (reference tables, constants).
    Any,
    /// The catalog shard: catalog queries, whose OIDs clients keep.
    Catalog,
    /// One named shard (single tables).
    Shard(ShardId),
    /// Every shard.
    All,
    /// The shards on which rows with the right key can lie, known when parameters are bound. When none is left, one shard
    /// still runs the step: an aggregate over no rows returns a row.
    Keyed(KeyCondition),
}

/// A condition on sharding keys, evaluated to a set of shards at Bind.
#[derive(Debug, Clone, PartialEq)]
pub enum KeyCondition {
    /// Nothing is known: every shard.
    Any,
    /// No row can match.
    Never,
    /// `key = value`; a NULL value matches nothing.
    Equal {
        /// How the key's table is spread.
        sharding: Arc<Sharding>,
        /// What the key equals.
        value: KeyValue,
    },
    /// `key = ANY ($n)`: every element of the array parameter.
    AnyOf {
        /// How the key's table is spread.
        sharding: Arc<Sharding>,
        /// 0-based, an array of a type the planner has found compatible with the key.
        parameter: usize,
    },
    /// `key IS NULL`.
    IsNull {
        /// How the key's table is spread.
        sharding: Arc<Sharding>,
    },
    /// Shards that every part allows.
    And(Vec<KeyCondition>),
    /// Shards that some part allows.
    Or(Vec<KeyCondition>),
}

/// A value compared with a key.
#[derive(Debug, Clone, PartialEq)]
pub enum KeyValue {
    /// Known when planning.
    Constant(KeyDatum),
    /// 0-based index of a parameter whose type the planner has found compatible with the key.
    Parameter(usize),
}

/// A tree of steps.
#[derive(Debug, Clone, PartialEq)]
pub enum Plan {
    /// SQL run on shards. Several shards under `Gather`, `GatherMerge`, `FinalAggregate` or `Distinct` only.
    Remote(Remote),
    /// Rows of all shards, in any order, as they arrive.
    Gather {
        /// A `Remote`, on several shards as a rule.
        input: Box<Plan>,
    },
    /// Rows of all shards, each sorted by `keys`, merged into that order. The keys are the trailing hidden columns of the
    /// remote, asked for in binary form and cut from the rows before they leave this step.
    GatherMerge {
        /// A `Remote`, on several shards as a rule.
        input: Box<Plan>,
        /// The first decides, each further one between rows equal so far.
        keys: Vec<SortKey>,
    },
    /// At most `count` rows after `offset` rows.
    Limit {
        /// Whose rows are counted; it is stopped when they are enough.
        input: Box<Plan>,
        /// `None`: no limit.
        count: Option<Count>,
        /// `None`: from the first row.
        offset: Option<Count>,
    },
    /// Puts partial aggregates of the shards together, see [`Final`]. The remote's visible columns are the group columns, then
    /// the values of min and max, in the client's formats; all that is computed with trails hidden, in binary.
    FinalAggregate {
        /// A `Remote` that sends one row a group and shard.
        input: Box<Plan>,
        /// How many columns, the first ones, make the group; 0: one group, there even without rows.
        groups: usize,
        /// What is computed for each group.
        aggregates: Vec<Final>,
        /// What a row consists of, in the order of its columns.
        output: Vec<OutputColumn>,
        /// The same on the merge session, for more groups than the proxy may hold.
        spill: Option<Arc<Plan>>,
    },
    /// Rows without repetition, equal when their bytes are equal.
    Distinct {
        /// Whose rows repeat.
        input: Box<Plan>,
    },
    /// Runs `sql` on the merge session over rows that stages brought there. Its first parameters are the client's, then
    /// `extra`, then whatever the executor needs for the stages.
    Combine {
        /// The statement, cut where it names a stage.
        sql: Vec<SqlPart>,
        /// What it reads, filled before it starts.
        stages: Vec<Stage>,
        /// Values behind the client's parameters.
        extra: Vec<Extra>,
    },
}

/// SQL for shards. Its first parameters are the client's, unchanged; `extra` ones follow.
#[derive(Debug, Clone, PartialEq)]
pub struct Remote {
    /// The shards that run it.
    pub targets: Targets,
    /// With the placeholders of the client's text and those of `extra`.
    pub sql: String,
    /// The text for the first target only, where it differs: the shard that also gives the rows of replicated UNION ALL arms.
    pub first_sql: Option<String>,
    /// Columns that leave this step; more columns than that are hidden ones in binary form.
    pub visible: usize,
    /// Hidden trailing columns (sort keys, or binary companions of min/max), always asked for in binary form.
    pub hidden: usize,
    /// Values behind the client's parameters.
    pub extra: Vec<Extra>,
}

/// A value the proxy adds behind the client's parameters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Extra {
    /// The transaction's one value of now(), a timestamptz.
    TransactionTimestamp,
    /// When the message came that runs the statement: statement_timestamp().
    StatementTimestamp,
    /// now() of the transaction in which the statement was prepared: what its constants `'now'` and `'today'` mean.
    PreparedTimestamp,
}

/// How rows are ordered by one hidden column. Types are those of the remote's row description.
#[derive(Debug, Clone, PartialEq)]
pub struct SortKey {
    /// As EXPLAIN shows it.
    pub text: String,
    /// DESC.
    pub descending: bool,
    /// NULLS FIRST, which is also what DESC says without NULLS.
    pub nulls_first: bool,
    /// Name of the collation the key is compared under, where its type has one.
    pub collation: Option<Collation>,
}

/// A collation as `pg_collation` names it, with what the proxy must know to compare as it does.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Collation {
    /// `collname`, without its schema.
    pub name: String,
    /// Whose code compares.
    pub provider: CollationProvider,
    /// The C library's name of the locale (`en_US.UTF-8`, `C`).
    pub locale: String,
    /// Strings are equal only when their bytes are (`collisdeterministic`).
    pub deterministic: bool,
    /// The version the catalog recorded, compared with the proxy's own C library before it may sort by it.
    pub version: Option<String>,
}

impl Collation {
    /// What the proxy knows of its order; `types::compare::Comparator::new` says whether that is enough.
    pub fn text_order(&self) -> TextOrder<'_> {
        match self.provider {
            _ if !self.deterministic => TextOrder::Unknown,
            CollationProvider::Bytes => TextOrder::Bytes,
            CollationProvider::Libc if matches!(self.locale.as_str(), "C" | "POSIX") => {
                TextOrder::Bytes
            }
            CollationProvider::Libc => TextOrder::Libc {
                locale: &self.locale,
                version: self.version.as_deref(),
            },
            CollationProvider::Icu => TextOrder::Unknown,
        }
    }
}

/// Whose code compares the strings of a collation (`collprovider`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CollationProvider {
    /// Byte order: C, POSIX, ucs_basic.
    Bytes,
    /// The C library, by `strcoll_l`.
    Libc,
    /// ICU, which the proxy does not have: it compares nothing under it.
    Icu,
}

/// A row count of LIMIT or OFFSET.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Count {
    /// Known when planning.
    Rows(u64),
    /// 0-based client parameter of type int8; NULL means no limit.
    Parameter(usize),
}

/// One aggregate over the partial columns that shards send. Columns are 0-based positions in the remote's row.
#[derive(Debug, Clone, PartialEq)]
pub struct Final {
    /// What is computed.
    pub function: FinalFunction,
    /// As EXPLAIN shows it: `sum(l_quantity)`.
    pub text: String,
}

/// How partial aggregates become one. Except where said, NULL partials are left out and no partial gives NULL.
#[derive(Debug, Clone, PartialEq)]
pub enum FinalFunction {
    /// count: partial counts (int8, binary) are added; never NULL.
    Count {
        /// Of the partial counts.
        column: usize,
    },
    /// count(DISTINCT x): the different values of a hidden column, equal when their bytes are; never NULL.
    CountDistinct {
        /// Of the values, in binary form, by which the shards group too.
        column: usize,
    },
    /// sum: the partial's own type (int8, numeric, float4, float8; binary), NULL when all are NULL. An int8 overflow is 22003.
    /// int8 partials of sum(int2/int4) stay int8.
    Sum {
        /// Of the partial sums.
        column: usize,
    },
    /// avg over integers or numeric: numeric `sum` and int8 `count` partials, divided with PostgreSQL's scale rule; over floats: a float8 sum.
    Average {
        /// Of the partial sums.
        sum: usize,
        /// Of the partial counts.
        count: usize,
    },
    /// min/max: `key` is the binary companion that decides, `value` the column whose own bytes go out.
    Min {
        /// Of the partial minima, as the client gets them.
        value: usize,
        /// Of the same values in binary form.
        key: usize,
        /// Of strings.
        collation: Option<Collation>,
    },
    /// As `Min`, the greatest.
    Max {
        /// Of the partial maxima, as the client gets them.
        value: usize,
        /// Of the same values in binary form.
        key: usize,
        /// Of strings.
        collation: Option<Collation>,
    },
    /// bool_and, every.
    BoolAnd {
        /// Of the partial answers, binary.
        column: usize,
    },
    /// bool_or.
    BoolOr {
        /// Of the partial answers, binary.
        column: usize,
    },
}

/// A column of a `FinalAggregate`'s output row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OutputColumn {
    /// The n-th group column (its bytes as the first shard sent them, in the client's format).
    Group(usize),
    /// The n-th aggregate, in the client's format.
    Aggregate(usize),
}

/// A piece of a Combine's statement.
#[derive(Debug, Clone, PartialEq)]
pub enum SqlPart {
    /// SQL as it stands.
    Text(String),
    /// The relation that the n-th stage became, a FROM item without its alias (the text that follows gives one).
    Stage(usize),
}

/// Rows brought to the merge session, where `Combine` reads them as a relation called `name`.
#[derive(Debug, Clone, PartialEq)]
pub struct Stage {
    /// As EXPLAIN shows it: `stage_1`.
    pub name: String,
    /// Of the relation, in the order of the plan's columns.
    pub columns: Vec<StageColumn>,
    /// Whose rows it holds.
    pub plan: Plan,
    /// Conditions that values of earlier stages make. Where there are any, the text of the plan's remote ends in a WHERE clause
    /// to which they can be added.
    pub filters: Vec<StageFilter>,
}

/// `expression = ANY (values of a column of an earlier stage)`: a semi-join filter. Rows that fail it meet no row of that stage, so that
/// leaving it out makes a stage larger, never another result. It is left out where the values are many.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StageFilter {
    /// What is compared, as SQL in the remote's text.
    pub expression: String,
    /// Position of the earlier stage.
    pub stage: usize,
    /// Position of its column.
    pub column: usize,
}

/// A column of the relation that a stage becomes.
#[derive(Debug, Clone, PartialEq)]
pub struct StageColumn {
    /// Not quoted.
    pub name: String,
    /// The SQL name of its type, with type modifier, as `format_type` prints it.
    pub type_name: String,
    /// On the catalog shard.
    pub type_oid: u32,
    /// Quoted name of an explicit collation, where the column needs one other than its type's.
    pub collation: Option<String>,
    /// A subquery compares it with a column from further out, row by row: worth an index where the stage is large.
    pub joined: bool,
}

/// A statement that cannot be proved exact, with what the user may do instead. Always SQLSTATE 0A000.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("{message}")]
pub struct Refusal {
    /// What kind of thing it is, for whoever counts refusals.
    pub reason: Reason,
    /// What cannot be proved, as the client reads it.
    pub message: String,
    /// What to write instead.
    pub hint: String,
    /// 0-based byte offset in the client's text, where one place is to blame.
    pub location: Option<usize>,
}

impl KeyCondition {
    /// The shards that the condition leaves whatever the parameters are, ascending; `None` while a parameter decides or
    /// nothing is known.
    pub fn constant_shards(&self) -> Option<Vec<ShardId>> {
        let place = |sharding: &Sharding, key: &KeyDatum| match key {
            KeyDatum::Null => Some(Vec::new()),
            key if sharding.accepts(key) => Some(sharding.shard_of(key).into_iter().collect()),
            _ => None,
        };
        match self {
            Self::Any | Self::AnyOf { .. } => None,
            Self::Never => Some(Vec::new()),
            Self::Equal { sharding, value } => match value {
                KeyValue::Constant(key) => place(sharding, key),
                KeyValue::Parameter(_) => None,
            },
            Self::IsNull { sharding } => match sharding.function {
                // Elsewhere rows without a key are wherever the application put them.
                ShardingFunction::Postgres | ShardingFunction::List(_) => {
                    Some(sharding.shard_of(&KeyDatum::Null).into_iter().collect())
                }
                _ => None,
            },
            Self::And(parts) => parts
                .iter()
                .filter_map(Self::constant_shards)
                .reduce(|a, b| a.into_iter().filter(|s| b.contains(s)).collect()),
            Self::Or(parts) => {
                let sets: Option<Vec<Vec<ShardId>>> =
                    parts.iter().map(Self::constant_shards).collect();
                let mut all = sets?.concat();
                all.sort_unstable();
                all.dedup();
                Some(all)
            }
        }
    }

    /// True when a parameter takes part.
    pub fn has_parameter(&self) -> bool {
        match self {
            Self::AnyOf { .. } => true,
            Self::Equal { value, .. } => matches!(value, KeyValue::Parameter(_)),
            Self::And(parts) | Self::Or(parts) => parts.iter().any(Self::has_parameter),
            Self::Any | Self::Never | Self::IsNull { .. } => false,
        }
    }
}
