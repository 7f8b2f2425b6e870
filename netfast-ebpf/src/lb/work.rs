//! What this CPU works on.
#![expect(
    clippy::needless_borrows_for_generic_args,
    reason = "by value a key is copied to the stack, which is scarce here"
)]

use netfast_common::{
    device::{Device, DeviceKey, NetnsNumber},
    vip::Verdict,
};

use crate::{
    ctx::Ctx,
    state::{self, lb::Work, maps},
};

/// This CPU's. No two references to it may be used at a time.
#[inline(always)]
pub fn work() -> Result<&'static mut Work, Verdict> {
    let place = maps::VIP_WORK.get_ptr_mut(0).ok_or(Verdict::NoSlot)?;
    // SAFETY: this CPU's element; hooks run with softirqs off, so nothing else touches it meanwhile.
    Ok(unsafe { &mut *place })
}

/// What the daemon says of the interface whose hook runs. The key is in this CPU's memory: the stack is scarce here.
#[inline(always)]
pub fn device<S: Ctx>(skb: &S) -> Option<&'static Device> {
    let key = &mut work().ok()?.device;
    *key = DeviceKey::new(NetnsNumber(state::netns()), skb.ifindex());
    // SAFETY: the element lives as long as the program runs; only the daemon writes it, as a whole.
    unsafe { maps::DEVICES.get(&*key) }
}
