//! What the kernel counts inside containers: the counters of the far ends of veths (`IFLA_STATS64`, `linux/if_link.h`).
//!
//! Packets on the fast path do not touch the bridge, and most of them not the host's end of the receiver's veth; each of
//! them is counted by the interface in the container.

use std::collections::BTreeMap;

use libc::{IFLA_STATS64, IFLA_TARGET_NETNSID, RTM_GETLINK};

use super::link;
use crate::host::{Link, LinkKind};
use crate::sys::netlink::{Attrs, Malformed, NLM_F_REQUEST, NetlinkError, NetlinkSocket, Request};

/// `struct ifinfomsg`.
const IFINFOMSG: usize = 16;

/// Packets and bytes (with the Ethernet header) of an interface, as its own namespace sees them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Packets that it has sent; GSO packets count as one.
    pub sent_packets: u64,
    /// Bytes of them.
    pub sent_bytes: u64,
    /// Packets that it has received.
    pub received_packets: u64,
    /// Bytes of them.
    pub received_bytes: u64,
}

/// The counters of the other ends of these veths, by the index of the end in the calling thread's namespace. What is
/// no veth, or whose other end cannot be asked, is left out.
pub fn of_other_ends(veths: impl IntoIterator<Item = u32>) -> Result<BTreeMap<u32, Counters>, NetlinkError> {
    let mut socket = NetlinkSocket::route()?;
    let links = link::list(&mut socket)?;
    let mut counters = BTreeMap::new();
    for ifindex in veths {
        let found = links.get(&ifindex).and_then(|link| ask(&mut socket, link));
        counters.extend(found.map(|found| (ifindex, found)));
    }
    Ok(counters)
}

fn ask(socket: &mut NetlinkSocket, link: &Link) -> Option<Counters> {
    let LinkKind::Veth {
        peer_ifindex: Some(peer),
        peer_netns,
    } = link.kind
    else {
        return None;
    };
    let mut header = [0; IFINFOMSG];
    header[4..8].copy_from_slice(&peer.to_ne_bytes());
    let mut request = Request::new(RTM_GETLINK, NLM_F_REQUEST, &header);
    if let Some(namespace) = peer_netns {
        request = request.attr(IFLA_TARGET_NETNSID, &namespace.to_ne_bytes());
    }
    socket
        .ask("the counters of a container's interface", &request, |message| {
            // A veth of another namespace may have had this number since.
            let is_it = link::Header::read(message)?.ifindex == peer;
            let attrs = Attrs::after(message.payload, IFINFOMSG)?;
            let counters = parse(attrs.need(IFLA_STATS64, "the counters")?.payload);
            counters
                .filter(|_| is_it)
                .ok_or(Malformed::wrong("the counters are cut"))
        })
        .ok()
}

/// Reads the beginning of `struct rtnl_link_stats64`.
fn parse(stats: &[u8]) -> Option<Counters> {
    let mut numbers = stats.as_chunks::<8>().0.iter().map(|bytes| u64::from_ne_bytes(*bytes));
    let [received_packets, sent_packets, received_bytes, sent_bytes] =
        [numbers.next()?, numbers.next()?, numbers.next()?, numbers.next()?];
    Some(Counters {
        sent_packets,
        sent_bytes,
        received_packets,
        received_bytes,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_order_is_the_kernel_s() {
        let bytes: Vec<u8> = [1_u64, 2, 3, 4, 5]
            .iter()
            .flat_map(|number| number.to_ne_bytes())
            .collect();
        let counters = parse(&bytes).expect("whole");
        let Counters {
            sent_packets,
            sent_bytes,
            received_packets,
            received_bytes,
        } = counters;
        assert_eq!(
            (received_packets, sent_packets, received_bytes, sent_bytes),
            (1, 2, 3, 4)
        );
        assert_eq!(parse(&bytes[..31]), None);
    }
}
