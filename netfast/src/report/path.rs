//! Fast, or slow and why: what is said of every network and endpoint.

use serde::Serialize;

use crate::{
    plan::report::{Path, Slow},
    report::table::{Cell, Paint},
};

/// `fast`, or `slow` with the reason; `explain` has a third state.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct PathState {
    /// `fast`, `slow` or `kernel-decides`.
    pub path: &'static str,
    /// The cause of `slow`, for programs; of `kernel-decides` the one that it may come to, if that is known.
    pub why: Option<String>,
    /// The cause of `slow`, or who decides, in words.
    pub reason: Option<String>,
}

impl PathState {
    /// The fast path.
    pub fn fast() -> Self {
        Self {
            path: "fast",
            why: None,
            reason: None,
        }
    }

    /// The slow path.
    pub fn slow(why: impl Into<String>, reason: impl Into<String>) -> Self {
        Self {
            path: "slow",
            why: Some(why.into()),
            reason: Some(reason.into()),
        }
    }

    /// The fast path for what the kernel lets through, which netfast does not know; or else slow for this cause.
    pub fn kernel_decides(why: Option<&str>, reason: impl Into<String>) -> Self {
        Self {
            path: KERNEL_DECIDES,
            why: why.map(Into::into),
            reason: Some(reason.into()),
        }
    }

    /// Its state as a coloured cell.
    pub fn cell(&self) -> Cell {
        Cell::painted(self.path, self.paint())
    }

    /// Green for fast, yellow for slow.
    pub fn paint(&self) -> Paint {
        if self.is_fast() { Paint::Green } else { Paint::Yellow }
    }

    /// Whether it is the slow path for certain.
    pub fn is_slow(&self) -> bool {
        !self.is_fast() && self.path != KERNEL_DECIDES
    }

    /// Whether it is the fast path for certain.
    pub fn is_fast(&self) -> bool {
        self.path == "fast"
    }
}

/// See [`PathState::kernel_decides`].
const KERNEL_DECIDES: &str = "kernel-decides";

impl From<&Path> for PathState {
    fn from(path: &Path) -> Self {
        match path {
            Path::Fast => Self::fast(),
            Path::Slow(Slow { why, text }) => {
                // The name that the state file has for it, so that both say the same.
                let name = serde_json::to_value(why)
                    .ok()
                    .and_then(|name| name.as_str().map(str::to_owned));
                Self::slow(name.unwrap_or_default(), text.clone())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::report::Why;

    #[test]
    fn causes_have_the_names_of_the_state_file() {
        let path = Path::slow_since(Why::DisabledByLabel, "switched off");
        assert_eq!(
            PathState::from(&path),
            PathState::slow("disabled-by-label", "switched off")
        );
        assert_eq!(PathState::from(&Path::Fast), PathState::fast());
    }
}
