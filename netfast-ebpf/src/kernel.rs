//! What the programs have of the kernel besides the packet: kinds of maps, clocks, chance, and the stack they run on.
//! Host builds have [`fake`](crate::fake) in its place.

#[cfg(target_arch = "bpf")]
pub use aya_ebpf::maps::{Array, HashMap, LruHashMap, PerCpuArray, RingBuf};

#[cfg(target_arch = "bpf")]
pub use self::bpf::{coarse_ns, ns, random};
#[cfg(not(target_arch = "bpf"))]
pub use crate::fake::{Array, HashMap, LruHashMap, PerCpuArray, RingBuf, coarse_ns, ns, random};

/// The address of the current stack, as a number to be stored: the verifier lets no program calculate with it.
#[inline(always)]
pub fn stack(anchor: *mut u8) -> u64 {
    #[cfg(target_arch = "bpf")]
    return anchor as u64;
    #[cfg(not(target_arch = "bpf"))]
    {
        // Where the host's own stack is tells nothing.
        let _ = anchor;
        crate::fake::stack()
    }
}

#[cfg(target_arch = "bpf")]
mod bpf {
    use aya_ebpf::helpers::generated::{bpf_get_prandom_u32, bpf_ktime_get_coarse_ns, bpf_ktime_get_ns};

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

    /// A number by chance.
    #[inline(always)]
    pub fn random() -> u32 {
        // SAFETY: takes nothing and returns a number.
        unsafe { bpf_get_prandom_u32() }
    }
}
