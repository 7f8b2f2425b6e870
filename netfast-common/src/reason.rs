//! Why a packet took the slow path, and what became of each candidate: numbered, counted per CPU, explained.
//!
//! A number is part of the ABI and of what users see in metrics: it is never used again for something else.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Packets and bytes (network layer and up) of one reason. Per CPU.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Count {
    /// Packets; GSO packets count as one.
    pub packets: u64,
    /// Bytes, network layer and up.
    pub bytes: u64,
}

#[cfg(feature = "aya")]
// SAFETY: `IntoBytes` and `FromBytes` are derived, so there is no padding and every bit pattern is valid.
unsafe impl aya::Pod for Count {}

/// Entries of the reasons map. Entry 0 counts the fast path.
pub const SLOTS: u32 = 64;

/// Index of the fast path's count.
pub const FAST: u32 = 0;

crate::verdicts! {
    /// A numbered, counted cause.
    Reason
    // Why a packet took the slow path, counted at the hook where it entered.
    1 Disabled "disabled" "netfast is switched off (starting, stopping, or by hand)";
    2 NotIp "not-ip" "not an IP packet (ARP, LLC, …)";
    3 Malformed "malformed" "headers are cut short or contradict each other";
    4 BadIpChecksum "bad-ip-checksum" "the IP header's checksum is wrong";
    5 IpOptions "ip-options" "IP options or extension headers";
    6 Fragment "fragment" "a fragment, first ones included";
    7 TtlExpiring "ttl-expiring" "TTL or hop limit of 1 or 0";
    8 NotUnicast "not-unicast" "multicast or broadcast, by MAC or IP address";
    9 Vlan "vlan" "a VLAN tag";
    10 OtherProtocol "other-protocol" "neither TCP nor UDP nor ICMP echo";
    11 TcpSyn "tcp-syn" "a TCP SYN: the kernel decides on every new connection; ends the flow in both directions";
    12 TcpFin "tcp-fin" "a TCP FIN: conntrack must see the close; ends the flow in both directions";
    13 TcpRst "tcp-rst" "a TCP RST: conntrack must see the close; ends the flow in both directions";
    14 TcpFlags "tcp-flags" "TCP flags that no established connection sends";
    15 Marked "marked" "other software set skb->mark before netfast";
    16 UnknownDevice "unknown-device" "the interface is not, or not yet, an accelerated endpoint, bridge or uplink";
    17 Spoofed "spoofed" "the source MAC or IP address is not the endpoint's";
    18 NoFlow "no-flow" "first packets of a flow: the kernel has not decided yet";
    19 Unreplied "unreplied" "the other direction has not been seen yet";
    20 StaleEpoch "stale-epoch" "rules, routes, addresses, neighbours or sysctls changed since the flow was learned";
    21 StaleGeneration "stale-generation" "an endpoint of the flow changed since it was learned";
    22 Revalidate "revalidate" "the flow is due to ask the kernel again";
    23 TooBig "too-big" "longer than what the kernel has let through for this flow";
    24 DscpChanged "dscp-changed" "another DSCP than the flow was learned with";
    25 MacChanged "mac-changed" "other MAC addresses than the flow was learned with";
    26 Replaced "replaced" "the table entry was reused for another flow while it was read";
    27 RewriteFailed "rewrite-failed" "the kernel refused to make the packet writable";
    28 LearnOff "learn-off" "learning is switched off";
    29 Young "young" "one of the first packets of its direction: most connections are too short to be worth learning";
    30 Unvetted "unvetted" "the daemon has not checked the flow's conntrack entry yet";
    31 CtHelper "ct-helper" "a conntrack helper, its expectations or an adjustment of sequence numbers works on the connection";
    32 BadChecksum "bad-checksum" "the checksum of TCP, UDP or ICMP is wrong";
    33 PortTooSmall "port-too-small" "longer than what the port of the receiver takes";
    34 PortDue "port-due" "one packet a second from one container to another where nobody judges: the bridge must go on hearing of both";
    35 LinkLocal "link-local" "an IPv6 address of one link";
    36 NeighbourDiscovery "neighbour-discovery" "IPv6 neighbour or router discovery";
    37 Ipv6Off "ipv6-off" "IPv6 of this interface is left to the kernel";
    38 EchoOff "echo-off" "ICMP echo of this interface is left to the kernel";
    // What became of a candidate, counted at the hook where it would leave.
    40 Learned "learned" "a flow was learned and waits for its reverse";
    41 Paired "paired" "a flow was learned, its reverse is known: both may be used";
    42 Refreshed "refreshed" "a known flow was learned again";
    43 NoCandidate "no-candidate" "nothing to learn: the packet took the fast path or did not enter by an accelerated interface";
    44 OtherPacket "other-packet" "not the packet that the candidate remembers";
    45 OtherRun "other-run" "the packet was held, or sent by a program: it did not pass in one run";
    46 Mangled "mangled" "the kernel changed more than addresses, ports and TTL: a helper or mangle rule works on the flow";
    47 TtlChanged "ttl-changed" "the TTL changed by something other than 0 or -1";
    48 EgressNotUnicast "egress-not-unicast" "left for a multicast or broadcast MAC";
    49 Flooded "flooded" "the MAC is not the endpoint's: a flooded copy";
    50 EgressUnknown "egress-unknown" "left by an interface that is not accelerated";
    51 EgressGated "egress-gated" "left as something that is never learned (fragmented, tagged, with options)";
    52 SameDevice "same-device" "left by the interface it came in by";
    53 NoEndpoint "no-endpoint" "forwarded between uplinks: no container is involved";
    54 TableFull "table-full" "the flow table refused the flow";
    55 Passing "passing" "seen between its ends, on its way through the kernel";
    56 NotWorthIt "not-worth-it" "a TCP packet without payload, and nothing of the other direction: the connection may never send any";
    57 Vetting "vetting" "a known flow was learned again, and waits until the daemon has checked its conntrack entry";
    58 Helped "helped" "a conntrack helper works on the connection: nothing is learned of it";
    // Of tunnels, counted at the tunnel's device and at the uplink.
    59 Encapsulated "encapsulated" "sent through a tunnel with the outer header that the kernel wrote for others of its conversation";
    60 OuterLearned "outer-learned" "the outer header that the kernel wrote was learned";
    61 OuterOdd "outer-odd" "left through a tunnel in a way that is not repeated: with options, in fragments, encrypted, or changed inside";
    62 Decapsulated "decapsulated" "came in through a tunnel with the outer header that the kernel took off others of its conversation";
    // Of Open vSwitch, counted where its datapath executes an action.
    63 OvsActions "ovs-actions" "Open vSwitch does more with the packet than to send it to one port (mirror, controller, meter, sample, conntrack, …): nothing is learned of it";
}

impl Reason {
    /// First number of the second group: what became of a candidate.
    const FIRST_LEARN: u8 = 40;

    /// Whether it counts packets of the fast path once more: those with a known outer header.
    pub const fn is_of_header(self) -> bool {
        matches!(self, Self::Encapsulated | Self::Decapsulated)
    }

    /// Whether it is why a packet took the slow path (and not what became of a candidate).
    pub const fn is_slow(self) -> bool {
        (self as u8) < Self::FIRST_LEARN
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_fit_the_map_and_rise() {
        crate::verdicts::assert_fit_and_rise!(Reason, FAST, SLOTS);
    }
}
