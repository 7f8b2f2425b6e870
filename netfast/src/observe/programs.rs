//! What can be attached to an interface without a word from the kernel: XDP programs by a BPF link, here or on the other
//! end of a veth, and tcx programs. The other end's MTU is read with them, which nobody announces here either.

use std::collections::BTreeMap;

use super::netlink::link;
use super::socket::{Asker, NetlinkError};
use crate::bpf::{TcxHook, tcx_revision};
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

/// Looks at all interfaces of the calling thread's namespace. It blocks, for some microseconds each.
pub fn look() -> Result<BTreeMap<u32, Attached>, NetlinkError> {
    let mut asker = Asker::route()?;
    let links = link::list_quiet(&mut asker)?;
    let mut found = BTreeMap::new();
    let mut has_tcx = true;
    for (ifindex, quiet) in links {
        let mut attached = Attached {
            xdp: quiet.xdp,
            ..Attached::default()
        };
        if let Some((netns, peer)) = quiet.peer {
            attached.peer = link::peer(&mut asker, netns, peer)?;
        }
        if quiet.is_ethernet && has_tcx {
            for (hook, revision) in TcxHook::BOTH.into_iter().zip(&mut attached.tcx) {
                match tcx_revision(ifindex, hook) {
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
