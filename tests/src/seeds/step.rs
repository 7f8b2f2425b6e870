//! What happens in a scenario.

use serde::{Deserialize, Serialize};

use super::{
    family::Family,
    judge::{Foreign, Hole, Shaper, Switch},
    odd::Odd,
    rule::Rule,
    scenario::Place,
};

/// One thing that happens. Conversations are named by their number.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Step {
    /// The first packets: TCP's handshake, or a question and an answer.
    Open(usize),
    /// First packets that nobody answers.
    Knock(usize, u8),
    /// So many times a packet each way.
    Exchange(usize, u8),
    /// So many packets one way.
    OneWay(usize, By, u8),
    /// A packet of the client's, or of the server's.
    Send(usize, By, Odd),
    /// TCP: FIN; UDP: nothing.
    Finish(usize, By),
    /// TCP: a bare acknowledgement; UDP: nothing.
    Acknowledge(usize, By),
    /// TCP: RST; UDP: nothing.
    Reset(usize, By),
    /// The same ports again, with other sequence numbers.
    Reopen(usize),
    /// An ICMP error about a packet of the conversation.
    Error(usize, By, Icmp),
    /// An ICMP echo request to where the conversation goes, and its reply.
    Echo(usize, u8),
    /// A TCP connection between real sockets on the same way: so many KiB there and back, then a close.
    Transfer(usize, u16, Close),
    /// UDP between real sockets on the same way.
    Datagrams(usize, Datagrams),
    /// So many datagrams on the same way from a port of their own, which nobody answers.
    Lone(usize, u8),
    /// An answer to them, late.
    LateAnswer(usize),
    /// A program of the host's gets packets from a container, and sends the very same packets on to another.
    Relayed(Place, Place, Family),
    /// A rule comes.
    AddRule(Rule),
    /// The rule of this number goes (of those that were there from the beginning).
    RemoveRule(usize),
    /// A container's interface goes away.
    Stop(Place),
    /// A container is replaced by another with the same address.
    Replace(Place, Mac),
    /// An interface of the host gets another name.
    Rename(Device),
    /// The route to the host behind the uplinks leads by this uplink from now on.
    Route(usize, Family),
    /// A container's packets are routed by another table, by the second uplink.
    PolicyRule(Place, Family),
    /// The outside client's neighbour entry gets another MAC address, a group's if so.
    Neighbour(usize, bool, Family),
    /// An interface's MTU.
    Mtu(Device, u16),
    /// Whether bridged packets of this bridge pass iptables whatever the host's switch says.
    CallIptables(usize, bool, Family),
    /// Whether bridged packets of any bridge pass iptables.
    CallIptablesAll(bool, Family),
    /// IP forwarding.
    Forwarding(bool, Family),
    /// The host gets one more address on an uplink.
    Address(usize, Family),
    /// A queueing discipline on an interface.
    Qdisc(Device, Shaper),
    /// A port of a bridge is isolated, locked, blocked, in hairpin mode, ...
    Port(Place, PortFlag),
    /// A bridge filters by VLAN, and this port of it is in none.
    Vlans(Place),
    /// Others attach a program, a filter or a chain.
    Attach(Foreign),
    /// The host drops what it would forward.
    Hole(Hole),
    /// A switch of one interface.
    Switch(Device, Switch),
    /// An interface goes down.
    Down(Device),
    /// It comes up again.
    Up(Device),
    /// conntrack forgets the connections from a container, or all.
    Forget(Option<(Place, Family)>),
    /// A container gets a packet filter of its own, which drops what comes for its sockets by UDP.
    Inner(Place),
    /// The host's first packets of its own to a container, and its answer.
    HostTalk(Place, u8, Family),
    /// Packets of a conversation while netfast, or a part of it, is switched off.
    SwitchedOff(usize, Part),
    /// Packets of a conversation whose flow is being replaced in its table.
    Torn(usize),
    /// Nothing happens for so many milliseconds.
    Pause(u16),
}

/// Parts of netfast that have a switch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Part {
    /// Both.
    All,
    /// Flows are not used.
    Use,
    /// Flows are not learned.
    Learn,
}

/// Which of the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum By {
    /// Who began.
    Client,
    /// Who answers.
    Server,
}

/// ICMP errors.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Icmp {
    /// Port unreachable.
    Port,
    /// Fragmentation needed, with this MTU.
    TooBig(u16),
    /// TTL exceeded.
    Time,
}

/// How a connection of real sockets ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Close {
    /// The client closes its half first, and still receives.
    HalfByClient,
    /// The server closes its half first.
    HalfByServer,
    /// The client resets (`SO_LINGER` 0) after the answer.
    ResetByClient,
}

/// What real sockets say by UDP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Datagrams {
    /// Questions and answers, one after the other.
    pub rounds: u8,
    /// Bytes in each datagram.
    pub size: u16,
    /// Datagrams in each question and each answer, by one call if more than one (`UDP_SEGMENT`).
    pub segments: u8,
}

/// The MAC address of a container that replaces another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Mac {
    /// The old one's.
    Same,
    /// Another.
    Other,
}

/// An interface of the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Device {
    /// A bridge.
    Bridge(usize),
    /// A container's veth.
    Veth(Place),
    /// An uplink.
    Uplink(usize),
}

/// What a bridge's port can be besides.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum PortFlag {
    /// Talks to ports only that are not isolated.
    Isolated,
    /// May send a packet back where it came from.
    Hairpin,
    /// Lets in what comes from stations that the bridge knows to be there, and has just forgotten all of them.
    Locked,
    /// Neither sends nor receives, as a spanning tree may say.
    Blocked,
    /// Gets nothing for stations that the bridge does not know.
    NotFlooded,
    /// What it sends tells the bridge nothing about who is behind it.
    NotLearning,
    /// The bridge answers for it where it knows who is asked for.
    Suppressed,
}

impl Step {
    /// The conversation that it is about.
    pub const fn talk(&self) -> Option<usize> {
        match self {
            Self::Open(talk)
            | Self::Knock(talk, _)
            | Self::Exchange(talk, _)
            | Self::OneWay(talk, ..)
            | Self::Send(talk, ..)
            | Self::Finish(talk, _)
            | Self::Acknowledge(talk, _)
            | Self::Reset(talk, _)
            | Self::Reopen(talk)
            | Self::Error(talk, ..)
            | Self::Echo(talk, _)
            | Self::SwitchedOff(talk, _)
            | Self::Torn(talk)
            | Self::Lone(talk, _)
            | Self::LateAnswer(talk)
            | Self::Transfer(talk, ..)
            | Self::Datagrams(talk, _) => Some(*talk),
            Self::AddRule(_)
            | Self::RemoveRule(_)
            | Self::Stop(_)
            | Self::Replace(..)
            | Self::Rename(_)
            | Self::Route(..)
            | Self::PolicyRule(..)
            | Self::Neighbour(..)
            | Self::Mtu(..)
            | Self::CallIptables(..)
            | Self::CallIptablesAll(..)
            | Self::Forwarding(..)
            | Self::Address(..)
            | Self::Qdisc(..)
            | Self::Port(..)
            | Self::Vlans(_)
            | Self::Attach(_)
            | Self::Hole(_)
            | Self::Switch(..)
            | Self::Down(_)
            | Self::Up(_)
            | Self::Forget(_)
            | Self::Inner(_)
            | Self::HostTalk(..)
            | Self::Relayed(..)
            | Self::Pause(_) => None,
        }
    }

    /// Its kind, for the coverage table.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Open(_) => "open",
            Self::Knock(..) => "knock",
            Self::Exchange(..) => "exchange",
            Self::OneWay(..) => "one way",
            Self::Lone(..) => "datagrams that nobody answers",
            Self::LateAnswer(_) => "late answer",
            Self::Send(_, _, odd) => odd.kind(),
            Self::Finish(..) => "FIN",
            Self::Acknowledge(..) => "ACK",
            Self::Reset(..) => "RST",
            Self::Reopen(_) => "port reused",
            Self::Error(..) => "ICMP error",
            Self::Echo(..) => "ICMP echo",
            Self::Transfer(_, _, Close::HalfByClient) => "transfer, client closes first",
            Self::Transfer(_, _, Close::HalfByServer) => "transfer, server closes first",
            Self::Transfer(_, _, Close::ResetByClient) => "transfer, reset",
            Self::Datagrams(_, Datagrams { segments: 2.., .. }) => "datagrams, GSO",
            Self::Datagrams(_, Datagrams { size: 1473.., .. }) => "datagrams, fragmented",
            Self::Datagrams(..) => "datagrams",
            Self::Relayed(..) => "sent on by a program",
            Self::AddRule(_) => "rule added",
            Self::RemoveRule(_) => "rule removed",
            Self::Stop(_) => "container stopped",
            Self::Replace(_, Mac::Same) => "container replaced, same MAC",
            Self::Replace(_, Mac::Other) => "container replaced, other MAC",
            Self::Rename(Device::Bridge(_)) => "bridge renamed",
            Self::Rename(Device::Veth(_)) => "veth renamed",
            Self::Rename(Device::Uplink(_)) => "uplink renamed",
            Self::Route(_, Family::V4) => "route changed",
            Self::Route(_, Family::V6) => "route changed, IPv6",
            Self::PolicyRule(_, Family::V4) => "policy rule added",
            Self::PolicyRule(_, Family::V6) => "policy rule added, IPv6",
            Self::Neighbour(_, false, Family::V4) => "neighbour changed",
            Self::Neighbour(_, true, Family::V4) => "neighbour changed to a group",
            Self::Neighbour(_, _, Family::V6) => "neighbour changed, IPv6",
            Self::Mtu(..) => "MTU changed",
            Self::CallIptables(.., Family::V4) => "a bridge's br_netfilter switched",
            Self::CallIptables(.., Family::V6) => "a bridge's br_netfilter switched, IPv6",
            Self::CallIptablesAll(_, Family::V4) => "the host's br_netfilter switched",
            Self::CallIptablesAll(_, Family::V6) => "the host's br_netfilter switched, IPv6",
            Self::Forwarding(_, Family::V4) => "forwarding switched",
            Self::Forwarding(_, Family::V6) => "forwarding switched, IPv6",
            Self::Address(_, Family::V4) => "address added",
            Self::Address(_, Family::V6) => "address added, IPv6",
            Self::Qdisc(_, Shaper::Fifo) => "qdisc added",
            Self::Qdisc(_, Shaper::Bucket) => "token bucket added",
            Self::Port(_, PortFlag::Isolated) => "port isolated",
            Self::Port(_, PortFlag::Hairpin) => "port in hairpin mode",
            Self::Port(_, PortFlag::Locked) => "port locked",
            Self::Port(_, PortFlag::Blocked) => "port blocked",
            Self::Port(_, PortFlag::NotFlooded) => "port not flooded",
            Self::Port(_, PortFlag::NotLearning) => "port that does not learn",
            Self::Port(_, PortFlag::Suppressed) => "port that the bridge answers for",
            Self::Vlans(_) => "filtered by VLAN",
            Self::Attach(foreign) => foreign.kind(),
            Self::Hole(hole) => hole.kind(),
            Self::Switch(_, switch) => switch.kind(),
            Self::Down(_) => "interface down",
            Self::Up(_) => "interface up",
            Self::Forget(_) => "conntrack forgets",
            Self::Inner(_) => "packet filter inside a container",
            Self::HostTalk(..) => "host to container",
            Self::SwitchedOff(..) => "netfast switched off",
            Self::Torn(_) => "flow replaced while read",
            Self::Pause(_) => "pause",
        }
    }
}
