//! Looks into containers' network namespaces for their interfaces.
//!
//! The runtime tells neither which link of the host belongs to an attachment nor what a container did to its
//! interfaces. Both are plain to see from inside: the veth there names its other end's index here. A thread of its own
//! enters the namespaces and ends there, so that no thread of the daemon is ever in another namespace than it was
//! started in.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::MetadataExt as _;
use std::{io, thread};

use nix::sched::{CloneFlags, setns};

use super::netlink::{address, link};
use crate::host::{ContainerInterface, Link, LinkKind, NetnsId};
use crate::sys::netlink::rt::{NsidAttribute, NsidHeader, NsidMessage, RouteNetlinkMessage};
use crate::sys::netlink::{Attrs, Emitable as _, Malformed, NLM_F_REQUEST, NetlinkError, NetlinkSocket, Request};

pub mod known;

const NETNSA_NSID: u16 = 1;

/// What was found in a process's network namespace.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ContainerNetns {
    /// Which namespace it is.
    pub id: NetnsId,
    /// Its links but loopback; empty if it is the observed namespace.
    pub interfaces: Vec<ContainerInterface>,
}

/// What keeps a namespace from being looked into. The usual cause is that it is gone.
#[derive(Debug, thiserror::Error)]
enum LookError {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error(transparent)]
    Netlink(#[from] NetlinkError),
}

/// Looks into the network namespaces of these processes, and blocks meanwhile: a fraction of a millisecond each. A
/// process that is gone, or whose namespace may not be entered, is left out. Needs `CAP_SYS_ADMIN`.
pub fn look(pids: &BTreeSet<u32>) -> BTreeMap<u32, ContainerNetns> {
    if pids.is_empty() {
        return BTreeMap::new();
    }
    thread::scope(|scope| {
        let looker = thread::Builder::new()
            .name("netfast-netns".into())
            .spawn_scoped(scope, || look_here(pids));
        match looker.map(thread::ScopedJoinHandle::join) {
            Ok(Ok(Ok(found))) => found,
            Ok(Ok(Err(error))) | Err(error) => {
                tracing::warn!(%error, "cannot look into containers' network namespaces");
                BTreeMap::new()
            }
            Ok(Err(panic)) => std::panic::resume_unwind(panic),
        }
    })
}

/// The processes behind the host's ends of interfaces, each of which is given by a process, the inode of its namespace
/// and the interface's index there.
pub fn veths(interfaces: impl IntoIterator<Item = (u32, u64, u32)>) -> BTreeMap<u32, u32> {
    let interfaces: Vec<_> = interfaces.into_iter().collect();
    let namespaces = look(&interfaces.iter().map(|(pid, ..)| *pid).collect());
    let veth = |(pid, netns, ifindex): &(u32, u64, u32)| {
        let namespace = namespaces.get(pid).filter(|namespace| namespace.id.ino == *netns)?;
        let interface = namespace.interfaces.iter().find(|one| one.ifindex == *ifindex)?;
        Some((interface.host_ifindex?, *pid))
    };
    interfaces.iter().filter_map(veth).collect()
}

/// Leaves the calling thread in any of the namespaces.
fn look_here(pids: &BTreeSet<u32>) -> io::Result<BTreeMap<u32, ContainerNetns>> {
    let home = File::open("/proc/thread-self/ns/net")?;
    let home_id = identity(&home)?;
    let mut seen: BTreeMap<NetnsId, ContainerNetns> = BTreeMap::from([(
        home_id,
        ContainerNetns {
            id: home_id,
            interfaces: Vec::new(),
        },
    )]);
    let mut found = BTreeMap::new();
    for pid in pids {
        match look_into(*pid, &home, &mut seen) {
            Ok(namespace) => {
                found.insert(*pid, namespace);
            }
            Err(error) => tracing::debug!(pid, %error, "network namespace not looked into"),
        }
    }
    Ok(found)
}

fn look_into(pid: u32, home: &File, seen: &mut BTreeMap<NetnsId, ContainerNetns>) -> Result<ContainerNetns, LookError> {
    let file = File::open(format!("/proc/{pid}/ns/net"))?;
    let id = identity(&file)?;
    if let Some(namespace) = seen.get(&id) {
        return Ok(namespace.clone());
    }
    setns(&file, CloneFlags::CLONE_NEWNET).map_err(io::Error::from)?;
    let namespace = ContainerNetns {
        id,
        interfaces: interfaces(home)?,
    };
    seen.insert(id, namespace.clone());
    Ok(namespace)
}

fn identity(file: &File) -> io::Result<NetnsId> {
    let metadata = file.metadata()?;
    Ok(NetnsId {
        dev: metadata.dev(),
        ino: metadata.ino(),
    })
}

/// The interfaces of the calling thread's namespace, as seen from `home`.
fn interfaces(home: &File) -> Result<Vec<ContainerInterface>, NetlinkError> {
    let mut socket = NetlinkSocket::route()?;
    // Listing a link gives the namespace of its peer an identifier, so the question for it comes second.
    let links = link::list(&mut socket)?;
    let home = namespace_id(&mut socket, home)?;
    let addresses = address::list(&mut socket, None)?;
    let outside = links.into_values().filter(|link| link.kind != LinkKind::Loopback);
    Ok(outside
        .map(|link| ContainerInterface {
            ifindex: link.ifindex,
            mac: link.mac.filter(|_| link.is_ethernet()),
            host_ifindex: host_end(&link, home),
            up: link.up,
            kind: link.kind.name().into(),
            addresses: addresses
                .iter()
                .filter(|a| a.ifindex == link.ifindex)
                .map(|a| a.net)
                .collect(),
            name: link.name,
        })
        .collect())
}

/// The index of a veth's other end, if that is in the namespace with the identifier `home`.
fn host_end(link: &Link, home: Option<i32>) -> Option<u32> {
    if let LinkKind::Veth {
        peer_ifindex,
        peer_netns: Some(peer),
    } = link.kind
        && Some(peer) == home
    {
        return peer_ifindex;
    }
    None
}

/// The identifier that the socket's namespace has for `namespace`, if it has one.
fn namespace_id(socket: &mut NetlinkSocket, namespace: &File) -> Result<Option<i32>, NetlinkError> {
    let mut message = NsidMessage::default();
    message
        .attributes
        .push(NsidAttribute::Fd(namespace.as_raw_fd().cast_unsigned()));
    let request = Request::of(&RouteNetlinkMessage::GetNsId(message), NLM_F_REQUEST);
    let id = socket.ask("a namespace's identifier", &request, |message| {
        let header = NsidHeader::parse(message.payload)?;
        let attrs = Attrs::after(message.payload, header.buffer_len())?;
        let NsidAttribute::Id(id) = attrs.need(NETNSA_NSID, "the identifier")?.decode()? else {
            return Err(Malformed::missing("the identifier"));
        };
        Ok(id)
    })?;
    // NETNSA_NSID_NOT_ASSIGNED is -1.
    Ok(Some(id).filter(|id| *id >= 0))
}
