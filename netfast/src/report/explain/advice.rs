//! Every reason in words: what it means for who asks, and what can be done.
//!
//! Both functions match every variant, so that a new reason without words does not compile.

use netfast_common::reason::Reason;
use serde::Serialize;

use crate::plan::report::Why;

/// Whether there is something to do about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// Part of how the fast path works: a few such packets belong to every connection.
    Expected,
    /// Traffic of this sort is never accelerated.
    ByNature,
    /// Something on the host or in the container; it may be changed.
    Changeable,
    /// It should not last; if it does, something is wrong.
    Suspicious,
}

/// What to say of a reason besides its one line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Advice {
    /// Whether there is something to do about it.
    pub kind: Kind,
    /// What it means, and what to do.
    pub text: &'static str,
}

/// What a reason means to who runs the host.
#[expect(clippy::too_many_lines, reason = "one arm for each reason")]
pub const fn of_reason(reason: Reason) -> Advice {
    use Kind::{ByNature, Changeable, Expected, Suspicious};
    let (kind, text) = match reason {
        Reason::Disabled => (
            Suspicious,
            "No flow is used. That is so for a moment at start and after `netfast detach` has begun; if it lasts, \
             `netfast status` and the log say why.",
        ),
        Reason::NotIp => (
            ByNature,
            "ARP and everything else that is not IP takes the kernel's path.",
        ),
        Reason::Malformed => (
            Suspicious,
            "The kernel judges and mostly drops such packets. If there are many, `netfast trace reason malformed` \
             shows who sends them.",
        ),
        Reason::BadIpChecksum => (
            Suspicious,
            "The kernel will drop them. If there are many, look at the sender and at the network card.",
        ),
        Reason::BadChecksum => (
            Suspicious,
            "Conntrack calls them invalid and the receiver drops them. If there are many, `netfast trace reason \
             bad-checksum` shows who sends them; look at that program, network card or cable.",
        ),
        Reason::Unvetted => (
            Expected,
            "Some packets of each connection, for a millisecond or so: conntrack is told that it will not see all of its \
             segments. If it lasts, no daemon runs (`netfast status`): connections that were fast stay so, new ones wait.",
        ),
        Reason::CtHelper => (
            ByNature,
            "A conntrack helper (FTP, SIP, …) reads such a connection's payload, and translates what it finds there, until it \
             ends, also when the rule that gave it the helper is gone.",
        ),
        Reason::Vetting => (
            Expected,
            "The daemon is asked before a flow is used. It answers within a millisecond or so.",
        ),
        Reason::Helped => (
            ByNature,
            "Such connections (FTP, SIP, …) stay on the kernel's path until they end.",
        ),
        Reason::OvsActions => (
            ByNature,
            "`ovs-appctl dpctl/dump-flows` shows the actions; without the mirror, meter or sampler its packets become fast.",
        ),
        Reason::Encapsulated => (
            Expected,
            "Packets to containers of other hosts on the fast path, counted a second time where the tunnel begins.",
        ),
        Reason::Decapsulated => (
            Expected,
            "Packets from containers of other hosts on the fast path, counted a second time where they come in.",
        ),
        Reason::OuterLearned => (
            Expected,
            "About one packet per second of each direction that leaves through a tunnel, and its first ones.",
        ),
        Reason::OuterOdd => (
            Changeable,
            "The kernel writes the outer headers of such packets itself. `netfast check` names the tunnels and what is in \
             the way; packets that IPsec encrypts stay with the kernel.",
        ),
        Reason::IpOptions => (
            ByNature,
            "IP options must be processed by every router, so the kernel routes every packet that has them.",
        ),
        Reason::Fragment => (
            Changeable,
            "Only the first fragment has ports, so fragments cannot be told apart by flow. They come from datagrams that \
             are longer than the MTU: lower their size, or raise the MTU of the network.",
        ),
        Reason::LinkLocal => (
            ByNature,
            "Such packets stay on their link: the kernel's own conversations with its neighbours, for the most part.",
        ),
        Reason::NeighbourDiscovery => (
            ByNature,
            "IPv6 finds out who is on a link as ARP does for IPv4; the kernel must see it.",
        ),
        Reason::Ipv6Off => (
            Changeable,
            "IPv6 of this network takes the kernel's path; `netfast networks` says why.",
        ),
        Reason::TtlExpiring => (
            ByNature,
            "The kernel must answer them (traceroute depends on this), or there is a routing loop.",
        ),
        Reason::NotUnicast => (
            ByNature,
            "A multicast or broadcast packet has many receivers; the kernel's bridge copies it.",
        ),
        Reason::Vlan => (
            ByNature,
            "Tagged packets are left to the kernel's VLAN code. Containers on a VLAN interface of the host are fast: \
             their packets have no tag there.",
        ),
        Reason::OtherProtocol => (
            ByNature,
            "SCTP and others are never accelerated, nor is ICMP but for echo (ping): errors are about a packet, not part of a \
             conversation.",
        ),
        Reason::EchoOff => (
            Changeable,
            "A rule judges ICMP packet by packet: `netfast check` names it. Nothing else of the network is slow for it.",
        ),
        Reason::TcpSyn => (
            Expected,
            "Each new connection is judged by the kernel. If most packets are SYNs, the connections are too short to be \
             accelerated; reuse them (keep-alive, pooling).",
        ),
        Reason::TcpFin => (
            Expected,
            "conntrack must see the end of each connection. Many of them mean many short connections.",
        ),
        Reason::TcpRst => (
            Expected,
            "conntrack must see it. Many of them mean that connections are refused or broken off.",
        ),
        Reason::TcpFlags => (
            Suspicious,
            "No TCP sends such flags in a connection: somebody scans ports, or a middlebox is broken.",
        ),
        Reason::Marked => (
            Changeable,
            "Another program marks packets before netfast sees them, so that routing or shaping treats them differently. \
             netfast leaves such packets to the kernel.",
        ),
        Reason::UnknownDevice => (
            Changeable,
            "The interface is not accelerated, or not yet: `netfast status` says why. For an interface that leads off \
             the host, name it in `uplinks`.",
        ),
        Reason::Spoofed => (
            Changeable,
            "The container sends with an address that is not its own: a router, VPN or proxy in a container. If that is \
             meant, label the container netfast.any-source=true.",
        ),
        Reason::NoFlow => (
            Expected,
            "The first packets of each conversation, until the kernel has let it through. A conversation that stays here \
             is never let through, or its packets do not leave by an accelerated interface: the candidates' outcomes \
             below tell which.",
        ),
        Reason::Unreplied => (
            Expected,
            "Only one direction was seen so far. UDP without answers (logs, metrics) stays slow where a rule judges what is \
             new packet by packet: `netfast check` names it.",
        ),
        Reason::StaleEpoch => (
            Expected,
            "After each change of rules or routes every flow asks once. If it is frequent, find the program that changes \
             them: `nft monitor`, `ip monitor`.",
        ),
        Reason::StaleGeneration => (
            Expected,
            "A container of this flow was connected, moved or given another address; its flows ask once.",
        ),
        Reason::Revalidate => (
            Expected,
            "About one packet per second and direction of a busy flow takes the kernel's path again (`revalidate_ms`). That keeps \
             verdicts current and conntrack entries alive.",
        ),
        Reason::TooBig => (
            Expected,
            "The kernel must split it, or answer with what fits; a flow may use the larger length once the kernel has \
             let it through. If it lasts, an MTU on the way is smaller than the sender's.",
        ),
        Reason::DscpChanged => (
            Expected,
            "Routes and rules may depend on DSCP, so another one asks the kernel again. An application that alternates \
             DSCP within one connection stays slow.",
        ),
        Reason::MacChanged => (
            Suspicious,
            "The next hop or the sender has another MAC address than a moment ago: a failover, or two hosts with one \
             address.",
        ),
        Reason::Replaced => (
            Expected,
            "The table entry was reused for another flow while this packet was being processed. If it is frequent, the table is too small: raise `flows`.",
        ),
        Reason::RewriteFailed => (
            Suspicious,
            "The kernel had no memory to make the packet writable. It was passed on as it came.",
        ),
        Reason::PortTooSmall => (
            Expected,
            "The bridge drops what is longer than the MTU of the port that it is for. If there are many, the sender's MTU is \
             larger than the receiver's.",
        ),
        Reason::PortDue => (
            Expected,
            "On a bridge where nobody judges packets all others are forwarded directly (`netfast explain`).",
        ),
        Reason::LearnOff => (
            Changeable,
            "A program listens on NFQUEUE and this kernel does not let netfast see which packets it gets (see `netfast \
             check`): no new flow is learned meanwhile.",
        ),
        Reason::Young => (
            Expected,
            "Learning a flow has a cost, and most connections end before it pays off: so the first TCP packets \
             of each direction are only counted (`learn_after`).",
        ),
        Reason::Learned => (
            Expected,
            "The kernel let a first packet through. Its flow is used once the answer has come.",
        ),
        Reason::Paired => (Expected, "Both directions are known: the following packets are fast."),
        Reason::Refreshed => (
            Expected,
            "The flow was revalidated: the kernel's decision is unchanged.",
        ),
        Reason::NoCandidate => (
            Expected,
            "Most packets: fast ones, and those of interfaces that are not accelerated, leave nothing to learn.",
        ),
        Reason::OtherPacket => (
            Expected,
            "The packet that came in was kept or dropped by the kernel, and another one left in its place. Many of them \
             mean that many packets are dropped by rules, or are for the host itself.",
        ),
        Reason::OtherRun => (
            Changeable,
            "Something held the packet back (NFQUEUE, a shaper, defragmentation) or a program sent it (a proxy, a VPN). \
             Such flows are never learned.",
        ),
        Reason::Mangled => (
            Changeable,
            "A rule or helper modifies the packets of this flow (TOS, MSS, payload), so it must process every packet.",
        ),
        Reason::TtlChanged => (Changeable, "A rule sets the TTL; such flows stay on the slow path."),
        Reason::EgressNotUnicast => (ByNature, "It left for many receivers; a bridge flooded or copied it."),
        Reason::Flooded => (
            Expected,
            "The bridge did not know yet which port leads to the receiver and sent a copy to all ports. It stops with the \
             receiver's first packet.",
        ),
        Reason::EgressUnknown => (
            Changeable,
            "The packet left by an interface that netfast is not attached to: a VPN, a tunnel, a second uplink. Name it \
             in `uplinks` if it is an Ethernet interface; `netfast check` lists what is in the way.",
        ),
        Reason::EgressGated => (
            Changeable,
            "It was fragmented, tagged or given options on its way, mostly because the way out has a smaller MTU.",
        ),
        Reason::SameDevice => (
            ByNature,
            "It left by the interface that it came in by (hairpin): a container that reaches itself by a published port. Where \
             it comes in it counts as no-flow, since there never is one.",
        ),
        Reason::NoEndpoint => (
            Changeable,
            "The packet was forwarded between two uplinks, with no container at either end: such packets are fast with `transit = true` \
             in netfast.toml, if `netfast check` names nothing that keeps them slow.",
        ),
        Reason::TableFull => (
            Changeable,
            "The flow table has no place: raise `flows` in netfast.toml.",
        ),
        Reason::Passing => (
            Expected,
            "The packet was seen half-way, where a bridge hands it to the host; it is judged where it leaves. If there are as \
             many as of no-flow: with bridge-nf-call-iptables on, what a container answers to the host by a published port is \
             translated within the bridge, and never learned.",
        ),
        Reason::NotWorthIt => (
            Expected,
            "A bare acknowledgement opens no flow: a connection that never sends data would only fill the table.",
        ),
    };
    Advice { kind, text }
}

/// What can be done about an endpoint or network that stays slow; nothing where it is so by nature.
pub const fn of_why(why: Why) -> Option<&'static str> {
    match why {
        Why::HostNetwork
        | Why::NoNetwork
        | Why::Macvlan
        | Why::Ipvlan
        | Why::OtherDriver
        | Why::OvsHost
        | Why::OvsFlows => None,
        Why::Overlay => {
            Some("The daemon's log says why; it needs tcx (Linux 6.6), and the engine's socket on this machine.")
        }
        Why::SharedNamespace => Some("Run `netfast explain` with the container whose namespace it shares."),
        Why::DisabledByLabel => Some("Recreate it without the label netfast.enable=false."),
        Why::DisabledByConfig => Some(
            "Remove it from `disabled_networks` in netfast.toml and run `systemctl reload netfast` (or send SIGHUP).",
        ),
        Why::NoBridge => Some("Recreate the network; its bridge device was removed without Docker."),
        Why::BridgeDown => Some("`ip link set BRIDGE up`."),
        Why::BridgeShaped => Some("`tc qdisc show dev BRIDGE` shows it; the fast path would not pass it."),
        Why::ForeignPrograms => Some("`netfast check` names the program; packets on the fast path would not pass it."),
        Why::RateRules => Some(
            "Narrow the rule to what it is for, or, if it may judge one packet per second of a flow, set \
             allow_rate_rules.",
        ),
        Why::Accounting => Some(
            "`sysctl -w net.netfilter.nf_conntrack_acct=0`, or, if nobody bills by conntrack's counters, set \
             `allow_accounting`; netfast's metrics count every packet.",
        ),
        Why::NoNamespace => Some("The daemon needs CAP_SYS_ADMIN and CAP_SYS_PTRACE for that: `netfast check`."),
        Why::NoVeth => Some("It may just be starting; else it is not connected by a veth: `docker network inspect`."),
        Why::VethDown => Some("`ip link set VETH up` on the host; find out what set it down."),
        Why::NoMac => Some("It is known once the container has sent a packet."),
        Why::SeveralMacs => Some("A bridge or virtual machine behind the veth: only one sender can be accelerated."),
        Why::NotLearned => Some(
            "`bridge fdb add MAC dev VETH master static` tells the bridge; or let the port learn: `bridge -d link show`.",
        ),
        Why::TooManyDevices => Some("netfast supports at most 16384 devices at the same time."),
        Why::DirectOff => Some("Take `direct = false` out of netfast.toml and send SIGHUP."),
        Why::BridgeNetfilter => Some(
            "`sysctl -w net.bridge.bridge-nf-call-iptables=0` (and ip6tables), if no rule is meant for packets \
             within a bridge; engines since 27.3 leave it so unless icc=false or userland-proxy=false.",
        ),
        Why::BridgeRules => {
            Some("`nft list ruleset` and `ebtables -L` show them; within this bridge they judge every frame.")
        }
        Why::BridgeVlans => Some("`ip link set BRIDGE type bridge vlan_filtering 0`, if no VLANs are meant."),
        Why::BridgeForgets => Some("`ip link set BRIDGE type bridge ageing_time 30000` is the kernel's default."),
        Why::BridgeAnswers => Some("`bridge -d link show` names the port with neigh_suppress."),
        Why::PortNotForwarding | Why::PortRestricted => Some("`bridge -d link show dev VETH` shows the port."),
        Why::PortShaped => {
            Some("`tc qdisc show dev VETH` shows it; packets that are forwarded directly would not pass it.")
        }
        Why::PeerUnknown => Some("It may be going away; else its namespace is hidden from this process."),
        Why::VirtualAddresses => Some("Aliases in mode rr need no translation."),
        Why::OvsUnwatched => {
            Some("The kernel needs the tracepoint ovs_do_execute_action (Linux 5.14) for that: `netfast check`.")
        }
        Why::NotHeard => Some("It is heard of with the container's next packet."),
        Why::NotAttached => Some("It is tried again; if it lasts, the daemon's log has the kernel's answer."),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_has_words_of_its_own() {
        let mut seen = std::collections::BTreeSet::new();
        for reason in Reason::ALL {
            let advice = of_reason(*reason);
            assert!(
                advice.text.ends_with('.') && seen.insert(advice.text),
                "{reason:?}: {advice:?}"
            );
            assert_ne!(advice.text, reason.text(), "{reason:?}");
        }
    }

    #[test]
    fn remedies_name_what_exists() {
        for why in Why::ALL {
            assert!(of_why(*why).is_none_or(|text| text.ends_with('.')), "{why:?}");
        }
        let config = include_str!("../../../dist/netfast.toml");
        let all = Why::ALL
            .iter()
            .filter_map(|why| of_why(*why))
            .chain(Reason::ALL.iter().map(|r| of_reason(*r).text));
        let keys = [
            "disabled_networks",
            "allow_rate_rules",
            "allow_accounting",
            "uplinks",
            "flows",
            "revalidate_ms",
            "learn_after",
            "direct",
        ];
        for text in all {
            for key in keys.iter().filter(|key| text.contains(&format!("`{key}`"))) {
                assert!(config.contains(&format!("#{key} = ")), "{text}");
            }
        }
    }
}
