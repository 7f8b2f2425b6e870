//! What can be attached to an interface without a word from the kernel: XDP programs by a BPF link, here or on the other
//! end of a veth, and tcx programs. The other end's MTU is read with them, which nobody announces here either. And to
//! netfilter's hooks: BPF programs that are no rules.

use std::collections::{BTreeMap, BTreeSet};

use super::netlink::link;
use super::socket::{Asker, NetlinkError};
use crate::bpf::{self, TcxHook};
use crate::world::{Peer, Xdp};

/// What is attached to one interface.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Attached {
    /// XDP programs.
    pub xdp: Xdp,
    /// The other end of a veth.
    pub peer: Option<Peer>,
    /// How often the programs on each tcx hook have changed; `None` where the kernel does not tell.
    pub tcx: [Option<u64>; 2],
}

/// The BPF links of the machine by their numbers, which are never given twice; whether each is to a netfilter hook.
pub type Links = BTreeMap<u32, bool>;

/// Lists the links; only those that are not known yet are looked at. Without privileges there are none.
pub fn links(known: &Links) -> Links {
    let mut links = Links::new();
    let mut last = 0;
    while let Ok(Some(id)) = bpf::next_link(last) {
        let is_netfilter = known.get(&id).copied();
        // One that is gone meanwhile is none.
        links.insert(
            id,
            is_netfilter.unwrap_or_else(|| bpf::is_netfilter_link(id).unwrap_or(false)),
        );
        last = id;
    }
    links
}

/// The links to netfilter hooks. The kernel does not say in which namespace they are.
pub fn on_netfilter(links: &Links) -> BTreeSet<u32> {
    links.iter().filter(|(_, is)| **is).map(|(id, _)| *id).collect()
}

/// Looks at all interfaces of the calling thread's namespace. It blocks, for some microseconds each.
pub fn look() -> Result<BTreeMap<u32, Attached>, NetlinkError> {
    let mut asker = Asker::route()?;
    let links = link::list_quiet(&mut asker)?;
    let ends: Vec<link::End> = links
        .iter()
        .filter_map(|(ifindex, quiet)| quiet.peer.map(|(netns, peer)| (*ifindex, netns, peer)))
        .collect();
    let peers = link::peers(&mut asker, &ends)?;
    let mut found = BTreeMap::new();
    let mut has_tcx = true;
    for (ifindex, quiet) in links {
        let mut attached = Attached {
            xdp: quiet.xdp,
            peer: peers.get(&ifindex).copied(),
            ..Attached::default()
        };
        if quiet.is_ethernet && has_tcx {
            for (hook, revision) in TcxHook::BOTH.into_iter().zip(&mut attached.tcx) {
                match bpf::tcx_revision(ifindex, hook) {
                    Ok(found) => *revision = Some(found),
                    // One that has gone meanwhile; of all others, what is asked is what the kernel does not have.
                    Err(error) => has_tcx &= error.raw_os_error() == Some(libc::ENODEV),
                }
            }
        }
        found.insert(ifindex, attached);
    }
    Ok(found)
}
