//! The only module that names the parser crate.
