//! Counting by several CPUs at once. `core` has no read-modify-write atomics for BPF (its oldest instruction sets lack
//! them); kernels have them since 5.12.

/// Adds 1 and returns what was there.
///
/// # Safety
///
/// `place` must be valid and aligned; whoever else writes there does it by these functions.
#[inline(always)]
pub unsafe fn increment(place: *mut u64) -> u64 {
    // SAFETY: the caller's promise.
    unsafe { add(place, 1) }
}

/// Adds a number and returns what was there.
///
/// # Safety
///
/// As above.
#[cfg(target_arch = "bpf")]
#[inline(always)]
pub unsafe fn add(place: *mut u64, number: u64) -> u64 {
    let mut value = number;
    // SAFETY: one instruction, on what the caller promises to be a number of ours.
    unsafe {
        core::arch::asm!(
            "{value} = atomic_fetch_add((u64 *)({place} + 0), {value})",
            place = in(reg) place,
            value = inout(reg) value,
            options(nostack),
        );
    }
    value
}

/// As above, on the host.
///
/// # Safety
///
/// As above.
#[cfg(not(target_arch = "bpf"))]
pub unsafe fn add(place: *mut u64, number: u64) -> u64 {
    use core::sync::atomic::{AtomicU64, Ordering};
    // SAFETY: the caller's promise.
    unsafe { AtomicU64::from_ptr(place) }.fetch_add(number, Ordering::Relaxed)
}

#[cfg(test)]
mod tests {
    #[test]
    fn it_returns_what_was_there() {
        let mut count = 41;
        // SAFETY: a number of this test's own.
        unsafe {
            assert_eq!(super::increment(&raw mut count), 41);
            assert_eq!(super::increment(&raw mut count), 42);
            assert_eq!(super::add(&raw mut count, 7), 43);
        }
        assert_eq!(count, 50);
    }
}
