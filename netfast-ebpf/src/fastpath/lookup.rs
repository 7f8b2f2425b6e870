//! Finds the flow of a packet and decides whether it may be used for it.

use netfast_common::{
    control::Control,
    flow::{Exit, Flow, FlowKey, Origin},
    reason::Reason,
};

use super::vet;
use crate::{
    ctx::Ctx,
    packet::{ECN, Packet, UDP, segment_length},
    state::{self, Place, Tables, maps},
};

/// A pause after which nothing of a flow can be waiting in a queue any more, in nanoseconds: two steps of the coarse
/// clock at HZ=250.
const CALM_NS: u64 = 8_000_000;

/// The key under which a packet enters.
#[inline(always)]
pub fn key<F: Tables, S: Ctx>(skb: &S, packet: &Packet<F::Address>, origin: Origin) -> Result<F::Key, Reason> {
    F::keep(Place::Own, |key| {
        key.source = packet.network.source;
        key.destination = packet.network.destination;
        key.source_port = packet.source_port;
        key.destination_port = packet.destination_port;
        key.ifindex = skb.ifindex();
        key.protocol = packet.network.protocol;
        key.origin = origin as u8;
        key.netns = state::netns();
    })
}

/// A flow that may be used for a packet.
pub struct Hit<A: 'static> {
    /// The flow, where it is stored: another CPU may give the place to another flow at any moment, so nothing that was
    /// read from it counts until [`is_intact`](Self::is_intact) has been asked afterwards.
    pub flow: &'static Flow<A>,
    tag: u32,
    /// See [`Flow::exit`].
    pub exit: u8,
    /// See [`Flow::flags`].
    pub flags: u8,
    /// See [`Flow::bulk`], with this packet in mind.
    pub bulk: u8,
    /// See [`Flow::out_ifindex`].
    pub out_ifindex: u32,
    /// See [`Flow::in_slot`].
    pub in_slot: u16,
    /// See [`Flow::out_slot`].
    pub out_slot: u16,
    /// See [`Flow::mark`].
    pub mark: u32,
    /// See [`Flow::priority`].
    pub priority: u32,
}

impl<A> Hit<A> {
    /// Whether all that was read of the flow until now was of this flow. The kernel copies a new value in from its
    /// first field to its last; the other tag was read before everything else.
    #[inline(always)]
    pub fn is_intact(&self) -> bool {
        // SAFETY: a valid reference; volatile, because another CPU may have written it since.
        unsafe { (&raw const self.flow.tag).read_volatile() == self.tag }
    }
}

/// A flow that this packet may be used with, of which nothing was written yet.
pub struct Found<A: 'static> {
    place: *mut Flow<A>,
    tag: u32,
    /// See [`Flow::bulk`], with this packet in mind.
    bulk: u8,
}

/// Finds the flow, if this packet may be used with it.
///
/// Times and counters are written in place. A packet that is due to ask the kernel again is a miss.
#[inline(always)]
pub fn find<F: Tables, S: Ctx>(
    skb: &S,
    packet: &Packet<F::Address>,
    key: &FlowKey<F::Address>,
    control: &Control,
    now: u64,
) -> Result<Hit<F::Address>, Reason> {
    look::<F, S>(skb, packet, key, control, now)?.take(packet.network.length, now)
}

/// The same without writing anything: for who may leave the packet to another program.
#[inline(always)]
pub fn look<F: Tables, S: Ctx>(
    skb: &S,
    packet: &Packet<F::Address>,
    key: &FlowKey<F::Address>,
    control: &Control,
    now: u64,
) -> Result<Found<F::Address>, Reason> {
    let place = match F::flows().get_ptr_mut(key) {
        Some(place) => place,
        None => one_way::<F>(key).ok_or(Reason::NoFlow)?,
    };
    let tag = key.tag();
    // SAFETY: the map's element lives as long as the program runs; it is made of integers, so a torn read is only a
    // wrong number, which the tags tell.
    let flow = unsafe { &*place };
    // SAFETY: as above; volatile, so that it is read before the rest.
    if unsafe { (&raw const flow.tag_end).read_volatile() } != tag {
        return Err(Reason::Replaced);
    }
    // Before all else that makes a miss: it ends the flow, and with it the other direction, which may be in use still.
    if flow.in_macs != packet.macs {
        return Err(Reason::MacChanged);
    }
    if flow.epoch != control.epoch {
        return Err(Reason::StaleEpoch);
    }
    if generation(flow.in_slot) != Some(flow.in_generation) || generation(flow.out_slot) != Some(flow.out_generation) {
        return Err(Reason::StaleGeneration);
    }
    if flow.dscp != packet.network.tos & !ECN {
        return Err(Reason::DscpChanged);
    }
    let gso_size = skb.gso_size();
    if segment_length(packet, gso_size) > u32::from(flow.max_length) {
        return Err(Reason::TooBig);
    }
    let age = now.wrapping_sub(flow.learned_ns);
    let pause = now.wrapping_sub(flow.used_ns);
    // A slow packet can be overtaken by the fast ones behind it; after a pause there are none, so ask early then.
    if age > control.revalidate_ns || (pause > CALM_NS && age > control.revalidate_ns / 2) {
        return Err(vet::why_due(flow, control));
    }
    // Through the peer a packet overtakes those of its flow that wait in the backlog queue. So a flow that sent GSO
    // packets keeps to the queue, which costs little by the byte, until a pause has emptied it.
    let bulk = if gso_size != 0 {
        1
    } else if pause > CALM_NS {
        0
    } else {
        flow.bulk
    };
    Ok(Found { place, tag, bulk })
}

impl<A> Found<A> {
    /// The interface of the container that the flow goes to at once ([`Exit::Peer`]), if it goes to one and waits for nothing.
    #[inline(always)]
    pub fn peer(&self) -> Option<u32> {
        // SAFETY: as in `look`.
        let flow = unsafe { &*self.place };
        let (exit, out_ifindex) = (flow.exit, flow.out_ifindex);
        (exit == Exit::Peer as u8 && self.bulk == 0).then_some(out_ifindex)
    }

    /// Uses it for a packet of this length in bytes, network layer and up.
    #[inline(always)]
    pub fn take(self, length: u32, now: u64) -> Result<Hit<A>, Reason> {
        let Self { place, tag, bulk } = self;
        // SAFETY: as in `look`.
        let flow = unsafe { &mut *place };
        if bulk != flow.bulk {
            flow.bulk = bulk;
        }
        // Plain stores: a direction of a flow is on one CPU at a time, but for a moment when it moves; a count lost then
        // is worth less than a locked instruction for every packet.
        flow.used_ns = now;
        flow.packets += 1;
        flow.bytes += u64::from(length);
        let flow = &*flow;
        let hit = Hit {
            tag,
            exit: flow.exit,
            flags: flow.flags,
            bulk,
            out_ifindex: flow.out_ifindex,
            in_slot: flow.in_slot,
            out_slot: flow.out_slot,
            mark: flow.mark,
            priority: flow.priority,
            flow,
        };
        if hit.is_intact() {
            Ok(hit)
        } else {
            Err(Reason::Replaced)
        }
    }
}

/// A flow that nobody has answered, if it may be used nonetheless.
#[inline(always)]
fn one_way<F: Tables>(key: &FlowKey<F::Address>) -> Option<*mut Flow<F::Address>> {
    if key.protocol != UDP {
        return None;
    }
    let place = F::unreplied().get_ptr_mut(key)?;
    // SAFETY: the map's element lives as long as the program runs; one byte.
    let flags = unsafe { (*place).flags };
    (flags & Flow::<F::Address>::ONE_WAY != 0).then_some(place)
}

/// The generation of a slot.
#[inline(always)]
pub fn generation(slot: u16) -> Option<u32> {
    maps::GENERATIONS.get(u32::from(slot)).copied()
}

#[cfg(test)]
impl<A> Hit<A> {
    /// What is found of a flow.
    pub(crate) fn of(flow: &'static Flow<A>) -> Self {
        Self {
            tag: flow.tag,
            exit: flow.exit,
            flags: flow.flags,
            bulk: flow.bulk,
            out_ifindex: flow.out_ifindex,
            in_slot: flow.in_slot,
            out_slot: flow.out_slot,
            mark: flow.mark,
            priority: flow.priority,
            flow,
        }
    }
}
