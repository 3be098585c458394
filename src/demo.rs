//! `pgbraid demo`.
