//! What this CPU works on.

use netfast_common::vip::Verdict;

use crate::state::{lb::Work, maps};

/// This CPU's. No two references to it may be used at a time.
#[inline(always)]
pub fn work() -> Result<&'static mut Work, Verdict> {
    let place = maps::VIP_WORK.get_ptr_mut(0).ok_or(Verdict::NoSlot)?;
    // SAFETY: this CPU's element; hooks run with softirqs off, so nothing else touches it meanwhile.
    Ok(unsafe { &mut *place })
}
