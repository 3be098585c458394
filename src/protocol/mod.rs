//! Frames and messages of the PostgreSQL protocol 3.0, without sockets.

pub mod error;
pub mod frame;
pub mod messages;
pub mod sqlstate;
