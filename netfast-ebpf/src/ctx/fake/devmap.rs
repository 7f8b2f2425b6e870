//! A map of devices that XDP programs send to.

use super::HashMap;
use crate::ctx::XDP_REDIRECT;

/// As aya's of that name.
pub struct DevMapHash {
    devices: HashMap<u32, u32>,
}

impl DevMapHash {
    /// As aya's.
    pub const fn with_max_entries(max_entries: u32, flags: u32) -> Self {
        Self {
            devices: HashMap::with_max_entries(max_entries, flags),
        }
    }

    /// As aya's: the verdict if there is such a device, or else what the flags say.
    #[expect(clippy::missing_errors_doc, clippy::cast_possible_truncation, reason = "as aya's")]
    pub fn redirect(&self, index: u32, flags: u64) -> Result<u32, u32> {
        // SAFETY: nobody else has it.
        match unsafe { self.devices.get(index) } {
            Some(_) => Ok(XDP_REDIRECT),
            None => Err(flags as u32),
        }
    }

    /// Puts a device in.
    pub fn insert(&self, index: u32) {
        let _ = self.devices.insert(index, index, 0);
    }
}
