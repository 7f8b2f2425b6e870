//! The BPF programs on a faked kernel, and what must hold of whatever they do.

use std::net::Ipv4Addr;

use netfast_common::{
    control::Control,
    device::{Device, DeviceKey, Traffic},
    flow::{Exit, Flow, FlowKey},
    net::{Ip4, Ip6},
    reason::{Count, FAST, Reason, SLOTS},
    trace::{Filter, Traced, step},
};
use netfast_ebpf::{
    ctx::fake::{self, FakeSkb, Sent, TC_ACT_REDIRECT},
    fastpath::Entry,
    hooks,
    learn::candidate,
    state::maps,
};
use netfast_tests::{
    packet::{ICMP, Packet, TCP, check_checksums, difference, six},
    scene::{BRIDGE, Dev, HOST, Way},
};

use crate::{
    machine::{Machine, NEXT, Outcome, Player, Run, Watch},
    script::{Hook, Script},
};

/// A script on the faked kernel.
pub fn fuzz(bytes: &[u8]) {
    play(&Script::of(bytes));
}

/// Plays a script on the faked kernel; returns what was counted.
pub fn play(script: &Script) -> Vec<Count> {
    let mut host = Host::new(Dev::ALL.map(|dev| u32::from(dev.slot()) + 11));
    let mut judge = Judge::default();
    Player::new(&mut host, &mut judge).play(script);
    host.counts()
}

const ETHERNET: usize = 14;
/// `BPF_F_INGRESS` of `bpf_redirect`.
pub const BPF_F_INGRESS: u64 = 1;
/// When a script begins, in nanoseconds: no time of a flow may be before zero.
const BEGIN: u64 = 1 << 50;
/// The address that stands for the softirq stack, and that for a program's.
const SOFTIRQ_STACK: u64 = 0x10_0000;
const PROGRAM_STACK: u64 = 0x20_0000;

/// What the host's routes call its own, broadcast addresses of its networks included.
const LOCAL: [[u8; 4]; 6] = [
    HOST.octets(),
    [192, 0, 2, 0],
    [192, 0, 2, 255],
    BRIDGE.octets(),
    [172, 17, 0, 0],
    [172, 17, 255, 255],
];

/// The faked kernel of this thread.
pub struct Host {
    now: u64,
    /// The interfaces' numbers.
    indexes: [u32; Dev::ALL.len()],
    /// What the last run did besides.
    sent: Option<Sent>,
}

impl Host {
    /// With empty maps, and interfaces of these numbers.
    pub fn new(indexes: [u32; Dev::ALL.len()]) -> Self {
        fake::reset();
        fake::set_ns(BEGIN);
        Self {
            now: BEGIN,
            indexes,
            sent: None,
        }
    }

    fn ifindex(&self, dev: Dev) -> u32 {
        self.indexes[dev as usize]
    }

    /// Places in the table of packets of unknown flows that were looked at.
    pub fn seen(&self) -> Vec<u32> {
        maps::WARMUP.touched()
    }

    /// Sets the clock, in nanoseconds.
    pub fn set_now(&mut self, now: u64) {
        self.now = now;
        fake::set_ns(now);
    }

    /// Makes all that is stored older, where the clock is another's.
    pub fn grow_older(&mut self, ns: u64) {
        for map in [&maps::FLOWS4, &maps::UNREPLIED4] {
            for (key, _) in map.entries() {
                let place = map.get_ptr_mut(key).expect("it is there");
                // SAFETY: an element of this thread's, and no program runs.
                grow_older(unsafe { &mut *place }, ns);
            }
        }
        for map in [&maps::FLOWS6, &maps::UNREPLIED6] {
            for (key, _) in map.entries() {
                let place = map.get_ptr_mut(key).expect("it is there");
                // SAFETY: as above.
                grow_older(unsafe { &mut *place }, ns);
            }
        }
        candidate::candidates().expect("an element").grow_older(ns);
    }

    /// Whether a candidate waits.
    pub fn has_candidate(&self) -> bool {
        candidate::candidates().expect("an element").any()
    }

    /// Flows in use, and those that wait for their reverse.
    pub fn flows(&self) -> [Vec<(FlowKey<Ip4>, Flow<Ip4>)>; 2] {
        [maps::FLOWS4.entries(), maps::UNREPLIED4.entries()]
    }

    /// The same of IPv6.
    pub fn flows6(&self) -> [Vec<(FlowKey<Ip6>, Flow<Ip6>)>; 2] {
        [maps::FLOWS6.entries(), maps::UNREPLIED6.entries()]
    }
}

impl Machine for Host {
    fn run(&mut self, run: &Run) -> Outcome {
        let odds = run.odds;
        let mut skb = FakeSkb::new(&run.frame);
        skb.mark.set(odds.mark());
        skb.priority.set(odds.priority());
        skb.gso_size = odds.gso();
        skb.ifindex = self.ifindex(run.dev);
        skb.received_by = run.from.map_or(0, |dev| self.ifindex(dev));
        skb.for_another_mac = run.is_for_another_mac();
        skb.local = LOCAL.map(Ip4::from_bytes).to_vec();
        // IPv6 has no broadcast addresses, but an anycast one for each network, which its routes call the host's own as well.
        let local6 = [HOST, BRIDGE, Ipv4Addr::new(192, 0, 2, 0), Ipv4Addr::new(172, 17, 0, 0)];
        let local6 = local6.into_iter().filter_map(six::address);
        skb.local6 = local6.map(|ip| Ip6::from_bytes(ip.octets())).collect();
        if let Some(odds) = odds.host() {
            skb = skb.with_linear(odds.linear.into());
            (skb.no_memory, skb.vlan, skb.partial) = (odds.no_memory, odds.vlan, odds.partial);
        }
        fake::set_stack(if run.other_stack { PROGRAM_STACK } else { SOFTIRQ_STACK });
        let verdict = match run.hook {
            Hook::EndpointIn => hooks::entry(&skb, Entry::Endpoint),
            Hook::BridgeOut => hooks::entry(&skb, Entry::Host),
            Hook::UplinkIn => hooks::entry(&skb, Entry::Uplink),
            Hook::EndpointOut | Hook::UplinkOut => hooks::exit(&skb),
            Hook::BridgeIn => hooks::delivery(&skb),
        };
        self.sent = skb.sent.get();
        Outcome {
            verdict,
            frame: skb.bytes(),
            mark: skb.mark.get(),
            priority: skb.priority.get(),
        }
    }

    fn set_control(&mut self, control: Control, is_traced: bool) {
        let place = maps::CONTROL.get_ptr_mut(0).expect("an element");
        let traced_until = if is_traced { u32::MAX } else { 0 };
        // SAFETY: an element of this thread's, and no program runs.
        unsafe {
            *place = Control {
                traced_until,
                ..control
            }
        };
    }

    fn set_filter(&mut self, mut filter: Filter) {
        if filter.devices[0] != 0 {
            filter.devices[0] = self.indexes[filter.devices[0] as usize - 1];
        }
        let place = maps::FILTER.get_ptr_mut(0).expect("an element");
        // SAFETY: as above.
        unsafe { *place = filter };
    }

    fn set_device(&mut self, dev: Dev, device: Option<Device>) {
        // What is not there cannot be removed.
        let _ = maps::DEVICES.remove(DeviceKey::served(self.ifindex(dev)));
        if let Some(device) = device {
            maps::DEVICES
                .insert(DeviceKey::served(self.ifindex(dev)), device, 0)
                .expect("room");
        }
    }

    fn set_generation(&mut self, slot: u16, generation: u32) {
        let place = maps::GENERATIONS.get_ptr_mut(slot.into()).expect("an element");
        // SAFETY: as above.
        unsafe { *place = generation };
    }

    fn pass(&mut self, ns: u64) {
        self.now += ns;
        fake::set_ns(self.now);
    }

    fn edit_flow(&mut self, way: &Way, edit: fn(&mut Flow<Ip4>)) {
        if let Some(place) = maps::FLOWS4.get_ptr_mut(way.key_at(self.ifindex(way.enters))) {
            // SAFETY: as above.
            edit(unsafe { &mut *place });
        }
    }

    fn queued(&mut self) {
        candidate::forget();
    }

    fn counts(&mut self) -> Vec<Count> {
        (0..SLOTS)
            .map(|number| *maps::REASONS.get(number).expect("an element"))
            .collect()
    }

    fn traffic(&mut self) -> Vec<Traffic> {
        let slots = 0..=u32::try_from(Dev::ALL.len()).expect("few");
        slots
            .map(|slot| *maps::TRAFFIC.get(slot).expect("an element"))
            .collect()
    }
}

/// Makes a flow older.
pub fn grow_older<A>(flow: &mut Flow<A>, ns: u64) {
    for time in [&mut flow.learned_ns, &mut flow.used_ns, &mut flow.created_ns] {
        *time = time.wrapping_sub(ns);
    }
}

/// What must hold of each run.
#[derive(Default)]
struct Judge {
    counts: Vec<Count>,
    /// The frame that entered last, and took the slow path.
    entered: Option<Run>,
    /// A frame out of nothing was taken for a candidate: what ways say need not be what was learned.
    is_wild: bool,
}

/// Reasons after which no candidate may wait.
const EMPTIES: [Reason; 19] = [
    Reason::NotIp,
    Reason::Malformed,
    Reason::BadIpChecksum,
    Reason::IpOptions,
    Reason::Fragment,
    Reason::TtlExpiring,
    Reason::NotUnicast,
    Reason::Vlan,
    Reason::OtherProtocol,
    Reason::TcpSyn,
    Reason::TcpFin,
    Reason::TcpRst,
    Reason::TcpFlags,
    Reason::Marked,
    Reason::UnknownDevice,
    Reason::Spoofed,
    Reason::EchoOff,
    Reason::LearnOff,
    Reason::Young,
];

impl Watch<Host> for Judge {
    fn ran(&mut self, host: &mut Host, run: &Run, outcome: &Outcome, of: Option<(&Way, &Packet)>) {
        let reason = self.counted(host, run, outcome);
        let traced: Vec<Traced> = maps::TRACED.take();
        for traced in &traced {
            let captured = &traced.bytes[..traced.captured as usize];
            assert_eq!(captured, &run.frame[..captured.len()], "shown as it entered");
            assert_eq!(traced.length as usize, run.frame.len());
            assert!(traced.time_ns == host.now && step(host.now) > 0);
        }
        assert!(traced.len() <= 1, "shown once");
        if outcome.verdict == NEXT {
            assert_eq!(
                outcome.frame, run.frame,
                "a packet on the slow path is changed ({reason:?})"
            );
            assert_eq!((outcome.mark, outcome.priority), (run.odds.mark(), run.odds.priority()));
            assert_eq!(host.sent, None);
        } else {
            assert_eq!(outcome.verdict, TC_ACT_REDIRECT);
            self.judge_fast(host, run, outcome, of);
        }
        let Some(reason) = reason else { return };
        // With this reason a packet may also be a candidate: flows are then learned, and not used.
        let is_off = reason == Reason::Disabled && maps::CONTROL.get(0).is_none_or(|control| control.switches == 0);
        if is_off || EMPTIES.contains(&reason) {
            assert!(!host.has_candidate(), "a candidate waits after {reason:?}");
        }
        if reason.is_slow() {
            self.entered = Some(run.clone());
        }
        let is_learned = [Reason::Learned, Reason::Paired, Reason::Refreshed].contains(&reason);
        if is_learned {
            let is_as_told = of.is_some_and(|(way, packet)| {
                let is_passing = run.hook == Hook::BridgeIn && run.frame == packet.bytes();
                is_passing || run.dev == way.leaves && run.frame == way.leaving(packet).bytes()
            });
            self.is_wild |= !is_as_told;
            let entered = self.entered.as_ref().expect("what is learned has entered");
            assert!(!run.other_stack, "learned in another run");
            judge_source(host, entered);
            judge_learned(&entered.frame, &run.frame);
            judge_flows(host);
        }
    }
}

impl Judge {
    /// What was counted: one packet of one reason; of those that are let go at once, none.
    fn counted(&mut self, host: &mut Host, run: &Run, outcome: &Outcome) -> Option<Reason> {
        let before = std::mem::replace(&mut self.counts, host.counts());
        let before = before.into_iter().chain(std::iter::repeat(Count::default()));
        let changed: Vec<(u32, u64, u64)> = (0..)
            .zip(self.counts.iter().zip(before))
            .filter(|(_, (after, before))| *after != before)
            .map(|(number, (after, before))| (number, after.packets - before.packets, after.bytes - before.bytes))
            .collect();
        if run.hook == Hook::BridgeOut && run.from.is_some() {
            assert!(changed.is_empty() && outcome.verdict == NEXT, "{changed:?}");
            return None;
        }
        // A bridge that it is a port of takes them.
        if run.hook == Hook::UplinkIn && run.is_for_another_mac() && changed.is_empty() {
            assert_eq!(outcome.verdict, NEXT);
            return None;
        }
        let [(number, 1, bytes)] = changed[..] else {
            panic!("one packet, and counted: {changed:?}");
        };
        assert!(bytes <= run.frame.len().saturating_sub(ETHERNET) as u64);
        assert_eq!(number == FAST, outcome.verdict != NEXT, "{changed:?}");
        let reason = Reason::ALL.iter().copied().find(|reason| reason.number() == number);
        assert!(reason.is_some() || number == FAST, "no reason has the number {number}");
        let is_entry = matches!(run.hook, Hook::EndpointIn | Hook::BridgeOut | Hook::UplinkIn);
        assert!(
            reason.is_none_or(|reason| reason.is_slow() == is_entry),
            "{reason:?} at {:?}",
            run.hook
        );
        reason
    }

    /// A packet that was sent.
    fn judge_fast(&self, host: &Host, run: &Run, outcome: &Outcome, of: Option<(&Way, &Packet)>) {
        let (before, after) = (&run.frame[..], &outcome.frame[..]);
        assert_eq!(before.len(), after.len());
        assert!(matches!(run.hook, Hook::EndpointIn | Hook::BridgeOut | Hook::UplinkIn));
        // SAFETY: no program runs.
        let device = |index: u32| unsafe { maps::DEVICES.get(DeviceKey::served(index)) }.copied();
        let Some(Sent::To(out, _) | Sent::ToPeer(out)) = host.sent else {
            panic!("redirected nowhere");
        };
        let to = device(out).expect("to a device that is known");
        assert!(to.has(Device::ACCELERATED));
        if let Some(Sent::ToPeer(_)) = host.sent {
            assert!(to.has(Device::PEER_IN_OTHER_NETNS) && !to.has(Device::EGRESS_QDISC) && to.is_endpoint());
            assert!(run.hook != Hook::BridgeOut, "a peer is reached from ingress hooks only");
        }
        if run.hook == Hook::EndpointIn {
            let from = device(host.ifindex(run.dev)).expect("known");
            assert_eq!(before[6..12], from.mac);
            assert!(from.has(Device::ANY_SOURCE) || before[26..30] == from.address4.bytes());
        }
        assert!(
            before[22] > 1 && before[22] - after[22] <= 1,
            "TTL {} to {}",
            before[22],
            after[22]
        );
        assert!(before[14] == 0x45 && before[20] & 0xbf == 0 && before[21] == 0);
        if before[23] == 6 {
            assert_eq!(before[47] & 0x17, 0x10, "TCP flags {:#04x}", before[47]);
        }
        assert_eq!(run.odds.mark(), 0);
        let sum: u32 = before[14..34]
            .chunks(2)
            .map(|half| u32::from(u16::from_be_bytes([half[0], half[1]])))
            .sum();
        assert_eq!((sum & 0xffff) + (sum >> 16), 0xffff, "a wrong IP checksum");
        if before[23] == ICMP {
            assert!([0, 8].contains(&before[34]) && before[35] == 0, "an echo");
            assert_ne!(before[38..40], [0, 0], "with an identifier");
        }
        // All but MAC addresses, TTL, checksums, addresses and ports, or identifier.
        let (transport, changing) = match before[23] {
            TCP => (38, 50..52),
            ICMP => (34, 36..40),
            _ => (38, 40..42),
        };
        for place in (12..22).chain([23]).chain(transport..before.len()) {
            assert!(
                before[place] == after[place] || changing.contains(&place),
                "byte {place}"
            );
        }
        judge_checksums(run, before, after);
        if let Some(Sent::To(_, flags)) = host.sent
            && flags & BPF_F_INGRESS != 0
        {
            assert_eq!(before, after, "the host gets it as it came");
        } else if let Some((way, packet)) = of.filter(|_| !self.is_wild) {
            let wanted = way.leaving(packet).bytes();
            let is_summed = packet.checksum.is_none() && packet.ip_checksum.is_none();
            // Wrong checksums stay wrong by as much, which `leaving` does not know.
            if is_summed && run.odds.host().is_none_or(|odds| !odds.partial) {
                assert!(
                    wanted == after,
                    "not what the kernel makes of it:\n{}",
                    difference(&wanted, after)
                );
            }
        }
    }
}

fn judge_checksums(run: &Run, before: &[u8], after: &[u8]) {
    let is_big = run.odds.gso() != 0 && before[16..18] == [0, 0];
    let is_partial = run.odds.host().is_some_and(|odds| odds.partial);
    if !is_big && !is_partial && check_checksums(before).is_ok() {
        check_checksums(after).expect("right checksums stay right");
    }
}

/// An endpoint teaches only what it sends from its own addresses.
fn judge_source(host: &Host, entered: &Run) {
    // SAFETY: no program runs.
    let device = unsafe { maps::DEVICES.get(DeviceKey::served(host.ifindex(entered.dev))) };
    let (Hook::EndpointIn, Some(device)) = (entered.hook, device) else {
        return;
    };
    let frame = &entered.frame;
    let is_own =
        frame[6..12] == device.mac && (device.has(Device::ANY_SOURCE) || frame[26..30] == device.address4.bytes());
    assert!(is_own, "learned from another's address");
}

/// What was learned of: nothing may differ between entry and exit but MAC addresses, addresses, ports, checksums, and the
/// TTL by one. (TCP's urgent pointer and options, and the payload after its first 16 bytes, are not compared.)
fn judge_learned(entered: &[u8], leaves: &[u8]) {
    assert!(entered.len() >= 42 && leaves.len() >= 42, "too short to be learned");
    let ip = (12..22).chain([23]);
    let (transport, payload) = match entered[23] {
        TCP => ((38..50).chain(0..0), 34 + usize::from(entered[46] >> 4) * 4),
        // Type and code, and the sequence number.
        ICMP => ((34..36).chain(40..42), 42),
        _ => ((38..40).chain(0..0), 42),
    };
    let end = entered
        .len()
        .min(14 + usize::from(u16::from_be_bytes([entered[16], entered[17]])));
    let sample = match end.saturating_sub(payload) {
        length @ 0..4 => payload..payload + length.min(1),
        4..16 => payload..payload + 4,
        _ => payload..payload + 16,
    };
    for place in ip.chain(transport).chain(sample) {
        assert_eq!(
            entered[place], leaves[place],
            "learned, although byte {place} was changed"
        );
    }
    assert!(
        entered[22].wrapping_sub(leaves[22]) <= 1,
        "learned, with TTL {} to {}",
        entered[22],
        leaves[22]
    );
    assert!(leaves[22] > 1 && leaves[0] & 1 == 0 && leaves[6] & 1 == 0);
}

/// All flows are where their keys are.
fn judge_flows(host: &Host) {
    for (key, flow) in host.flows().into_iter().flatten() {
        assert_eq!(flow.tag, key.tag());
        assert!(flow.max_length <= 1500);
        assert!([Exit::Peer as u8, Exit::Device as u8, Exit::Host as u8].contains(&flow.exit));
        assert_ne!(key.ifindex, flow.out_ifindex, "back where it came from");
    }
}

#[cfg(test)]
mod tests;
