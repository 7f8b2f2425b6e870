//! The network namespaces that Docker makes for its overlay networks ("sandboxes"): each has the network's bridge, its VXLAN
//! device, and the containers' veths.
//!
//! No process is in one, and the API does not tell where it is. What holds it is a mount of its nsfs file, by the name
//! `<exec-root>/netns/<number>-<network's identifier>`, cut to twelve characters (`GenerateKey`, `libnetwork/osl`). The mount
//! is in the engine's mount namespace, which is not always netfast's, so the engine's own list of mounts is read. Nothing is
//! held open: a namespace ends with the last reference to it.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io,
    os::{
        fd::AsFd as _,
        unix::{fs::MetadataExt as _, net::UnixStream},
    },
    path::PathBuf,
    thread,
};

use nix::{
    sched::{CloneFlags, setns},
    sys::{
        socket::{getsockopt, sockopt::PeerCredentials},
        stat::makedev,
    },
};

use crate::{
    host::{LinkKind, NetnsId, NetworkId},
    observe::netlink::link,
    sys::netlink::NetlinkSocket,
};

/// Digits of a network's identifier that a name has at least.
const MIN_DIGITS: usize = 6;

/// A sandbox that was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sandbox {
    /// The namespace.
    pub netns: NetnsId,
    /// Its file, as it can be opened from here.
    pub file: PathBuf,
}

/// The process that listens at the other end of the runtime's socket: the engine, or who opens its sockets for it. `None` if
/// that is no socket of this machine's, or the process is not visible here.
pub fn engine(docker_host: &str) -> Option<u32> {
    let path = docker_host.strip_prefix("unix://")?;
    let socket = UnixStream::connect(path).ok()?;
    let pid = getsockopt(&socket, PeerCredentials).ok()?.pid();
    u32::try_from(pid).ok().filter(|pid| *pid != 0)
}

/// The sandboxes of these networks. `engine` is the process that made them, if it is known.
pub fn find<'a>(
    networks: impl IntoIterator<Item = &'a NetworkId>,
    engine: Option<u32>,
) -> BTreeMap<NetworkId, Sandbox> {
    let networks: Vec<&NetworkId> = networks.into_iter().collect();
    let mut found = BTreeMap::new();
    if networks.is_empty() {
        return found;
    }
    // Under systemd the engine's socket is opened by the first process, which sees the engine's mounts, unless its unit has
    // mounts of its own.
    let engine = engine.map(|pid| pid.to_string());
    let views = engine.into_iter().chain(["1".to_owned(), "self".to_owned()]);
    for view in views {
        if found.len() == networks.len() {
            break;
        }
        let Ok(mounts) = fs::read_to_string(format!("/proc/{view}/mountinfo")) else {
            continue;
        };
        for (name, place, netns) in namespaces(&mounts) {
            let network = networks.iter().find(|network| is_of(name, network));
            if let Some(network) = network {
                let file = PathBuf::from(format!("/proc/{view}/root{place}"));
                found.entry((*network).clone()).or_insert(Sandbox { netns, file });
            }
        }
    }
    found
}

/// The network namespaces in a list of mounts: name, place, identity.
fn namespaces(mounts: &str) -> impl Iterator<Item = (&str, &str, NetnsId)> {
    // proc_pid_mountinfo(5): ID PARENT MAJOR:MINOR ROOT PLACE OPTIONS TAGS... - TYPE SOURCE OPTIONS
    mounts.lines().filter_map(|line| {
        let (mount, kind) = line.split_once(" - ")?;
        if !kind.starts_with("nsfs ") {
            return None;
        }
        let mut words = mount.split(' ').skip(2);
        let (major, minor) = words.next()?.split_once(':')?;
        let ino = words.next()?.strip_prefix("net:[")?.strip_suffix(']')?;
        // A place with a space or the like is written with a backslash.
        let place = words.next().filter(|place| !place.contains('\\'))?;
        let (directory, name) = place.rsplit_once('/')?;
        let netns = NetnsId {
            dev: makedev(major.parse().ok()?, minor.parse().ok()?),
            ino: ino.parse().ok()?,
        };
        directory.ends_with("/netns").then_some((name, place, netns))
    })
}

/// Whether a sandbox's name is of this network.
fn is_of(name: &str, network: &NetworkId) -> bool {
    let Some((number, digits)) = name.split_once('-') else {
        return false;
    };
    let is_number = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
    is_number && digits.len() >= MIN_DIGITS && network.0.starts_with(digits)
}

/// Does something within a sandbox, on a thread that ends there.
pub fn inside<T: Send>(sandbox: &Sandbox, act: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    let enter_and_act = || {
        let namespace = File::open(&sandbox.file)?;
        let metadata = namespace.metadata()?;
        if (metadata.dev(), metadata.ino()) != (sandbox.netns.dev, sandbox.netns.ino) {
            return Err(io::Error::other("another namespace has its name by now"));
        }
        setns(namespace.as_fd(), CloneFlags::CLONE_NEWNET).map_err(io::Error::from)?;
        drop(namespace);
        act()
    };
    thread::scope(|scope| scope.spawn(enter_and_act).join())
        .unwrap_or_else(|_| Err(io::Error::other("the thread that went there has panicked")))
}

/// Whether the calling thread's namespace has a VXLAN device that is a port of a bridge: what the engine takes away first.
pub fn has_tunnel() -> io::Result<bool> {
    let mut socket = NetlinkSocket::route().map_err(io::Error::other)?;
    let links = link::list(&mut socket).map_err(io::Error::other)?;
    let mut links = links.values();
    Ok(links.any(|link| matches!(link.kind, LinkKind::Vxlan(_)) && link.master.is_some()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As dockerd 20.10 has them, with two networks of the swarm and what it has besides.
    const MOUNTS: &str = "\
480 477 0:4 net:[4026532178] /run/netns/host rw - nsfs nsfs rw
291 453 0:4 net:[4026533209] /run/docker/netns/ingress_sbox rw - nsfs nsfs rw
335 453 0:4 net:[4026533278] /run/docker/netns/1-ygp2defkt0 rw shared:7 - nsfs nsfs rw
580 453 0:4 net:[4026533803] /run/docker/netns/lb_kngzndsf3 rw - nsfs nsfs rw
581 453 0:4 net:[4026533872] /run/docker/netns/12-kngzndsf3 rw - nsfs nsfs rw
582 453 0:4 net:[4026533873] /tmp/1-kngzndsf3x rw - nsfs nsfs rw
583 453 0:4 mnt:[4026533874] /run/docker/netns/3-kngzndsf3x rw - nsfs nsfs rw
717 453 0:4 net:[4026533953] /run/docker/netns/f1e89345de30 rw - nsfs nsfs rw
";

    #[test]
    fn sandboxes_are_told_by_their_names() {
        let id = |text: &str| NetworkId(text.into());
        let known = [id("kngzndsf3xwverf0om3blx1ay"), id("ygp2defkt0aaaaaaaaaaaaaaa")];
        let found: Vec<_> = namespaces(MOUNTS)
            .filter_map(|(name, place, netns)| {
                let network = known.iter().find(|network| is_of(name, network))?;
                Some((network.0.as_str(), place, netns.ino))
            })
            .collect();
        assert_eq!(
            found,
            [
                (
                    "ygp2defkt0aaaaaaaaaaaaaaa",
                    "/run/docker/netns/1-ygp2defkt0",
                    4_026_533_278
                ),
                (
                    "kngzndsf3xwverf0om3blx1ay",
                    "/run/docker/netns/12-kngzndsf3",
                    4_026_533_872
                ),
            ]
        );
        assert_eq!(
            namespaces(MOUNTS).next().map(|(.., netns)| netns.dev),
            Some(makedev(0, 4))
        );
        for name in [
            "1-",
            "-kngzndsf3x",
            "1-kngz",
            "x1-kngzndsf3x",
            "lb_kngzndsf3",
            "kngzndsf3x",
        ] {
            assert!(!is_of(name, &known[0]), "{name}");
        }
    }

    #[test]
    fn nobody_is_looked_for_without_networks() {
        assert!(find([], None).is_empty());
    }
}
