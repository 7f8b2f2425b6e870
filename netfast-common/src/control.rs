//! The switches that the daemon writes and every program reads.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// The only entry of the control map.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Control {
    /// Flows learned under another epoch are misses. Changed whenever something changed that the kernel's verdicts
    /// may depend on.
    pub epoch: u32,
    /// `USE`, `LEARN` and `VET`; zero means that every packet takes the slow path.
    pub switches: u32,
    /// Time a flow may be used before one packet must ask the kernel again, in nanoseconds.
    pub revalidate_ns: u64,
    /// Packets of each direction of a TCP connection that the kernel carries before it is learned; at most 255.
    pub learn_after: u32,
    /// Packets are shown to `netfast trace` while this is more than [`trace::step`](crate::trace::step) of the coarse
    /// clock. It is a lease, which the tracer renews: when that is killed, nothing stays switched on.
    pub traced_until: u32,
    /// Packets are forwarded direct between containers of one bridge until this time, `CLOCK_MONOTONIC` coarse,
    /// nanoseconds; 0: no. It is a lease of [`direct::LEASE_NS`](crate::direct::LEASE_NS), which only a living daemon
    /// renews: what that does not see must be seen by the kernel.
    pub direct_until_ns: u64,
}

/// When a flow is learned, and when it asks again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pace {
    /// See [`Control::revalidate_ns`].
    pub revalidate_ns: u64,
    /// See [`Control::learn_after`].
    pub learn_after: u8,
}

impl Control {
    /// The same with other switches and another pace.
    #[must_use]
    pub const fn with(self, switches: u32, pace: Pace) -> Self {
        Self {
            epoch: self.epoch,
            switches,
            revalidate_ns: pace.revalidate_ns,
            learn_after: pace.learn_after as u32,
            traced_until: self.traced_until,
            direct_until_ns: self.direct_until_ns,
        }
    }

    /// Its pace.
    #[expect(clippy::cast_possible_truncation, reason = "the daemon writes at most 255")]
    pub const fn pace(&self) -> Pace {
        Pace {
            revalidate_ns: self.revalidate_ns,
            learn_after: self.learn_after as u8,
        }
    }

    /// Flows may be used.
    pub const USE: u32 = 1;
    /// Candidates may be left, so flows may be learned.
    pub const LEARN: u32 = 2;

    /// Flows are vetted by the daemon before they are used, see [`vet`](crate::vet).
    pub const VET: u32 = 4;

    /// Whether a flow must be vetted before it is used.
    #[inline(always)]
    pub const fn vets(&self) -> bool {
        self.switches & Self::VET != 0
    }

    /// Whether flows may be used.
    #[inline(always)]
    pub const fn may_use(&self) -> bool {
        self.switches & Self::USE != 0
    }

    /// Whether packets may be forwarded direct, if the lease still holds.
    #[inline(always)]
    pub const fn may_forward_directly(&self) -> bool {
        self.direct_until_ns != 0 && self.may_use()
    }

    /// Whether flows may be learned.
    #[inline(always)]
    pub const fn may_learn(&self) -> bool {
        self.switches & Self::LEARN != 0
    }
}

#[cfg(feature = "aya")]
// SAFETY: `IntoBytes` and `FromBytes` are derived, so there is no padding and every bit pattern is valid.
unsafe impl aya::Pod for Control {}
