//! What operators ask beside serving: does it fit together (doctor). Reads the shards and never changes them.

pub mod doctor;
mod inventory;
mod placement;
mod reference;
mod report;
mod rows;
mod shards;

pub use report::{Finding, Mend, Report};
