//! What operators ask beside serving: does it fit together (doctor), how could it be declared (init), how would statements run (plans),
//! are the answers those of one server (verify). Reads the shards and never changes them.

pub mod doctor;
pub mod init;
mod inventory;
mod placement;
pub mod plans;
mod reference;
mod report;
mod rows;
mod server_url;
mod shards;
pub mod verify;

pub use report::{Finding, Mend, Report};
