//! What can be attached to an interface without a word from the kernel: XDP programs by a BPF link, here or on the other
//! end of a veth, and tcx programs. The other end's MTU is read with them, which nobody announces here either. And to
//! netfilter's hooks: BPF programs that are no rules.

use std::collections::{BTreeMap, BTreeSet};

use super::change::NewsOfLinks;
use super::netlink::link;
use crate::bpf::{self, TcxHook};
use crate::host::{Peer, Xdp};
use crate::sys::netlink::{NetlinkError, NetlinkSocket};

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
    /// The newest that has an XDP program on an interface.
    last_xdp: u32,
    /// Those to netfilter hooks. The kernel does not say in which namespace they are.
    pub on_netfilter: BTreeSet<u32>,
}

impl Links {
    /// Whether XDP programs have come since.
    pub fn are_news_to(&self, before: &Self) -> bool {
        self.last_xdp != before.last_xdp
    }

    /// Looks at those that are new, and which are gone of those to netfilter hooks. Without privileges there are none.
    #[must_use]
    pub fn renewed(&self) -> Self {
        let is_there = |id: &u32| bpf::next_link(id - 1).is_ok_and(|next| next == Some(*id));
        let mut links = Self {
            last: self.last,
            last_xdp: self.last_xdp,
            on_netfilter: self.on_netfilter.iter().copied().filter(is_there).collect(),
        };
        while let Ok(Some(id)) = bpf::next_link(links.last) {
            // One that is gone meanwhile is none.
            match bpf::link_type(id) {
                Ok(bpf::LinkType::Netfilter) => {
                    links.on_netfilter.insert(id);
                }
                Ok(bpf::LinkType::Other) => {}
                // One that cannot be looked at may be of any kind.
                Ok(bpf::LinkType::Xdp) | Err(_) => links.last_xdp = id,
            }
            links.last = id;
        }
        links
    }
}

/// The interfaces of a namespace as they were listed. Only XDP programs come to them by a BPF link without a word; all
/// else is announced, so as long as there is no news they need not be listed again.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Listed {
    /// How often they have been looked at since.
    looks: u32,
    links: BTreeMap<u32, link::Quiet>,
}

impl Listed {
    /// After so many looks they are listed again whatever is said: a driver may forget to announce what it does.
    const LOOKS: u32 = 10;

    /// Asks about those again that `news` tells of, or lists them all if there is a new XDP program. Where there are XDP
    /// programs they may go without a word, too.
    fn renewed(
        mut self,
        socket: &mut NetlinkSocket,
        news: NewsOfLinks,
        has_new_link: bool,
    ) -> Result<Self, NetlinkError> {
        let has_xdp = || self.links.values().any(|quiet| quiet.xdp != Xdp::default());
        let looks = self.looks + 1;
        let is_old = looks >= Self::LOOKS || has_new_link || self.links.is_empty() || has_xdp();
        match news {
            NewsOfLinks::Some(news) if !is_old => {
                for ifindex in news {
                    match link::ask_quiet(socket, ifindex)? {
                        Some(quiet) => self.links.insert(ifindex, quiet),
                        None => self.links.remove(&ifindex),
                    };
                }
                Ok(Self { looks, ..self })
            }
            NewsOfLinks::Some(_) | NewsOfLinks::All => {
                let links = link::list_quiet(socket)?;
                Ok(Self { looks: 0, links })
            }
        }
    }
}

/// Looks at all interfaces of the calling thread's namespace. It blocks, for some microseconds each. `news` tells
/// which links have been announced since they were `listed`, `has_new_link` whether a BPF link to XDP has come.
pub fn look(
    listed: Listed,
    news: NewsOfLinks,
    has_new_link: bool,
) -> Result<(Listed, BTreeMap<u32, Attached>), NetlinkError> {
    let mut socket = NetlinkSocket::route()?;
    let listed = listed.renewed(&mut socket, news, has_new_link)?;
    let ends: Vec<link::End> = listed
        .links
        .iter()
        .filter_map(|(ifindex, quiet)| quiet.peer.map(|(netns, peer)| (*ifindex, netns, peer)))
        .collect();
    let peers = link::peers(&mut socket, &ends)?;
    let mut found = BTreeMap::new();
    let mut has_tcx = true;
    for (ifindex, quiet) in &listed.links {
        let mut attached = Attached {
            xdp: quiet.xdp,
            peer: peers.get(ifindex).copied(),
            ..Attached::default()
        };
        if quiet.is_ethernet && has_tcx {
            for (hook, revision) in TcxHook::BOTH.into_iter().zip(&mut attached.tcx) {
                match bpf::tcx_revision(*ifindex, hook) {
                    Ok(found) => *revision = Some(found),
                    // One that has gone meanwhile; of all others, what is asked is what the kernel does not have.
                    Err(error) => has_tcx &= error.raw_os_error() == Some(libc::ENODEV),
                }
            }
        }
        found.insert(*ifindex, attached);
    }
    Ok((listed, found))
}
