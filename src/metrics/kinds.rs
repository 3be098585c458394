//! The words that metrics are labelled with: nothing a client sends ever becomes one.

/// How a statement was answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum QueryKind {
    /// By pgbraid itself or the session's own connections: SET, SHOW, BEGIN …
    Session,
    /// Whole and unchanged by one shard.
    Routed,
    /// By several shards, put together in the proxy.
    PushDown,
    /// With a last step on a merge session, over what subqueries, groups or limits leave of the rows on the shards.
    Staged,
    /// With a last step on a merge session, over rows of tables.
    Gathered,
    /// Not at all: it could not be proved exact (0A000).
    Refused,
}

impl QueryKind {
    /// In the order of their numbers.
    pub const ALL: [Self; 6] = [
        Self::Session,
        Self::Routed,
        Self::PushDown,
        Self::Staged,
        Self::Gathered,
        Self::Refused,
    ];

    /// As the metrics' label has it.
    pub fn label(self) -> &'static str {
        match self {
            Self::Session => "session",
            Self::Routed => "routed",
            Self::PushDown => "push_down",
            Self::Staged => "staged",
            Self::Gathered => "gathered",
            Self::Refused => "refused",
        }
    }
}

/// Why a client was sent away before its first statement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClientRefused {
    /// `server.max_clients` are there already.
    TooMany,
    /// Unknown user, wrong password, wrong database.
    Authentication,
    /// What it sent was no startup packet.
    Protocol,
    /// It did not finish its login in time.
    LoginTimeout,
}

impl ClientRefused {
    pub(super) const ALL: [Self; 4] = [
        Self::TooMany,
        Self::Authentication,
        Self::Protocol,
        Self::LoginTimeout,
    ];

    pub(super) fn label(self) -> &'static str {
        match self {
            Self::TooMany => "too_many",
            Self::Authentication => "authentication",
            Self::Protocol => "protocol",
            Self::LoginTimeout => "login_timeout",
        }
    }
}

/// Why a shard connection was closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConnectionClosed {
    /// Unused for `pool.idle_timeout`.
    Idle,
    /// Older than `pool.max_lifetime`.
    Age,
    /// Not clean when it was given back.
    Dirty,
    /// The shard closed it, or the network did.
    Lost,
    /// It would be opened otherwise today: another configuration or address, RECONNECT, PAUSE.
    Replaced,
}

impl ConnectionClosed {
    /// In the order of their numbers.
    pub const ALL: [Self; 5] = [
        Self::Idle,
        Self::Age,
        Self::Dirty,
        Self::Lost,
        Self::Replaced,
    ];

    pub(super) fn label(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Age => "age",
            Self::Dirty => "dirty",
            Self::Lost => "lost",
            Self::Replaced => "replaced",
        }
    }
}

/// Why a statement is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// A relation that the configuration does not name, or names otherwise than the shards have it.
    Undeclared,
    /// Row security that may read rows of other shards.
    RowSecurity,
    /// A check, domain or cast that may read tables.
    Check,
    /// FOR UPDATE and LOCK TABLE where one shard cannot decide.
    Lock,
    /// DDL, and what is like it: SELECT INTO, DO, LOAD.
    Schema,
    /// Temporary tables and notifications, which are the first shard's.
    Temporary,
    /// A change that one shard alone cannot make, or cannot keep right.
    Write,
    /// COPY in other forms than TO STDOUT of what can be read.
    Copy,
    /// Cursors and portals.
    Cursor,
    /// What may depend on the clock.
    Clock,
    /// A function whose answer or effect is not that of one server.
    Function,
    /// Catalogs beside rows of several shards, and what is another on each server: OIDs, system columns.
    Catalog,
    /// The client's encoding.
    Encoding,
    /// More than the transaction's snapshots can give.
    Snapshot,
    /// A view that cannot be looked into.
    View,
    /// EXPLAIN in another form or of another statement.
    Explain,
    /// A value of a setting under which answers would differ.
    Setting,
    /// A form of SELECT for which there is no plan.
    Form,
    /// Nothing of these: pgbraid itself could not go on.
    Other,
}

impl Reason {
    /// In the order of their numbers.
    pub const ALL: [Self; 19] = [
        Self::Undeclared,
        Self::RowSecurity,
        Self::Check,
        Self::Lock,
        Self::Schema,
        Self::Temporary,
        Self::Write,
        Self::Copy,
        Self::Cursor,
        Self::Clock,
        Self::Function,
        Self::Catalog,
        Self::Encoding,
        Self::Snapshot,
        Self::View,
        Self::Explain,
        Self::Setting,
        Self::Form,
        Self::Other,
    ];

    /// As the metrics' label has it.
    pub fn label(self) -> &'static str {
        match self {
            Self::Undeclared => "undeclared",
            Self::RowSecurity => "row_security",
            Self::Check => "check",
            Self::Lock => "lock",
            Self::Schema => "schema",
            Self::Temporary => "temporary",
            Self::Write => "write",
            Self::Copy => "copy",
            Self::Cursor => "cursor",
            Self::Clock => "clock",
            Self::Function => "function",
            Self::Catalog => "catalog",
            Self::Encoding => "encoding",
            Self::Snapshot => "snapshot",
            Self::View => "view",
            Self::Explain => "explain",
            Self::Setting => "setting",
            Self::Form => "form",
            Self::Other => "other",
        }
    }
}
