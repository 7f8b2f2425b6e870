//! What an ingress hook remembers of packets that it lets go the slow path, so that an egress hook on the same CPU,
//! in the same run of the kernel, can recognise them.
//!
//! A packet is followed by what NAT does not change, not by a mark: marks belong to other software. That it is the
//! same *run* follows from five things:
//! - what is remembered is per CPU, and every ingress ends it, but for one: where packets come in lists
//!   ([`Arrival::InLists`]), those that enter one after the other, with no packet recognised or missed in between, wait together. Each
//!   egress ends one: the packet that leaves and those that entered before it, as the kernel keeps the order of a list, or the
//!   oldest, if it is none of them. Whoever enters with the same address as one before has taken its place, also if it is refused;
//! - the interface that the kernel says the packet was received by last (`skb_iif`) is the one that our hooks saw it
//!   at last, which excludes packets that a program sends (`AF_PACKET`, tun);
//! - both hooks run on the same kernel stack: a packet enters in a softirq, on the CPU's own stack or ksoftirqd's, but
//!   what user space held (NFQUEUE) comes out on the stack of the program that let it go (`nf_reinject`);
//! - the packet is in the same place: the address of its `struct sk_buff`. Who clones it makes another packet of it. IPv6 has
//!   no identification in its header, so there it is what tells one datagram from the next, and in a list it is in both;
//! - the kernel's `nf_queue` ends all ([`forget`]). The stack alone does not tell when an interrupt hits that
//!   program in user mode: its softirqs then run on the program's own stack (x86, `run_on_irqstack_cond`). Where the
//!   kernel refuses to trace `nf_queue`, the daemon switches learning off while a queue is bound.

use netfast_common::{
    control::Control,
    device::Device,
    flow::{Flow, FlowKey, Origin},
    net::{Ip4, Ip6, MacPair},
    reason::Reason,
};

use crate::{
    ctx::{Skb, kernel},
    fastpath::Arrival,
    packet::{Family, Packet, TCP, UDP},
    state::{
        self, Tables,
        candidate::{Candidate, Candidates, PLACES, SAMPLE, Sort},
        maps,
    },
};

/// A run of the kernel from ingress to egress is microseconds; an older candidate is somebody else's. Two steps of
/// the coarse clock at its slowest (HZ=100), in nanoseconds.
const MAX_RUN_NS: u64 = 20_000_000;

/// How a packet compares with the candidate.
pub enum Recognised {
    /// It is the candidate, changed in nothing but what NAT and routing change.
    Same,
    /// It is the candidate, but something else works on it.
    Mangled,
    /// It is another packet.
    Other,
}

/// Kernel stacks have this size and alignment on `x86_64` and `aarch64` (`THREAD_SIZE`, `IRQ_STACK_SIZE`); where they are
/// larger, a run that crosses a multiple of it is not recognised, which costs another slow packet.
const STACK_SHIFT: u64 = 14;

/// Notes the address of the current stack. By way of memory: the verifier lets no program calculate with it, but lets a
/// privileged one store it, and what is loaded from a map is a number.
#[inline(always)]
fn note_stack(place: *mut u64) -> u64 {
    let mut anchor = 0_u8;
    // SAFETY: `place` is a field of this CPU's element.
    unsafe {
        place.write_volatile(kernel::stack(&raw mut anchor));
        place.read_volatile() >> STACK_SHIFT
    }
}

/// Notes the address of the packet at hand, or what stands in for it.
#[inline(always)]
fn note_address<S: Skb>(skb: &S, place: &mut u64) -> u64 {
    if state::compares_addresses() {
        return skb.note_address(place);
    }
    skb.stand_in().into()
}

/// Remembers a packet that enters, and returns what is remembered.
#[inline(always)]
pub fn leave<F: Tables, S: Skb>(
    skb: &S,
    packet: &Packet<F::Address>,
    key: &FlowKey<F::Address>,
    device: &Device,
    control: &Control,
    now: u64,
    arrival: Arrival,
) -> Result<&'static mut Candidate<F::Address>, Reason> {
    let Some(all) = candidates() else {
        return Err(Reason::NoCandidate);
    };
    let at = enter(all, skb, arrival);
    let slot = place::<F>(all, at);
    let Some(generation) = maps::GENERATIONS.get(u32::from(device.slot)) else {
        return Err(Reason::UnknownDevice);
    };
    // What is given to a tunnel's device has lost what it came in by when it leaves (`skb_scrub_packet`).
    let is_host = key.origin != Origin::Wire as u8;
    let network = &packet.network;
    slot.sample = [0; SAMPLE];
    if !sample(skb, packet, &mut slot.sample) {
        return Err(Reason::Malformed);
    }
    slot.left_ns = now;
    note_stack(&raw mut slot.stack);
    slot.family = F::NUMBER;
    slot.key = *key;
    slot.macs = packet.macs;
    slot.received_by = if is_host { 0 } else { skb.ifindex() };
    slot.epoch = control.epoch;
    slot.generation = *generation;
    slot.slot = device.slot;
    slot.tos = network.tos;
    slot.ttl = network.ttl;
    slot.length = network.length;
    slot.identity = network.identity;
    slot.transport = packet.transport;
    slot.sort = if is_host || device.is_endpoint() {
        Sort::LOCAL
    } else if device.has(Device::ANY_SOURCE) {
        Sort::TRANSIT
    } else {
        Sort::OTHERS
    };
    slot.is_bare = u8::from(packet.payload == 0 && network.protocol == TCP);
    slot.may_be_one_way = u8::from(network.protocol == UDP && device.has(Device::ONE_WAY));
    Ok(slot)
}

/// What this CPU remembers.
#[inline(always)]
pub fn candidates() -> Option<&'static mut Candidates> {
    let all = maps::CANDIDATES.get_ptr_mut(0)?;
    // SAFETY: this CPU's element; hooks run with softirqs off, so nothing else touches it meanwhile.
    Some(unsafe { &mut *all })
}

/// A place, as one of a candidate of this family.
#[inline(always)]
fn place<F: Tables>(all: &'static mut Candidates, at: u32) -> &'static mut Candidate<F::Address> {
    let place = (&raw mut all.places[at as usize % PLACES as usize]).cast::<Candidate<F::Address>>();
    // SAFETY: it has room for either family's (asserted below), and is made of integers.
    unsafe { &mut *place }
}

/// Gives a packet that enters the next place, where it is as if it were refused so far.
#[inline(always)]
fn enter<S: Skb>(all: &mut Candidates, skb: &S, arrival: Arrival) -> u32 {
    let is_listed = arrival == Arrival::InLists;
    let before = if is_listed && all.is_open != 0 { all.waiting } else { 0 };
    all.waiting = before.wrapping_add(1);
    all.is_open = is_listed.into();
    let at = all.newest.wrapping_add(1) % PLACES;
    all.newest = at;
    all.addresses[at as usize] = note_address(skb, &mut all.here);
    all.places[at as usize].left_ns = 0;
    at
}

/// How many candidates are newer than the one at the packet's address, if there is one.
#[inline(always)]
fn find<S: Skb>(all: &mut Candidates, skb: &S) -> Option<u32> {
    let address = note_address(skb, &mut all.here);
    let mut newer = 0;
    while newer < PLACES && newer < all.waiting {
        if all.addresses[(all.newest.wrapping_sub(newer) % PLACES) as usize] == address {
            // By way of memory: so the verifier goes through what follows once, whichever it is.
            // SAFETY: valid references.
            return Some(unsafe {
                (&raw mut all.newer).write_volatile(newer);
                (&raw const all.newer).read_volatile()
            });
        }
        newer += 1;
    }
    None
}

/// This CPU's candidate at the packet's address, if there is one, as one of this family: whether it is is for
/// [`Candidate::recognise`] to find out, and only then its key is worth something.
#[inline(always)]
pub fn current<F: Tables, S: Skb>(skb: &S) -> Option<&'static mut Candidate<F::Address>> {
    let all = candidates()?;
    let newer = find(all, skb)?;
    let at = all.newest.wrapping_sub(newer);
    Some(place::<F>(all, at)).filter(|candidate| candidate.left_ns != 0)
}

/// The same where a packet leaves: the candidate and those that entered before it are over then. If the packet is none of them,
/// the oldest is.
#[inline(always)]
pub fn take<F: Tables, S: Skb>(skb: &S) -> Result<&'static mut Candidate<F::Address>, Reason> {
    let all = candidates().ok_or(Reason::NoCandidate)?;
    if all.waiting == 0 {
        return Err(Reason::NoCandidate);
    }
    all.is_open = 0;
    let Some(newer) = find(all, skb) else {
        all.waiting -= 1;
        return Err(Reason::OtherPacket);
    };
    all.waiting = newer;
    let at = all.newest.wrapping_sub(newer);
    let candidate = place::<F>(all, at);
    if candidate.left_ns == 0 {
        return Err(Reason::NoCandidate);
    }
    Ok(candidate)
}

/// The packet at hand is another than it should be, or was learned: what is at its address is over, whatever it is.
#[inline(always)]
pub fn end<F: Tables, S: Skb>(skb: &S) -> Reason {
    match take::<F, S>(skb) {
        Ok(_) => Reason::OtherPacket,
        Err(reason) => reason,
    }
}

/// A packet that enters is refused: nothing at its address is to be taken for it.
#[inline(always)]
pub fn refuse<S: Skb>(skb: &S, arrival: Arrival) {
    let Some(all) = candidates() else { return };
    if arrival == Arrival::InLists && all.is_open != 0 {
        enter(all, skb, arrival);
    } else {
        all.waiting = 0;
    }
}

/// All that this CPU remembers is over.
#[inline(always)]
pub fn forget() {
    forget_any();
}

/// The same; whether there was anything.
#[inline(always)]
pub fn forget_any() -> bool {
    let Some(all) = candidates() else { return false };
    let any = all.waiting != 0;
    all.waiting = 0;
    any
}

const _: () = assert!(size_of::<Candidate<Ip4>>() <= size_of::<Candidate<Ip6>>() && PLACES.is_power_of_two());

impl<A: netfast_common::net::Address> Candidate<A> {
    /// Whether it was left where a packet of this family is given to a tunnel's device.
    #[inline(always)]
    pub fn is_of_tunnel<F: Family<Address = A>>(&self) -> bool {
        self.family == F::NUMBER && self.key.origin == Origin::Tunnel as u8
    }

    /// Whether it is a TCP packet without payload.
    #[inline(always)]
    pub fn is_bare(&self) -> bool {
        self.is_bare != 0
    }

    /// Notes that the packet passed the ingress of another interface on its way (a bridge hands it to the host).
    #[inline(always)]
    pub fn passes(&mut self, ifindex: u32) {
        self.received_by = ifindex;
    }

    /// Whether this hook runs in the run that left the candidate. That it is the same packet is known by then ([`find`]).
    #[inline(always)]
    pub fn is_same_run(&mut self, now: u64) -> bool {
        note_stack(&raw mut self.here) == self.stack >> STACK_SHIFT && now.wrapping_sub(self.left_ns) < MAX_RUN_NS
    }

    /// Whether the packet at this hook was received by the interface that saw the candidate last. A packet that a
    /// program sends was received by none.
    #[inline(always)]
    pub fn is_from_there<S: Skb>(&self, skb: &S) -> bool {
        skb.ingress_ifindex() == self.received_by
    }

    /// Compares the packet at this hook with the one that entered. TTL is for the caller to judge.
    #[inline(always)]
    pub fn recognise<F: Family<Address = A>, S: Skb>(&self, skb: &S, packet: &Packet<A>) -> Recognised {
        let network = &packet.network;
        if self.family != F::NUMBER {
            return Recognised::Other;
        }
        if network.identity != self.identity
            || network.length != self.length
            || network.protocol != self.key.protocol
            || packet.transport[0] != self.transport[0]
            || packet.transport[1] != self.transport[1]
        {
            return Recognised::Other;
        }
        if network.tos != self.tos || packet.transport[2] != self.transport[2] {
            return Recognised::Mangled;
        }
        let mut bytes = [0; SAMPLE];
        if !sample(skb, packet, &mut bytes) || bytes != self.sample {
            return Recognised::Mangled;
        }
        Recognised::Same
    }
}

/// Copies first bytes of the payload; `false` if the kernel refuses. The lengths are constants, for the verifier.
#[inline(always)]
fn sample<S: Skb, A>(skb: &S, packet: &Packet<A>, to: &mut [u8; SAMPLE]) -> bool {
    match packet.payload {
        0 => true,
        1..4 => skb.load::<1>(packet.payload_offset, to),
        4..16 => skb.load::<4>(packet.payload_offset, to),
        _ => skb.load::<SAMPLE>(packet.payload_offset, to),
    }
}

netfast_common::assert_no_padding!(
    Candidate<Ip4>,
    [u64; 3],
    MacPair,
    [u32; 3],
    u16,
    [u8; 2],
    [u32; 2],
    [u32; 3],
    [u8; SAMPLE],
    [u8; 4],
    FlowKey<Ip4>,
    Flow<Ip4>,
);
netfast_common::assert_no_padding!(
    Candidate<Ip6>,
    [u64; 3],
    MacPair,
    [u32; 3],
    u16,
    [u8; 2],
    [u32; 2],
    [u32; 3],
    [u8; SAMPLE],
    [u8; 4],
    FlowKey<Ip6>,
    Flow<Ip6>,
);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        ctx::fake::{FakeSkb, Plain, reset},
        packet::V6,
    };

    /// A program may send a packet like one that has just entered; the kernel keeps it elsewhere.
    #[test]
    fn a_packet_in_another_place_is_another_packet() {
        reset();
        let packet = Plain::udp(vec![7; 20]);
        let mut skb = FakeSkb::new(&packet.frame6());
        skb.address = 0x1000;
        let parsed = crate::packet::parse::<V6, _>(&skb).expect("a packet");
        let key = crate::fastpath::lookup::key::<V6, _>(&skb, &parsed, Origin::Wire).expect("room");
        let control = Control::default();
        let device = Device::new(netfast_common::device::Kind::Endpoint, Device::ACCELERATED, 1);
        assert!(leave::<V6, _>(&skb, &parsed, key, &device, &control, 5, Arrival::Alone).is_ok());
        let candidate = current::<V6, _>(&skb).expect("it was left");
        assert!(matches!(candidate.recognise::<V6, _>(&skb, &parsed), Recognised::Same));
        assert!(candidate.is_same_run(5));
        skb.address = 0x1100;
        assert!(current::<V6, _>(&skb).is_none());
    }
}
