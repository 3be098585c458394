//! Tests against real PostgreSQL servers, in one binary so that it links once and boots its servers once.
//!
//! `PGBRAID_TEST_TARGET=postgres` points equivalence and wire at the oracle itself: what fails then is wrong in the test.
#![allow(unused_crate_dependencies)]

mod commands;
mod console;
mod copy_out;
mod cursors;
mod equivalence;
mod explain;
mod faults;
mod fuzz;
mod harness;
mod kept;
mod leaving;
mod lifecycle;
mod logins;
mod one_shard;
mod own_settings;
mod page;
mod partial;
mod pipelines;
mod random;
mod reruns;
mod roles;
mod routing;
mod serializable;
mod settings;
mod snapshots;
mod starts;
mod tools;
#[cfg(feature = "otlp")]
mod traces;
mod transcripts;
mod writes;
