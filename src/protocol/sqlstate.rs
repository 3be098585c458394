//! The SQLSTATEs pgbraid itself raises (PostgreSQL's manual, Appendix A).

/// Of a notice: nothing went wrong.
pub const SUCCESSFUL_COMPLETION: &str = "00000";
/// Of a warning that no other class fits.
pub const WARNING: &str = "01000";
/// A message that the protocol does not allow here, or a malformed one.
pub const PROTOCOL_VIOLATION: &str = "08P01";
/// A shard's connection was lost.
pub const CONNECTION_FAILURE: &str = "08006";
/// A setting's value is none.
pub const INVALID_PARAMETER_VALUE: &str = "22023";
/// A setting's name can be none.
pub const INVALID_NAME: &str = "42602";
/// There is no setting of the name.
pub const UNDEFINED_OBJECT: &str = "42704";
/// The statement cannot be proved exact, or is not supported.
pub const FEATURE_NOT_SUPPORTED: &str = "0A000";
/// A sum left its type.
pub const NUMERIC_VALUE_OUT_OF_RANGE: &str = "22003";
/// A negative LIMIT.
pub const INVALID_LIMIT: &str = "2201W";
/// A negative OFFSET.
pub const INVALID_OFFSET: &str = "2201X";
/// Bytes that are no text of the encoding.
pub const CHARACTER_NOT_IN_REPERTOIRE: &str = "22021";
/// No such portal or cursor.
pub const INVALID_CURSOR_NAME: &str = "34000";
/// No such prepared statement.
pub const INVALID_STATEMENT_NAME: &str = "26000";
/// A prepared statement of that name exists.
pub const DUPLICATE_STATEMENT: &str = "42P05";
/// A portal or cursor of that name exists.
pub const DUPLICATE_CURSOR: &str = "42P03";
/// The parser does not understand the text.
pub const SYNTAX_ERROR: &str = "42601";
/// A statement names a parameter that nobody gave.
pub const UNDEFINED_PARAMETER: &str = "42P02";
/// `undefined_table`
pub const UNDEFINED_TABLE: &str = "42P01";
/// The transaction has failed; only its end is accepted.
pub const IN_FAILED_TRANSACTION: &str = "25P02";
/// Not inside a transaction.
pub const ACTIVE_TRANSACTION: &str = "25001";
/// The transaction may succeed when it is tried again.
pub const SERIALIZATION_FAILURE: &str = "40001";
/// Only inside a transaction.
pub const NO_ACTIVE_TRANSACTION: &str = "25P01";
/// Wrong password, or no such user: the client is not told which.
pub const INVALID_PASSWORD: &str = "28P01";
/// The login is refused for another reason.
pub const INVALID_AUTHORIZATION: &str = "28000";
/// The user may not do that.
pub const INSUFFICIENT_PRIVILEGE: &str = "42501";
/// No such database.
pub const INVALID_CATALOG_NAME: &str = "3D000";
/// An operator's byte budget is used up.
pub const OUT_OF_MEMORY: &str = "53200";
/// No place for a client, or no connection to a shard in time.
pub const TOO_MANY_CONNECTIONS: &str = "53300";
/// A limit of this program, of bytes or of columns, is passed.
pub const PROGRAM_LIMIT_EXCEEDED: &str = "54000";
/// The statement is nested too deeply.
pub const STATEMENT_TOO_COMPLEX: &str = "54001";
/// The client asked for the end of its statement.
pub const QUERY_CANCELED: &str = "57014";
/// pgbraid or a shard is shutting down.
pub const ADMIN_SHUTDOWN: &str = "57P01";
/// A client has said nothing for too long.
pub const IDLE_SESSION_TIMEOUT: &str = "57P05";
/// pgbraid is not ready yet.
pub const CANNOT_CONNECT_NOW: &str = "57P03";
/// What cannot be: a defect of pgbraid, or rows that do not fit their description.
pub const INTERNAL_ERROR: &str = "XX000";

/// True for what a server says that goes down or comes up: admin_shutdown, crash_shutdown, cannot_connect_now.
pub fn is_going(state: &str) -> bool {
    matches!(state, ADMIN_SHUTDOWN | "57P02" | CANNOT_CONNECT_NOW)
}
