//! pgbraid: N PostgreSQL servers answer as one. (The life of a query is told here once the parts are in place.)

pub mod admin;
pub mod backend;
pub mod catalog;
pub mod config;
pub mod demo;
pub mod executor;
pub mod metrics;
pub mod plan;
pub mod planner;
pub mod protocol;
pub mod registry;
pub mod server;
pub mod sql;
pub mod types;
