//! Virtual addresses of aliases: each new connection goes to the next member.

use crate::{skb::Skb, verdict::NEXT};

/// A packet of a client that the fast path has let go passes here.
#[inline(always)]
pub fn from_client<S: Skb>(_skb: &S) -> i32 {
    NEXT
}

/// A packet to a client passes here, before anything is learned of it.
#[inline(always)]
pub fn to_client<S: Skb>(_skb: &S) -> i32 {
    NEXT
}
