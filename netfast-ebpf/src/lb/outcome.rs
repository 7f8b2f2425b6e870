//! What becomes of a packet here, as one number: global functions return nothing else.

use netfast_common::vip::Verdict;

/// A verdict, with where the packet goes then, or what has to be done before there is one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outcome(u32);

/// Set beside a verdict's number.
const REFLECT: u32 = 0x100;
/// Likewise.
const REINJECT: u32 = 0x200;
/// Likewise.
const TO_PEER: u32 = 0x800;
const WAYS: u32 = REFLECT | REINJECT | TO_PEER;

impl Outcome {
    /// The packet has nothing to do with a virtual address. No verdict has this number.
    pub const NONE: Self = Self(0);
    /// The packet may refuse a connection: another backend is asked first.
    pub const REFUSAL: Self = Self(0x400);
    /// The packet is a SYN that another backend may answer.
    pub const SILENT: Self = Self(0x1000);

    /// As a global function returned it.
    #[inline(always)]
    pub const fn from_number(number: u32) -> Self {
        Self(number)
    }

    /// As a global function returns it.
    #[inline(always)]
    pub const fn number(self) -> u32 {
        self.0
    }

    /// The packet goes on to where it was going.
    #[inline(always)]
    pub const fn of(verdict: Verdict) -> Self {
        Self(verdict.number())
    }

    /// The packet goes back to who sent it.
    #[inline(always)]
    #[must_use]
    pub const fn reflected(self) -> Self {
        Self(self.0 | REFLECT)
    }

    /// The packet enters once more where the hook is.
    #[inline(always)]
    #[must_use]
    pub const fn reinjected(self) -> Self {
        Self(self.0 | REINJECT)
    }

    /// The packet goes into the container that sent it, past the egress hooks.
    #[inline(always)]
    #[must_use]
    pub const fn to_peer(self) -> Self {
        Self(self.0 | TO_PEER)
    }

    /// See [`Self::reflected`].
    #[inline(always)]
    pub const fn is_reflected(self) -> bool {
        self.0 & REFLECT != 0
    }

    /// See [`Self::reinjected`].
    #[inline(always)]
    pub const fn is_reinjected(self) -> bool {
        self.0 & REINJECT != 0
    }

    /// See [`Self::to_peer`].
    #[inline(always)]
    pub const fn is_to_peer(self) -> bool {
        self.0 & TO_PEER != 0
    }

    /// The number of the verdict that it is counted by.
    #[inline(always)]
    pub const fn counter(self) -> u32 {
        self.0 & !WAYS
    }

    /// The verdict, if it is one and the packet goes on.
    #[inline(always)]
    pub fn verdict(self) -> Option<Verdict> {
        Verdict::of(self.0)
    }
}

impl From<Result<Self, Verdict>> for Outcome {
    #[inline(always)]
    fn from(done: Result<Self, Verdict>) -> Self {
        match done {
            Ok(done) => done,
            Err(verdict) => Self::of(verdict),
        }
    }
}
