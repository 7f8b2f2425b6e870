//! Two endpoints of one name are one series: their counters are added.

use crate::report::status::{Interface, Traffic};

impl Interface {
    /// Both together.
    pub(super) fn plus(self, other: Self) -> Self {
        Self {
            sent_packets: self.sent_packets + other.sent_packets,
            sent_bytes: self.sent_bytes + other.sent_bytes,
            received_packets: self.received_packets + other.received_packets,
            received_bytes: self.received_bytes + other.received_bytes,
        }
    }
}

impl Traffic {
    /// Both together.
    pub(super) fn plus(self, other: Self) -> Self {
        Self {
            in_fast_packets: self.in_fast_packets + other.in_fast_packets,
            in_fast_bytes: self.in_fast_bytes + other.in_fast_bytes,
            in_slow_packets: self.in_slow_packets + other.in_slow_packets,
            in_slow_bytes: self.in_slow_bytes + other.in_slow_bytes,
            out_fast_packets: self.out_fast_packets + other.out_fast_packets,
            out_fast_bytes: self.out_fast_bytes + other.out_fast_bytes,
            in_spoofed_packets: self.in_spoofed_packets + other.in_spoofed_packets,
            in_malformed_packets: self.in_malformed_packets + other.in_malformed_packets,
        }
    }

    /// In on the fast path, in on the slow path, out on the fast path.
    pub(super) fn packets(&self) -> [u64; 3] {
        [self.in_fast_packets, self.in_slow_packets, self.out_fast_packets]
    }

    /// The same of bytes.
    pub(super) fn bytes(&self) -> [u64; 3] {
        [self.in_fast_bytes, self.in_slow_bytes, self.out_fast_bytes]
    }
}
