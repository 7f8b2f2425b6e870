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

/// What is known of the BPF links of the machine. The kernel numbers them upwards (`idr_alloc_cyclic`), so those that are
/// new come after all that were seen: a machine has thousands, and each step from one to the next is microseconds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Links {
    last: u32,
    /// Those to netfilter hooks. The kernel does not say in which namespace they are.
    pub on_netfilter: BTreeSet<u32>,
}

impl Links {
    /// Looks at those that are new, and which are gone of those to netfilter hooks. Without privileges there are none.
    #[must_use]
    pub fn renewed(&self) -> Self {
        let is_there = |id: &u32| bpf::next_link(id - 1).is_ok_and(|next| next == Some(*id));
        let mut links = Self {
            last: self.last,
            on_netfilter: self.on_netfilter.iter().copied().filter(is_there).collect(),
        };
        while let Ok(Some(id)) = bpf::next_link(links.last) {
            // One that is gone meanwhile is none.
            if bpf::is_netfilter_link(id).unwrap_or(false) {
                links.on_netfilter.insert(id);
            }
            links.last = id;
        }
        links
    }
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
