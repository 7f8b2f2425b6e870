//! What nftables' registers hold while a rule is read.

use std::collections::BTreeMap;

use super::super::field::{Bytes, Outcome};

/// Bytes of a register as the kernel counts them, `NFT_REG32_SIZE`.
const SLOT: usize = 4;
/// Number of registers of that size.
const SLOTS: usize = 16;

/// In what packets of a flow may differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Varying {
    /// What it is called in findings.
    pub what: &'static str,
    /// Why it matters, for people.
    pub reason: &'static str,
    /// Only ICMP's may.
    pub icmp_only: bool,
}

impl Varying {
    /// Of any protocol.
    pub const fn new(what: &'static str, reason: &'static str) -> Self {
        Self {
            what,
            reason,
            icmp_only: false,
        }
    }
}

/// What a register holds, as far as it matters here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Loaded {
    /// Something that is the same for all packets of a flow.
    Plain,
    /// Something in which they may differ.
    Judging(Varying),
    /// Bytes of a header
    Bytes(Bytes),
    IncomingName,
    OutgoingName,
    /// An interface's index, in host order
    IncomingIndex,
    OutgoingIndex,
    /// IANA protocol number
    Protocol,
    /// `NF_CT_STATE_BIT`s, in host order, under a mask
    State(u32),
    /// The connection's mark; `true`: some of its bits are the opposite of what they were
    ConnectionMark(bool),
    /// `NFPROTO_*`
    NetfilterProtocol,
    /// `ETH_P_*`, in network order
    EtherType,
}

impl Loaded {
    /// In what packets of a flow may differ here.
    pub fn varies(&self) -> Option<Varying> {
        match self {
            Self::Judging(varying) => Some(*varying),
            Self::Bytes(bytes) => match bytes.varies() {
                Outcome::Varies(what, reason) => Some(Varying::new(what, reason)),
                Outcome::VariesInIcmp(what, reason) => Some(Varying {
                    icmp_only: true,
                    ..Varying::new(what, reason)
                }),
                Outcome::Repeatable | Outcome::Never => None,
            },
            Self::Plain
            | Self::IncomingName
            | Self::OutgoingName
            | Self::IncomingIndex
            | Self::OutgoingIndex
            | Self::Protocol
            | Self::State(_)
            | Self::ConnectionMark(_)
            | Self::NetfilterProtocol
            | Self::EtherType => None,
        }
    }

    /// What something made of these is.
    pub fn derived<'a>(from: impl IntoIterator<Item = &'a Self>) -> Self {
        let varying = from.into_iter().filter_map(Self::varies);
        // What all packets may differ in counts before what only ICMP's may.
        varying
            .min_by_key(|varying| varying.icmp_only)
            .map_or(Self::Plain, Self::Judging)
    }
}

/// The registers: four of 16 bytes (`NFT_REG_1` is 1), which are also sixteen of four (`NFT_REG32_00` is 8).
#[derive(Clone, Debug, Default)]
pub struct Registers(BTreeMap<u32, (usize, Loaded)>);

impl Registers {
    /// The first slot of a register (`nft_parse_register`).
    fn slot(register: u32) -> u32 {
        if register <= 4 {
            register * 4
        } else {
            register.saturating_sub(4)
        }
    }

    /// Loads `len` bytes.
    pub fn load(&mut self, register: u32, len: usize, loaded: Loaded) {
        let (first, slots) = (Self::slot(register), len.div_ceil(SLOT).clamp(1, SLOTS));
        let last = first.saturating_add(u32::try_from(slots).unwrap_or(1) - 1);
        self.0.retain(|slot, _| !(first..=last).contains(slot));
        self.0.insert(first, (slots, loaded));
    }

    /// What is in one.
    pub fn get(&self, register: u32) -> Option<&Loaded> {
        Some(&self.0.get(&Self::slot(register))?.1)
    }

    /// What is in it and in those that follow without a gap: a key of several parts.
    pub fn key(&self, register: u32) -> impl Iterator<Item = &Loaded> {
        let mut slot = Self::slot(register);
        std::iter::from_fn(move || {
            let (slots, loaded) = self.0.get(&slot)?;
            slot = slot.saturating_add(u32::try_from(*slots).ok()?);
            Some(loaded)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::field::Header;
    use super::*;

    #[test]
    fn both_ways_to_number_registers_mean_the_same() {
        let mut registers = Registers::default();
        registers.load(1, 4, Loaded::Protocol);
        assert_eq!(registers.get(8), Some(&Loaded::Protocol));
        registers.load(8, 16, Loaded::Plain);
        assert_eq!(registers.get(1), Some(&Loaded::Plain));
        assert_eq!(registers.get(2), None);
    }

    #[test]
    fn a_key_ends_at_a_gap() {
        let mut registers = Registers::default();
        registers.load(1, 4, Loaded::Plain);
        registers.load(9, 1, Loaded::Bytes(Bytes::load(Header::Ip4, 8, 1)));
        registers.load(11, 1, Loaded::Protocol);
        assert_eq!(registers.key(1).count(), 2);
        let varying: Vec<_> = registers.key(1).filter_map(Loaded::varies).collect();
        assert_eq!(
            varying.iter().map(|varying| varying.what).collect::<Vec<_>>(),
            ["ip ttl"]
        );
        registers.load(u32::MAX, 200, Loaded::Plain);
        registers.load(1, usize::MAX, Loaded::Plain);
        assert_eq!(registers.key(1).count(), 1);
    }
}
