//! What XDP depends on: what drivers can do with frames, and the namespaces of the other ends of veths.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File},
    os::{fd::AsRawFd as _, unix::fs::MetadataExt as _},
    path::PathBuf,
};

use crate::sys::netlink::{
    Attrs, DUMP, Malformed, NLM_F_REQUEST, NetlinkError, NetlinkSocket, Request, socket::GenericGroup,
};

/// Frames can be passed, dropped and sent back (`NETDEV_XDP_ACT_BASIC`, linux/netdev.h).
pub const BASIC: u64 = 1;
/// Frames can be sent on (`NETDEV_XDP_ACT_REDIRECT`).
pub const REDIRECT: u64 = 2;
/// Frames can be sent to it (`NETDEV_XDP_ACT_NDO_XMIT`); to a veth, if its other end has NAPI.
pub const TAKES_FRAMES: u64 = 4;

/// What each interface of the calling thread's network namespace can do with frames (generic netlink's family `netdev`,
/// Linux 6.3), by its index: the constants above, and others.
pub fn features() -> Result<BTreeMap<u32, u64>, NetlinkError> {
    const GET_DEVICES: u8 = 1;
    const IFINDEX: u16 = 1;
    const FEATURES: u16 = 3;
    let what = WHAT;
    let mut socket = NetlinkSocket::generic()?;
    let (family, _) = family(&mut socket)?;
    let request = Request::new(family, DUMP, &[GET_DEVICES, 1, 0, 0]);
    socket.dump(what, &request, |found: &mut BTreeMap<u32, u64>, message| {
        let attrs = Attrs::after(message.payload, HEADER)?;
        let ifindex = attrs.need(IFINDEX, "the index")?.u32()?;
        let features = attrs.need(FEATURES, "the features")?.payload;
        let features = features
            .try_into()
            .map_err(|_| Malformed::wrong("features of another length"))?;
        found.insert(ifindex, u64::from_ne_bytes(features));
        Ok(())
    })
}

/// For errors.
const WHAT: &str = "what drivers can do with frames";
/// Bytes of `struct genlmsghdr`.
const HEADER: usize = 4;

/// The number of the family `netdev`, and of its group that is told of changes.
fn family(socket: &mut NetlinkSocket) -> Result<(u16, u32), NetlinkError> {
    const CONTROL: u16 = 0x10;
    const GET_FAMILY: u8 = 3;
    const FAMILY_ID: u16 = 1;
    const FAMILY_NAME: u16 = 2;
    const GROUPS: u16 = 7;
    const GROUP_NAME: u16 = 1;
    const GROUP_ID: u16 = 2;
    let request = Request::new(CONTROL, NLM_F_REQUEST, &[GET_FAMILY, 1, 0, 0]).attr(FAMILY_NAME, b"netdev\0");
    socket.ask(WHAT, &request, |message| {
        let attrs = Attrs::after(message.payload, HEADER)?;
        let family = attrs.need(FAMILY_ID, "the family")?.u16()?;
        for group in attrs.inside(GROUPS)?.iter() {
            let group = group.nested()?;
            if group.need(GROUP_NAME, "a group's name")?.text() == "mgmt" {
                return Ok((family, group.need(GROUP_ID, "a group's number")?.u32()?));
            }
        }
        Err(Malformed::missing("the group of changes"))
    })
}

/// Tells of changes of what drivers can do with frames, in the namespace of the thread that made it.
pub struct Changes(GenericGroup);

impl Changes {
    /// Listens from now on.
    pub fn new() -> Result<Self, NetlinkError> {
        let (_, group) = family(&mut NetlinkSocket::generic()?)?;
        Ok(Self(GenericGroup::join(group)?))
    }

    /// Waits for the next one. That some were lost is one, too.
    pub fn wait(&mut self) -> Result<(), NetlinkError> {
        self.0.wait()
    }
}

/// A network namespace that can be entered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Its inode.
    pub netns: u64,
    /// A file that leads to it.
    pub path: PathBuf,
}

/// The namespaces that the calling thread's knows by numbers (`IFLA_LINK_NETNSID`), as far as a mount or a process leads to them.
pub fn namespaces() -> Result<BTreeMap<i32, Place>, NetlinkError> {
    /// `RTM_GETNSID`, and of its attributes `NETNSA_NSID` and `NETNSA_FD` (`linux/net_namespace.h`).
    const GET_NSID: u16 = 90;
    const NSID: u16 = 1;
    const FD: u16 = 3;
    const HEADER: usize = 4;
    let mut socket = NetlinkSocket::route()?;
    let (mut seen, mut found) = (BTreeSet::new(), BTreeMap::new());
    for path in mounted().into_iter().chain(of_processes()) {
        let Some((file, netns)) = File::open(&path).ok().and_then(|file| {
            let netns = file.metadata().ok()?.ino();
            Some((file, netns))
        }) else {
            continue;
        };
        if !seen.insert(netns) {
            continue;
        }
        let number = file.as_raw_fd().cast_unsigned().to_ne_bytes();
        let request = Request::new(GET_NSID, NLM_F_REQUEST, &[0; HEADER]).attr(FD, &number);
        let nsid = socket.ask("a network namespace", &request, |message| {
            Attrs::after(message.payload, HEADER)?.need(NSID, "the number")?.i32()
        });
        // What is no network namespace is refused; one without a number has -1.
        if let Ok(nsid) = nsid
            && nsid >= 0
        {
            found.insert(nsid, Place { netns, path });
        }
    }
    Ok(found)
}

/// The files that network namespaces are bound to, as `ip netns` and container runtimes do.
fn mounted() -> Vec<PathBuf> {
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    // "… 0:4 net:[4026532000] /run/netns/one rw shared:2 - nsfs nsfs rw"
    let paths = table.lines().filter_map(|line| {
        let mut fields = line.split(' ').skip(3);
        let (root, path) = (fields.next()?, fields.next()?);
        root.starts_with("net:[").then(|| PathBuf::from(path))
    });
    paths.collect()
}

fn of_processes() -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    let processes = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let processes = processes.filter(|name| name.bytes().all(|byte| byte.is_ascii_digit()));
    processes
        .map(|pid| PathBuf::from(format!("/proc/{pid}/ns/net")))
        .collect()
}
