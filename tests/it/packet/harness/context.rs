//! What a packet has besides its bytes.

/// The fields of `struct __sk_buff` that a test run takes and gives (`net/bpf/test_run.c`, `convert___skb_to_skb`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Context {
    /// `skb->mark`.
    pub mark: u32,
    /// `skb->priority`.
    pub priority: u32,
    /// `skb->skb_iif`.
    pub ingress_ifindex: u32,
    /// The interface whose hook runs.
    pub ifindex: u32,
    /// Payload bytes of each segment of a GSO packet.
    pub gso_size: u32,
    /// What stands in for the address of its `struct sk_buff`: the first word of `skb->cb`.
    pub address: u32,
}

impl Context {
    pub(super) const BYTES: usize = 192;
    pub(super) const MARK: usize = 8;
    pub(super) const PRIORITY: usize = 32;
    const INGRESS_IFINDEX: usize = 36;
    const IFINDEX: usize = 40;
    const CB: usize = 48;
    const GSO_SIZE: usize = 176;

    pub(super) fn bytes(self) -> [u8; Self::BYTES] {
        let mut bytes = [0; Self::BYTES];
        for (place, value) in [
            (Self::MARK, self.mark),
            (Self::PRIORITY, self.priority),
            (Self::INGRESS_IFINDEX, self.ingress_ifindex),
            (Self::IFINDEX, self.ifindex),
            (Self::CB, self.address),
            (Self::GSO_SIZE, self.gso_size),
        ] {
            bytes[place..place + 4].copy_from_slice(&value.to_ne_bytes());
        }
        bytes
    }
}
