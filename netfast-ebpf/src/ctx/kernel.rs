//! What the programs have of the kernel besides the packet: kinds of maps, clocks, chance, and the stack they run on.
//! Host builds have [`fake`](super::fake) in its place.

#[cfg(target_arch = "bpf")]
pub use aya_ebpf::maps::{Array, DevMapHash, HashMap, LruHashMap, PerCpuArray, RingBuf};

#[cfg(target_arch = "bpf")]
pub use self::bpf::{coarse_ns, ns, random, sum};
#[cfg(not(target_arch = "bpf"))]
pub use super::fake::{Array, DevMapHash, HashMap, LruHashMap, PerCpuArray, RingBuf, coarse_ns, ns, random, sum};

/// The address of the current stack, as a number to be stored: the verifier lets no program calculate with it.
#[inline(always)]
pub fn stack(anchor: *mut u8) -> u64 {
    #[cfg(target_arch = "bpf")]
    return anchor as u64;
    #[cfg(not(target_arch = "bpf"))]
    {
        // Where the host's own stack is tells nothing.
        let _ = anchor;
        super::fake::stack()
    }
}

#[cfg(target_arch = "bpf")]
mod bpf {
    use aya_ebpf::helpers::generated::{bpf_csum_diff, bpf_get_prandom_u32, bpf_ktime_get_coarse_ns, bpf_ktime_get_ns};

    use crate::ctx::{PART, Part};

    /// `CLOCK_MONOTONIC` coarse, in nanoseconds: enough for a revalidation interval, and cheap.
    #[inline(always)]
    pub fn coarse_ns() -> u64 {
        // SAFETY: takes and returns a number (kernel 5.11, d05512618056).
        unsafe { bpf_ktime_get_coarse_ns() }
    }

    /// `CLOCK_MONOTONIC`, in nanoseconds.
    #[inline(always)]
    pub fn ns() -> u64 {
        // SAFETY: takes and returns a number.
        unsafe { bpf_ktime_get_ns() }
    }

    /// The one's complement sum of bytes, in wire order.
    #[inline(always)]
    #[expect(
        clippy::cast_possible_truncation,
        reason = "a __wsum, or an error where there are too many bytes"
    )]
    pub fn sum(bytes: &mut Part) -> u32 {
        // SAFETY: the place has that many bytes, a multiple of four; with nothing to take away it is the sum.
        unsafe { bpf_csum_diff(core::ptr::null_mut(), 0, bytes.as_mut_ptr().cast(), PART, 0) as u32 }
    }

    /// A number by chance.
    #[inline(always)]
    pub fn random() -> u32 {
        // SAFETY: takes nothing and returns a number.
        unsafe { bpf_get_prandom_u32() }
    }
}
