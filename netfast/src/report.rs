//! What the commands print, as data and as text.
//!
//! Every report is a plain struct that is filled from the daemon's state and the pinned tables, and can be written in
//! two ways: as JSON by its `Serialize`, whose keys are an interface, and as text by its `render`. Nothing here does
//! I/O, so the golden tests see exactly what users see.

pub mod aliases;
pub mod bundle;
pub mod check;
pub mod explain;
pub mod flows;
#[cfg(test)]
pub(crate) mod golden;
pub mod localhost;
pub mod networks;
pub mod path;
pub mod pcapng;
pub mod redact;
pub mod resolver;
pub mod status;
pub mod table;
pub mod top;
pub mod trace;
pub mod tunnels;
pub mod units;
pub mod xdp;

pub use table::{Style, Table};
