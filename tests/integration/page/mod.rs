//! The live page: who may see it, what its figures hold and what not, and how it looks in a browser.

mod browser;
mod figures;
pub mod http;
mod look;
