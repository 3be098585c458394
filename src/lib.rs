//! pgbraid: N PostgreSQL servers answer as one — the answer a single server holding all the rows would give, or a clear
//! error; never a wrong row.
//!
//! # The life of a query
//! 1. [`server::serve`] accepts a client and `server::login` lets it in: `server::handshake::receive` reads its startup packet (TLS, cancel requests and
//!    garbage are dealt with there), `server::auth` checks who it is, `server::role` says whose connections to the shards it
//!    works with: its own role's ([`backend::roles`]).
//! 2. `server::session::Session::run` is THE loop: one task, one message after the other.
//! 3. A Query goes to `Session::simple_query`, the messages of the extended protocol to `Session::parse`, `bind`,
//!    `describe` and `execute`.
//! 4. [`sql::parse`] cuts the text into statements and [`sql::classify`] says who deals with each. BEGIN, SET, PREPARE and
//!    their like are carried out by `Session::control_statement`.
//!    pgbraid's own settings are known there (`server::own_settings`): a session with one of them on never takes the short way of 6.
//! 5. For the others `Session::prepare_statement` has the catalog shard describe the client's own text: types, result
//!    columns and every error of the statement itself are PostgreSQL's.
//! 6. [`planner::plan`] makes a [`plan::Planned`] of it from the [`catalog::Catalog`], which `backend::catalog::CatalogWatch`
//!    keeps up to date (without shards that were not there at the start, on which nothing runs until they are). Planning is pure; what only PostgreSQL can answer comes back as a [`planner::Probe`], which
//!    [`server::probe`] asks. The result is cached by text, types, settings and catalog version.
//!
//!    What one shard answers and has prepared before leaves here for the short way, `server::direct`: the messages to that shard, its
//!    reply to the client. A Query whose literals alone are new takes it by the plan of its [`sql::Shape`]. Both ways end at 12.
//!    Where a client has sent several of them, each with its Sync, before the first is answered, `server::side_by_side` has their shards
//!    work at once and gives the replies in order.
//! 7. `Session::open` binds it. Where one shard has all the rows, the client's text goes there unchanged
//!    ([`executor::Execution::routed`]); else the plan runs, or its [`plan::Refusal`] is the answer. A change runs on one shard or not
//!    at all (`planner::writes` says when that is what one server does, `server::writes` keeps a transaction to one shard).
//!    With `pgbraid.partial_results` on, `server::missing` first finds out which shards are there, and the plan runs without the others; a SELECT
//!    sent to a shard by hand (`server::routing`) is a plan of that shard alone.
//!    A COPY … TO STDOUT is such an execution too, whose rows become its data (`server::copy_out`).
//! 8. `Session::start` takes a permit and a connection of every shard, in ascending order
//!    ([`backend::pool::Pools::acquire`]), and appends what brings them into the session's settings and transaction.
//!    Steps that read one shard more than once share a snapshot (`server::snapshot`); SERIALIZABLE transactions see all shards as of one
//!    instant (`server::serializable`).
//! 9. [`executor::Execution::start`] appends Parse, Bind and Execute to each connection's write buffer.
//! 10. [`executor::Execution::poll_next`] reads the shards side by side: a [`backend::raw_conn::RawConn`] yields runs of
//!     DataRow frames, undecoded, and the operators of the plan pass them on, merge them by hidden binary keys, add partial
//!     aggregates up, or bring stages to a merge session.
//! 11. `Session::stream` hands the runs to the client's socket, watches for its end and for a cancel, and stops reading the
//!     shards while the client is slow.
//!     What fails before its first row over an expression that was computed ahead of need ([`plan::Planned::lazy`]), or is more
//!     than may be held, runs again another way (`server::rerun`).
//! 12. CommandComplete goes out only after every shard's. `Session::settle` ends what is owed, gives the connections back
//!     (clean, or they are closed) and says ReadyForQuery.
//!
//! What a session does meanwhile it tells as it goes (`server::watch`): to the metrics, to the [`registry`] for whoever looks, to the log
//! where it is slow. The console ([`admin::console`], its socket in `server::console`) shows that and steers: a paused shard holds new
//! statements back before 8. The live page (`admin::live`) shows it in a browser, with the plans of what runs ([`registry::Outline`]) and what was
//! refused lately ([`registry::refusals`]).
//!
//! With the feature `otlp`, `server::traces` makes spans of the same figures when a statement has ended.
//!
//! Layers import downwards only; `tests/tidy.rs` holds that.

pub mod admin;
pub mod backend;
pub mod catalog;
pub mod config;
pub mod demo;
pub mod executor;
pub mod metrics;
pub mod plan;
pub mod planner;
pub mod progress;
pub mod protocol;
pub mod registry;
pub mod server;
pub mod sql;
pub mod telemetry;
pub mod tools;
pub mod types;
