//! What operators see over HTTP: `/livez`, `/readyz`, `/metrics`. Never answers a query and holds no connection of the pools.

mod http;
mod readiness;

pub use http::{Response, get, serve};
pub use readiness::{Probe, Readiness, Report, ShardReport};
