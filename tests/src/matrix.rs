//! What the table of engines and paths is made from: a test of a path appends what it has seen to a file, if somebody asks
//! for it.

use std::{
    env,
    fs::{self, File},
    io::Write as _,
    path::Path,
};

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};

/// The variable with the file's path.
pub const FILE: &str = "NETFAST_MATRIX";
/// The variable with the mebibytes that a bulk transfer carries in each direction.
pub const MEBIBYTES: &str = "NETFAST_MATRIX_MEBIBYTES";
/// The variable that says that the processor is emulated: rates are lower then, and the bounds for them.
pub const EMULATED: &str = "NETFAST_MATRIX_EMULATED";

/// Whether the processor is emulated, as [`EMULATED`] says.
pub fn is_emulated() -> bool {
    env::var_os(EMULATED).is_some()
}

/// What one test of one path has seen. That all of it arrived, bit by bit, the test itself asserts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Cell {
    /// The engine with its version.
    pub engine: String,
    /// How it was set up.
    pub setting: String,
    /// The kernel's release, if it is not that of the machine; else empty.
    pub kernel: String,
    /// The path.
    pub path: String,
    /// What was sent: `TCP`, `UDP over IPv6` and so on; or by which tool a rule was made.
    pub protocol: String,
    /// The part of the packets that took the fast path, 0 to 1; `None`: none was to.
    pub fast_share: Option<f64>,
    /// Bytes that arrived in each direction, compared by their SHA-256.
    pub exact_bytes: u64,
}

/// Appends a cell to the file, if there is one.
pub fn record(cell: &Cell) -> Result<()> {
    let Some(path) = env::var_os(FILE) else { return Ok(()) };
    let mut file = File::options()
        .create(true)
        .append(true)
        .open(&path)
        .with_context(|| format!("cannot open {}", Path::new(&path).display()))?;
    writeln!(file, "{}", serde_json::to_string(cell)?)?;
    Ok(())
}

/// The cells of a file; none, if there is no such file.
pub fn read(path: &Path) -> Result<Vec<Cell>> {
    let text = fs::read_to_string(path).unwrap_or_default();
    let cells = text.lines().map(serde_json::from_str::<Cell>);
    cells.collect::<Result<_, _>>().context("a line that is no cell")
}
