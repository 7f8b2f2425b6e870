//! A script: packets and events, made of whatever bytes the fuzzer has ([`arbitrary`]). Close to what a host does, so that
//! random bytes get as far as flows in use, and free to do anything else.

use std::iter;

use arbitrary::{Arbitrary, Unstructured};
use netfast_tests::{
    packet::{Packet, flag},
    scene::{Dev, Way},
};

use crate::scene::talks;

/// Steps that are played of a script.
const MAX_STEPS: usize = 40;
/// Frames that a test run takes (`bpf_prog_test_run_skb`): an Ethernet header, and a page less what the kernel needs.
const SHORTEST: usize = 14;
const LONGEST: usize = 3000;

/// The first steps that bytes stand for, at most so many.
pub fn steps<T: for<'a> Arbitrary<'a>>(bytes: &[u8], most: usize) -> Vec<T> {
    let mut bytes = Unstructured::new(bytes);
    let steps = iter::from_fn(|| (!bytes.is_empty()).then(|| bytes.arbitrary().ok()).flatten());
    steps.take(most).collect()
}

/// What happens on the host.
#[derive(Clone, Debug)]
pub struct Script {
    /// In this order.
    pub steps: Vec<Step>,
}

impl Script {
    /// The script that bytes stand for; bytes that are left over mean nothing.
    pub fn of(bytes: &[u8]) -> Self {
        Self {
            steps: steps(bytes, MAX_STEPS),
        }
    }
}

impl Script {
    /// Without what a test run on the kernel cannot be told: states of memory, other stacks, tracers, and frames that it
    /// refuses.
    #[must_use]
    pub fn for_kernel(mut self) -> Self {
        self.steps.retain(|step| !matches!(step, Step::Event(Event::Trace(_))));
        for step in &mut self.steps {
            match step {
                Step::Pass(_, _, odds) | Step::Dropped(_, _, odds) => odds.host = None,
                Step::Mangled(_, _, odds, mangle) => {
                    odds.host = None;
                    if matches!(mangle, Mangle::OtherStack) {
                        *mangle = Mangle::Waits(0);
                    }
                }
                Step::Frame(_, _, _, frame, odds) => {
                    odds.host = None;
                    frame.resize(frame.len().clamp(SHORTEST, LONGEST), 0);
                }
                Step::Talk(..) | Step::Event(_) => {}
            }
        }
        self
    }
}

/// One thing that happens.
#[derive(Arbitrary, Clone, Debug)]
pub enum Step {
    /// Packets of a conversation, there and back, all of them ordinary: what it takes to get a flow into use.
    Talk(Which, u8),
    /// A packet of a conversation. The kernel lets it through.
    Pass(Which, Vec<Edit>, Odds),
    /// The same, and the kernel changes more than its way says, or holds it.
    Mangled(Which, Vec<Edit>, Odds, Mangle),
    /// A packet of a conversation, which the kernel drops.
    Dropped(Which, Vec<Edit>, Odds),
    /// Any bytes at any hook.
    Frame(Hook, Place, Place, Vec<u8>, Odds),
    /// Something that the daemon does, or the kernel.
    Event(Event),
}

/// A conversation's protocol is ICMP from this number on.
const ECHO: u8 = 0xc0;

/// One direction of a conversation.
#[derive(Arbitrary, Clone, Copy, Debug)]
pub struct Which {
    talk: u8,
    protocol: u8,
    is_back: bool,
}

impl Which {
    /// By its number in the scene.
    pub fn new(talk: u8, is_udp: bool, is_back: bool) -> Self {
        Self {
            talk,
            protocol: is_udp.into(),
            is_back,
        }
    }

    /// The same of ICMP echo.
    pub fn echo(talk: u8, is_back: bool) -> Self {
        Self {
            talk,
            protocol: ECHO,
            is_back,
        }
    }

    /// Its way.
    pub fn way(self) -> Way {
        let talks = talks();
        let (there, back) = talks[usize::from(self.talk) % talks.len()];
        let way = if self.is_back { back } else { there };
        // The corpus has one bit here for TCP and UDP.
        match self.protocol {
            ECHO.. => way.echo(!self.is_back),
            number if number & 1 == 1 => way.udp(),
            _ => way,
        }
    }

    /// The other direction.
    #[must_use]
    pub fn turned(self) -> Self {
        Self {
            is_back: !self.is_back,
            ..self
        }
    }

    /// An ordinary packet of it.
    pub fn packet(self) -> Packet {
        self.way().packet()
    }
}

/// An interface of the host.
#[derive(Arbitrary, Clone, Copy, Debug)]
pub struct Place(u8);

impl Place {
    /// An interface of the scene.
    pub fn of(dev: Dev) -> Self {
        Self(dev as u8)
    }

    /// Which.
    pub fn dev(self) -> Dev {
        Dev::ALL[usize::from(self.0) % Dev::ALL.len()]
    }
}

/// A program.
#[derive(Arbitrary, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hook {
    /// tcx ingress of an endpoint's veth.
    EndpointIn,
    /// tcx egress of an endpoint's veth.
    EndpointOut,
    /// tcx ingress of a bridge device.
    BridgeIn,
    /// tcx egress of a bridge device.
    BridgeOut,
    /// tcx ingress of an uplink.
    UplinkIn,
    /// tcx egress of an uplink.
    UplinkOut,
}

/// What is not in a packet's bytes.
#[derive(Arbitrary, Clone, Copy, Debug, Default)]
pub struct Odds {
    /// `skb->mark`, if this says so; mostly there is none.
    mark: Option<Seldom<u32>>,
    /// `skb->priority`.
    priority: u8,
    /// Payload bytes of each segment; 0: no GSO packet.
    gso: Option<Seldom<u16>>,
    /// What a test run cannot be told.
    host: Option<Seldom<HostOdds>>,
}

/// What of a packet only the faked kernel can be told.
#[derive(Arbitrary, Clone, Copy, Debug, Default)]
pub struct HostOdds {
    /// Bytes that are readable without pulling.
    pub linear: u8,
    /// The kernel has no memory.
    pub no_memory: bool,
    /// A VLAN tag was taken off.
    pub vlan: bool,
    /// The checksum is left to the device.
    pub partial: bool,
}

/// Something that one of 32 has.
#[derive(Clone, Copy, Debug, Default)]
struct Seldom<T>(Option<T>);

impl<'a, T: Arbitrary<'a>> Arbitrary<'a> for Seldom<T> {
    fn arbitrary(bytes: &mut Unstructured<'a>) -> arbitrary::Result<Self> {
        let is_it = bytes.arbitrary::<u8>()? % 16 == 1;
        Ok(Self(if is_it { Some(bytes.arbitrary()?) } else { None }))
    }
}

impl Odds {
    /// `skb->mark`.
    pub fn mark(&self) -> u32 {
        self.mark.and_then(|seldom| seldom.0).unwrap_or(0)
    }

    /// `skb->priority`.
    pub fn priority(&self) -> u32 {
        u32::from(self.priority) & 7
    }

    /// Payload bytes of each segment.
    pub fn gso(&self) -> u32 {
        self.gso.and_then(|seldom| seldom.0).unwrap_or(0).into()
    }

    /// What only the faked kernel can be told.
    pub fn host(&self) -> Option<HostOdds> {
        self.host.and_then(|seldom| seldom.0)
    }
}

/// How a packet differs from an ordinary one.
#[derive(Arbitrary, Clone, Debug)]
pub enum Edit {
    /// Its TTL.
    Ttl(u8),
    /// Its TOS.
    Tos(u8),
    /// IP identification.
    Id(u16),
    /// IP flags and fragment offset.
    Fragment(u16),
    /// TCP flags, ACK set.
    Flags(u8),
    /// TCP flags as they are.
    BareFlags(u8),
    /// Sequence number.
    Sequence(u32),
    /// So many bytes of payload.
    Payload(u16),
    /// IP options, in words.
    IpOptions(u8),
    /// TCP options, in words.
    TcpOptions(u8),
    /// Length fields as they are.
    Lengths(Option<u16>, Option<u16>, Option<u8>),
    /// Checksums as they are.
    Checksums(Option<u16>, Option<u16>),
    /// Version and header length.
    Version(u8),
    /// IP protocol.
    Protocol(u8),
    /// `EtherType`.
    EtherType(u16),
    /// From another's MAC address.
    FromMac(Place),
    /// To another's MAC address.
    ToMac(Place),
    /// To or from a group's MAC address.
    Group(bool),
    /// From another's address.
    Source(Place),
    /// From any address.
    AnySource([u8; 4]),
    /// To any address.
    AnyDestination([u8; 4]),
    /// From another port.
    Port(u16),
    /// Bytes after the packet.
    Trailer(u8),
}

/// Done to the frame at last.
#[derive(Arbitrary, Clone, Copy, Debug)]
pub enum Mangle {
    /// Its TTL is set.
    Ttl(u8),
    /// Its TOS is set.
    Tos(u8),
    /// A byte of it is changed.
    Byte(u16, u8),
    /// It leaves elsewhere.
    Leaves(Place),
    /// It goes to another MAC address.
    ToMac(Place),
    /// It waits, so many milliseconds.
    Waits(u8),
    /// It comes out on another stack.
    OtherStack,
    /// A program has sent it.
    SentByProgram,
    /// User space has had it (NFQUEUE).
    Queued,
}

/// Something that the daemon does, or the kernel.
#[derive(Arbitrary, Clone, Copy, Debug)]
pub enum Event {
    /// A new epoch.
    Epoch,
    /// A device's new generation.
    Generation(Place),
    /// A device gets other flags.
    Flags(Place, u8),
    /// A device is no longer known.
    Gone(Place),
    /// A device is known again.
    Back(Place),
    /// The daemon's switches, and both on if they are odd.
    Switches(u8),
    /// How many packets are only counted.
    LearnAfter(u8),
    /// Time passes, in milliseconds.
    Pause(u16),
    /// An element is given to another flow while it is read.
    Torn(Which),
    /// Somebody traces, or no longer.
    Trace(Option<TraceFilter>),
}

/// What a tracer wants to see.
#[derive(Arbitrary, Clone, Copy, Debug)]
pub struct TraceFilter {
    /// Of one interface.
    pub device: Option<Place>,
    /// Of this protocol; 0: all.
    pub protocol: u8,
    /// See `Filter::paths`.
    pub paths: u8,
    /// Of this reason; 0: all.
    pub reason: u8,
    /// One of so many.
    pub sample: u8,
}

/// Applies edits to a packet.
pub fn edited(mut packet: Packet, edits: &[Edit]) -> Packet {
    for edit in edits {
        match *edit {
            Edit::Ttl(ttl) => packet.ttl = ttl,
            Edit::Tos(tos) => packet.tos = tos,
            Edit::Id(id) => packet.id = id,
            Edit::Fragment(fragment) => packet.fragment = fragment,
            Edit::Flags(flags) => packet.flags = flags | flag::ACK,
            Edit::BareFlags(flags) => packet.flags = flags,
            Edit::Sequence(number) => packet.sequence = number,
            Edit::Payload(length) => packet.payload = payload(usize::from(length) % 1500),
            Edit::IpOptions(words) => packet.ip_options = vec![1; usize::from(words % 11) * 4],
            Edit::TcpOptions(words) => packet.tcp_options = vec![1; usize::from(words % 11) * 4],
            Edit::Lengths(ip, udp, offset) => {
                (packet.length, packet.udp_length) = (ip, udp);
                packet.data_offset = offset.map(|words| words & 15);
            }
            Edit::Checksums(ip, transport) => (packet.ip_checksum, packet.checksum) = (ip, transport),
            Edit::Version(version) => packet.version_length = Some(version),
            // Its payload would be its own header.
            Edit::Protocol(protocol) => packet.protocol = protocol,
            Edit::EtherType(ethertype) => packet.ethertype = ethertype,
            Edit::FromMac(place) => packet.from_mac = place.dev().mac(),
            Edit::ToMac(place) => packet.to_mac = place.dev().mac(),
            Edit::Group(true) => packet.to_mac[0] |= 1,
            Edit::Group(false) => packet.from_mac[0] |= 1,
            Edit::Source(place) => packet.source.0 = place.dev().address(),
            Edit::AnySource(address) => packet.source.0 = address.into(),
            Edit::AnyDestination(address) => packet.destination.0 = address.into(),
            Edit::Port(port) => packet.source.1 = port,
            Edit::Trailer(count) => packet.trailer = vec![0; count.into()],
        }
    }
    packet
}

fn payload(length: usize) -> Vec<u8> {
    (b'a'..=b'z').cycle().take(length).collect()
}
