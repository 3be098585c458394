//! The kinds of statement a session tells apart, with what it must know of each.

use super::copy::CopyTo;
use super::lock::LockTables;

/// A statement by who deals with it.
#[derive(Debug, Clone, PartialEq)]
pub enum Kind {
    /// Nothing but white space and comments.
    Empty,
    /// SELECT, VALUES, TABLE. A data-modifying CTE does not make it another kind: see `writes`.
    Select {
        /// WITH … INSERT/UPDATE/DELETE/MERGE, or SELECT INTO.
        writes: bool,
        /// FOR UPDATE and its like at any level.
        locks: bool,
    },
    /// EXPLAIN.
    Explain {
        /// What stands before the statement.
        options: ExplainOptions,
        /// The statement explained.
        inner: String,
    },
    /// BEGIN, START TRANSACTION.
    Begin {
        /// Modes of the transaction.
        options: TransactionOptions,
    },
    /// COMMIT, END.
    Commit {
        /// AND CHAIN.
        chain: bool,
    },
    /// ROLLBACK, ABORT.
    Rollback {
        /// AND CHAIN.
        chain: bool,
    },
    /// PREPARE TRANSACTION, COMMIT PREPARED, ROLLBACK PREPARED.
    TwoPhase,
    /// SAVEPOINT.
    Savepoint {
        /// Not quoted, as are all names here.
        name: String,
    },
    /// RELEASE SAVEPOINT.
    Release {
        /// The savepoint.
        name: String,
    },
    /// ROLLBACK TO SAVEPOINT.
    RollbackTo {
        /// The savepoint.
        name: String,
    },
    /// SET name = …; `SET TIME ZONE` is `timezone`, `SET ROLE` `role`. `to_default` for `= DEFAULT`.
    Set {
        /// Of the setting, as the parser spells it.
        name: String,
        /// SET LOCAL: until the transaction ends.
        local: bool,
        /// SET name TO DEFAULT.
        to_default: bool,
        /// The value, where it is one word or string.
        value: Option<String>,
    },
    /// RESET name, or ALL where `None`.
    Reset {
        /// Of the setting.
        name: Option<String>,
    },
    /// SHOW.
    Show {
        /// Of the setting; `all` for SHOW ALL.
        name: String,
    },
    /// SET TRANSACTION.
    SetTransaction {
        /// Modes of this transaction.
        options: TransactionOptions,
    },
    /// SET SESSION CHARACTERISTICS AS TRANSACTION.
    SetSessionCharacteristics {
        /// Modes of the transactions to come.
        options: TransactionOptions,
    },
    /// SET CONSTRAINTS.
    SetConstraints,
    /// DISCARD ALL, PLANS, SEQUENCES, TEMP.
    Discard {
        /// DISCARD ALL, which resets the whole session.
        all: bool,
    },
    /// DEALLOCATE name, or ALL where `None`.
    Deallocate {
        /// Of the prepared statement.
        name: Option<String>,
    },
    /// PREPARE.
    Prepare {
        /// Of the prepared statement.
        name: String,
        /// The statement prepared, printed from its tree.
        inner: String,
    },
    /// EXECUTE.
    Execute {
        /// Of the prepared statement.
        name: String,
    },
    /// DECLARE.
    DeclareCursor {
        /// Of the cursor.
        name: String,
        /// Its options.
        cursor: CursorKind,
        /// The cursor's query.
        inner: String,
    },
    /// FETCH, MOVE.
    Fetch {
        /// Of the cursor.
        name: String,
        /// How `count` is meant.
        direction: FetchDirection,
        /// i64::MAX for ALL.
        count: i64,
        /// MOVE: the rows are passed over.
        is_move: bool,
    },
    /// CLOSE name, or ALL where `None`.
    CloseCursor {
        /// Of the cursor.
        name: Option<String>,
    },
    /// COPY … TO.
    CopyTo(Box<CopyTo>),
    /// COPY … FROM.
    CopyIn,
    /// LISTEN.
    Listen,
    /// UNLISTEN.
    Unlisten,
    /// NOTIFY.
    Notify,
    /// LOCK TABLE.
    Lock(Box<LockTables>),
    /// INSERT.
    Insert,
    /// UPDATE.
    Update,
    /// DELETE.
    Delete,
    /// MERGE.
    Merge,
    /// Anything that changes the catalog; also VACUUM, ANALYZE, REINDEX and their like.
    Ddl,
    /// DO.
    Do,
    /// LOAD.
    Load,
    /// CALL, CHECKPOINT: what they do cannot be told from their text.
    Other,
}

/// Form of an EXPLAIN's answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ExplainFormat {
    /// PostgreSQL's default.
    #[default]
    Text,
    /// JSON, YAML or XML.
    Other,
}

/// Options of an EXPLAIN.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ExplainOptions {
    /// ANALYZE: the statement runs.
    pub analyze: bool,
    /// VERBOSE.
    pub verbose: bool,
    /// FORMAT.
    pub format: ExplainFormat,
    /// Name and value of every option, for passing on.
    pub all: Vec<(String, Option<String>)>,
}

/// Modes of a transaction; `None` where the statement does not say.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TransactionOptions {
    /// `serializable`, `repeatable read`, `read committed`, `read uncommitted`.
    pub isolation: Option<String>,
    /// READ ONLY, or READ WRITE.
    pub read_only: Option<bool>,
    /// DEFERRABLE, or NOT DEFERRABLE.
    pub deferrable: Option<bool>,
    /// SET TRANSACTION SNAPSHOT.
    pub snapshot: Option<String>,
}

/// Options of DECLARE.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CursorKind {
    /// BINARY.
    pub binary: bool,
    /// SCROLL.
    pub scroll: bool,
    /// NO SCROLL.
    pub no_scroll: bool,
    /// WITH HOLD: it outlives its transaction.
    pub hold: bool,
}

/// Direction of a FETCH.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FetchDirection {
    /// The next `count` rows.
    Forward,
    /// The `count` rows before, nearest first.
    Backward,
    /// The `count`-th row; negative from the end.
    Absolute,
    /// The `count`-th row from here.
    Relative,
}
