//! Packets that are never learned and never take the fast path, whatever flow they belong to.

use netfast_common::{net::Address, reason::Reason};

use crate::packet::{ACK, FIN, Family, Packet, RST, SYN, TCP};

/// Refuses what must take the slow path for its own sake.
#[inline(always)]
pub fn admit<F: Family>(packet: &Packet<F::Address>) -> Result<(), Reason> {
    if !packet.macs.is_unicast() || !F::is_unicast(packet.network.source) || !F::is_unicast(packet.network.destination)
    {
        return Err(Reason::NotUnicast);
    }
    if F::is_link_local(packet.network.source) || F::is_link_local(packet.network.destination) {
        return Err(Reason::LinkLocal);
    }
    // A router must answer; the last hop is the host's stack, which the packet may be for.
    if packet.network.ttl <= 1 {
        return Err(Reason::TtlExpiring);
    }
    if packet.network.protocol == TCP {
        return admit_tcp(packet);
    }
    Ok(())
}

/// conntrack must see every packet that changes a connection's state.
#[inline(always)]
fn admit_tcp<A: Address>(packet: &Packet<A>) -> Result<(), Reason> {
    let flags = packet.tcp_flags();
    if flags & (SYN | FIN | RST | ACK) == ACK {
        return Ok(());
    }
    Err(if flags & SYN != 0 {
        Reason::TcpSyn
    } else if flags & RST != 0 {
        Reason::TcpRst
    } else if flags & FIN != 0 {
        Reason::TcpFin
    } else {
        Reason::TcpFlags
    })
}

/// Whether something has changed since the flow was learned.
#[inline(always)]
pub fn is_stale(reason: Reason) -> bool {
    matches!(reason, Reason::StaleEpoch | Reason::StaleGeneration)
}

/// Whether a packet that was refused for this reason also ends its flow.
///
/// One to other MAC addresses leaves by another interface than the flow, upon which conntrack forgets a masqueraded
/// connection (`nf_nat_oif_changed`, `net/netfilter/nf_nat_core.c`): the kernel must judge the next packet anew.
#[inline(always)]
pub fn ends_flow(reason: Reason) -> bool {
    matches!(
        reason,
        Reason::TcpSyn | Reason::TcpFin | Reason::TcpRst | Reason::MacChanged | Reason::NotUnicast
    )
}
