//! What a rule makes of what its registers hold: masks, comparisons, verdicts.

use super::super::super::field::{Bytes, Header, Outcome};
use super::super::super::reading::Reading;
use super::super::super::table::Place;
use super::super::super::xt::{is_other_protocol, is_unreplied, known};
use super::super::registers::{Loaded, Varying};
use super::{Rule, number};
use crate::bytes::u32_at;
use crate::host::Verdict;
use crate::sys::netlink::{Attr, Attrs, Malformed};

impl Rule {
    /// `register = register & mask ^ flip`.
    pub(super) fn mask(&mut self, data: Attrs<'_>) -> Result<(), Malformed> {
        // NFTA_BITWISE_SREG, _DREG, _LEN, _MASK and _XOR with NFTA_DATA_VALUE in them, _OP: 0 is this one; NFTA_BITWISE_SREG2.
        let (mask, flip) = (data.inside(4)?.find(1), data.inside(5)?.find(1));
        let (source, target, len) = (number(data, 1)?, number(data, 2)?, number(data, 3)?);
        let is_mask = number(data, 6)?.unwrap_or(0) == 0;
        let flip = flip.map_or(&[][..], |flip| flip.payload);
        let flipped = flip.iter().any(|byte| *byte != 0);
        let before = source.and_then(|register| self.registers.get(register));
        let after = match (before, mask.map(|mask| mask.payload)) {
            (Some(Loaded::Bytes(bytes)), Some(mask))
                if is_mask && mask.len() == bytes.kept.len() && flip.len() == mask.len() =>
            {
                let kept = bytes.kept.iter().zip(mask).map(|(kept, mask)| kept & mask);
                let old = bytes.flip.iter().zip(mask).map(|(old, mask)| old & mask);
                Loaded::Bytes(Bytes {
                    kept: kept.collect(),
                    flip: old.zip(flip).map(|(old, flip)| old ^ flip).collect(),
                    ..bytes.clone()
                })
            }
            (Some(Loaded::State(old)), Some(mask)) if is_mask && !flipped => {
                u32_at(mask, 0).map_or(Loaded::Plain, |mask| Loaded::State(old & mask))
            }
            // Shifted, it is another one each time, too.
            (Some(Loaded::ConnectionMark(old)), mask) => {
                let is_flipped = mask.is_some_and(|mask| mask.iter().zip(flip).any(|(mask, flip)| mask & flip != 0));
                Loaded::ConnectionMark(*old || !is_mask || is_flipped)
            }
            _ => {
                let second = number(data, 8)?.and_then(|register| self.registers.get(register));
                let both = source
                    .into_iter()
                    .flat_map(|register| self.registers.key(register))
                    .chain(second);
                Loaded::derived(both)
            }
        };
        self.load(target, usize::try_from(len.unwrap_or(4)).unwrap_or(4), after);
        Ok(())
    }

    pub(super) fn compare(&mut self, data: Attrs<'_>) -> Result<(), Malformed> {
        // NFTA_CMP_SREG, NFTA_CMP_OP (NFT_CMP_EQ 0, NFT_CMP_NEQ 1), NFTA_CMP_DATA with NFTA_DATA_VALUE in it
        let register = data.need(1, "what is compared")?.be32()?;
        let value = data.need(3, "what it is compared with")?.nested()?;
        let value = value.need(1, "what it is compared with")?;
        let Some(loaded) = self.registers.get(register).cloned() else {
            return Ok(());
        };
        let is_zero = value.payload.iter().all(|byte| *byte == 0);
        match (number(data, 2)?, &loaded) {
            (Some(op @ (0 | 1)), Loaded::Bytes(bytes)) => match bytes.compare(value.payload, op == 0) {
                Outcome::Repeatable => {}
                Outcome::Never => self.reading.common.always_slow = true,
                Outcome::Varies(what, reason) => self.judge(Varying::new(what, reason)),
                Outcome::VariesInIcmp(what, reason) => self.judge(Varying {
                    icmp_only: true,
                    ..Varying::new(what, reason)
                }),
            },
            (Some(0), _) => self.equals(&loaded, value),
            // `ct state new` asks whether anything is left under a mask.
            (Some(1), Loaded::State(mask)) if is_zero => self.reading.common.unreplied |= is_unreplied(*mask),
            _ => {}
        }
        if !matches!(loaded, Loaded::Bytes(_)) || !matches!(number(data, 2)?, Some(0 | 1)) {
            loaded.varies().into_iter().for_each(|found| self.judge(found));
        }
        Ok(())
    }

    fn equals(&mut self, loaded: &Loaded, value: Attr<'_>) {
        // Without a terminating zero it is the beginning of a name, for `eth*`.
        let name = Some(value.text()).filter(|_| value.payload.contains(&0));
        let by_index = || {
            nix::net::if_::if_indextoname(value.u32().ok()?)
                .ok()?
                .into_string()
                .ok()
        };
        let Reading { common, words, .. } = &mut self.reading;
        match loaded {
            Loaded::IncomingName => {
                words.push(format!("iifname {}", value.text()));
                common.iif = name;
            }
            Loaded::OutgoingName => {
                words.push(format!("oifname {}", value.text()));
                common.oif = name;
            }
            Loaded::IncomingIndex => {
                common.iif = by_index();
                words.extend(common.iif.iter().map(|name| format!("iif {name}")));
            }
            Loaded::OutgoingIndex => {
                common.oif = by_index();
                words.extend(common.oif.iter().map(|name| format!("oif {name}")));
            }
            Loaded::NetfilterProtocol | Loaded::EtherType => match value.payload {
                [2, ..] | [0x08, 0x00, ..] => self.network = Header::Ip4,
                [10, ..] | [0x86, 0xdd, ..] => self.network = Header::Ip6,
                // Neither IPv4 nor IPv6: ARP, a VLAN tag.
                _ => common.always_slow = true,
            },
            Loaded::Protocol => {
                let protocol = value.payload.first().copied();
                common.always_slow |= protocol.is_some_and(is_other_protocol);
                protocol
                    .and_then(known)
                    .into_iter()
                    .for_each(|known| common.narrow(known));
                self.transport = match protocol {
                    Some(1) => Header::Icmp,
                    Some(6) => Header::Tcp,
                    Some(17) => Header::Udp,
                    Some(58) => Header::Icmp6,
                    _ => Header::Transport,
                };
            }
            Loaded::State(mask) => {
                common.unreplied |= value.u32().is_ok_and(|states| is_unreplied(mask & states));
            }
            Loaded::Plain | Loaded::Judging(..) | Loaded::Bytes(_) | Loaded::ConnectionMark(_) => {}
        }
    }

    pub(super) fn immediate(&mut self, data: Attrs<'_>) -> Result<(), Malformed> {
        // NFTA_IMMEDIATE_DREG, NFTA_IMMEDIATE_DATA, NFTA_DATA_VERDICT, NFTA_VERDICT_CODE and NFTA_VERDICT_CHAIN
        let content = data.inside(2)?;
        let Some(verdict) = content.find(2) else {
            let len = content.find(1).map_or(4, |value| value.payload.len());
            self.load(number(data, 1)?, len, Loaded::Plain);
            return Ok(());
        };
        let verdict = verdict.nested()?;
        let chain = verdict.find(2).map(Attr::text).unwrap_or_default();
        let (kind, word) = match number(verdict, 1)?.map(u32::cast_signed) {
            Some(0) => (Verdict::Drop, "drop".into()),
            Some(1) => (Verdict::Accept, "accept".into()),
            Some(-3) => (Verdict::Jump, format!("jump {chain}")),
            Some(-4) => (Verdict::Jump, format!("goto {chain}")),
            Some(-5) => (Verdict::Return, "return".into()),
            // NF_QUEUE, with the queue's number in the upper half.
            Some(code) if code & 0xff == 3 => {
                self.reading.see(Place::Expression, "queue");
                (Verdict::Queue, "queue".into())
            }
            // NFT_CONTINUE
            Some(-1) => return Ok(()),
            other => (Verdict::None, format!("verdict {}", other.unwrap_or_default())),
        };
        self.reading.decide(kind, word);
        self.reading.jump = (kind == Verdict::Jump).then_some(chain);
        Ok(())
    }
}
