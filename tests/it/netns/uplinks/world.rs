//! A host whose uplink is another device than a plain Ethernet interface, with the outside client at its other end.
//!
//! The addresses are those of every site, so that the same conversations can be had over each kind.

use std::{
    fs::File,
    io::{Read as _, Write as _},
    os::fd::{AsFd as _, AsRawFd as _},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
};

use netfast_tests::{
    cmd,
    netns::{NetNs, NsHandle, veth_pair},
    site::LAN_IP,
    topo::{self, Topo},
};
use nix::poll::{PollFd, PollFlags, poll};

use super::super::lab::{Lab, TIMEOUT};

/// What the host's uplink is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A plain Ethernet interface: what all others are compared with.
    Ethernet,
    /// A bridge that has the Ethernet interface as its port.
    Bridge,
    /// The same, which filters by VLAN; the host's own is untagged.
    VlanBridge,
    /// A bridge whose port is a veth, as in a machine that is a container itself.
    VethBridge,
    /// A layer-3 device: its packets have no MAC header, and a program carries them.
    Tun,
    /// A VLAN on an Ethernet interface.
    Vlan,
    /// Two Ethernet interfaces, one of them in use.
    Bond,
    /// `WireGuard` over an Ethernet interface.
    Wireguard,
}

impl Kind {
    /// What the uplink is called.
    pub const fn uplink(self) -> &'static str {
        match self {
            Self::Ethernet => "eth0",
            Self::Bridge | Self::VlanBridge | Self::VethBridge => "br0",
            Self::Tun => "tun0",
            Self::Vlan => "eth0.10",
            Self::Bond => "bond0",
            Self::Wireguard => "wg0",
        }
    }
}

/// MAC addresses of the host's uplink and of the client, of every site.
const HOST_MAC: &str = "02:00:00:00:00:01";
const LAN_MAC: &str = "02:00:00:00:00:64";

/// The host, with netfast once it was started. In the order of dropping.
pub struct World {
    pub lab: Lab,
    pub kind: Kind,
    made: Made,
}

/// What an uplink needs besides the host and the client.
#[derive(Default)]
pub struct Made {
    relay: Option<Relay>,
    /// Where the Ethernet interfaces are that play the host's network cards.
    pub wire: Option<NetNs>,
}

impl World {
    /// A host with such an uplink and rules like an engine's.
    pub fn start(kind: Kind) -> Self {
        Self::with(kind, &super::super::lab::topology(), None)
    }

    /// In a topology, with a configuration file.
    pub fn with(kind: Kind, options: &topo::Options, config: Option<&str>) -> Self {
        let topo = Topo::new(options).expect("a topology");
        let made = make(kind, &topo);
        Self {
            lab: Lab::around(topo, config),
            kind,
            made,
        }
    }

    /// A host that is there, with such an uplink.
    pub fn around(kind: Kind, topo: Topo) -> Self {
        Self {
            lab: Lab::around(topo, None),
            kind,
            made: Made::default(),
        }
    }

    pub fn host(&self) -> &NetNs {
        self.lab.topo.host()
    }

    pub fn lan(&self) -> &NetNs {
        self.lab.topo.lan()
    }

    /// What `netfast check` says.
    pub fn check(&self) -> String {
        let config = self.lab.netfast.run_dir().join("netfast.toml").display().to_string();
        let arguments = ["check", "--runtime", "none", "--config", &config];
        self.lab.netfast.verb(&arguments).expect("netfast can run here")
    }

    /// What `netfast explain` says of container 0 of the first bridge and the outside.
    pub fn explain(&self) -> String {
        let arguments = ["explain", "veth0x0", &LAN_IP.to_string()];
        self.lab.netfast.verb(&arguments).expect("a report")
    }
}

/// Makes of the host's plain uplink one of this kind.
pub fn make(kind: Kind, topo: &Topo) -> Made {
    let (host, lan) = (topo.host(), topo.lan());
    let mut made = Made::default();
    match kind {
        Kind::Ethernet => return made,
        Kind::Bridge | Kind::VlanBridge => made.wire = Some(bridge(topo, kind == Kind::VlanBridge)),
        Kind::VethBridge => {
            host.ip("addr flush dev eth0").expect("no address");
            host.ip(&format!("link add br0 address {HOST_MAC} type bridge"))
                .expect("a bridge");
            host.ip("link set eth0 master br0").expect("a port");
        }
        Kind::Tun => {
            for ns in [host, lan] {
                ns.ip("link del eth0").ok();
                ns.ip("tuntap add tun0 mode tun").expect("a tun device");
            }
            made.relay = Some(Relay::start(host, lan));
        }
        Kind::Vlan => {
            for ns in [host, lan] {
                ns.ip("addr flush dev eth0").expect("no address");
                ns.ip("link add link eth0 name eth0.10 type vlan id 10")
                    .expect("a VLAN");
            }
        }
        Kind::Bond => bond(topo),
        Kind::Wireguard => wireguard(topo),
    }
    address(host, kind.uplink(), "198.18.0.1/24");
    host.ip(&format!("route replace default via {LAN_IP}"))
        .expect("a route");
    match kind {
        Kind::Tun | Kind::Vlan | Kind::Wireguard => address(lan, kind.uplink(), "198.18.0.100/24"),
        Kind::Bond => address(lan, "br0", "198.18.0.100/24"),
        Kind::Ethernet | Kind::Bridge | Kind::VlanBridge | Kind::VethBridge => {}
    }
    host.sh(&format!("busybox ping -c1 -W5 {LAN_IP}"))
        .expect("the client answers");
    made
}

fn address(ns: &NetNs, device: &str, address: &str) {
    ns.ip(&format!("link set {device} up")).expect("it is up");
    ns.ip(&format!("addr add {address} dev {device}")).expect("an address");
}

/// Takes the host's end of the wire away, and gives it a network card for it: a macvlan device that has it for itself.
fn card(topo: &Topo, wire: &NetNs, name: &str) {
    wire.ip(&format!("link set {name} up")).expect("it is up");
    wire.ip(&format!(
        "link add link {name} name card-{name} netns {} type macvlan mode passthru",
        topo.host().name()
    ))
    .expect("a network card");
}

fn bridge(topo: &Topo, by_vlan: bool) -> NetNs {
    let host = topo.host();
    let wire = NetNs::new("wire").expect("a namespace");
    host.ip(&format!("link set eth0 netns {}", wire.name())).expect("moved");
    card(topo, &wire, "eth0");
    let filter = if by_vlan { "vlan_filtering 1" } else { "" };
    host.ip(&format!("link add br0 address {HOST_MAC} type bridge {filter}"))
        .expect("a bridge");
    host.ip("link set card-eth0 master br0 up").expect("a port");
    wire
}

/// A second card of the host's bridge, with the client's `eth1` at its other end. The client is not there yet.
pub fn second_port(world: &World) {
    let wire = world.made.wire.as_ref().expect("it has network cards");
    veth_pair((wire, "eth1"), (world.lan(), "eth1")).expect("another wire");
    card(&world.lab.topo, wire, "eth1");
    world.host().ip("link set card-eth1 master br0 up").expect("a port");
    world
        .lan()
        .ip(&format!("link set eth1 address {LAN_MAC}"))
        .expect("a MAC address");
}

/// The host bonds two interfaces, and the client bridges them.
fn bond(topo: &Topo) {
    let (host, lan) = (topo.host(), topo.lan());
    veth_pair((host, "eth1"), (lan, "eth1")).expect("another wire");
    host.ip(&format!(
        "link add bond0 address {HOST_MAC} type bond mode active-backup miimon 50"
    ))
    .expect("a bond");
    lan.ip(&format!("link add br0 address {LAN_MAC} type bridge"))
        .expect("a bridge");
    for (ns, master) in [(host, "bond0"), (lan, "br0")] {
        for port in ["eth0", "eth1"] {
            ns.ip(&format!("addr flush dev {port}")).expect("no address");
            ns.ip(&format!("link set {port} down")).expect("down");
            ns.ip(&format!("link set {port} master {master}")).expect("a port");
            ns.ip(&format!("link set {port} up")).expect("up");
        }
    }
}

fn wireguard(topo: &Topo) {
    let ends = [(topo.host(), "192.0.2.1"), (topo.lan(), "192.0.2.2")];
    let keys = ends.map(|(ns, ip)| {
        ns.ip("addr flush dev eth0").expect("no address");
        ns.ip(&format!("addr add {ip}/24 dev eth0")).expect("an address");
        ns.ip("link add wg0 type wireguard").expect("a WireGuard device");
        let key = ns.sh("wg genkey").expect("a key").trim().to_owned();
        // The program takes a file's name.
        ns.sh(&format!(
            "file=$(mktemp) && echo {key} > $file && wg set wg0 listen-port 51820 private-key $file && rm $file"
        ))
        .expect("a private key");
        ns.sh(&format!("echo {key} | wg pubkey"))
            .expect("a key")
            .trim()
            .to_owned()
    });
    for (near, far) in [(0, 1), (1, 0)] {
        let line = format!(
            "wg set wg0 peer {} allowed-ips 0.0.0.0/0 endpoint {}:51820",
            keys[far], ends[far].1
        );
        ends[near].0.sh(&line).expect("a peer");
    }
}

/// Carries packets between the tun devices of two namespaces.
struct Relay {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Relay {
    fn start(one: &NsHandle, other: &NsHandle) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let ends = [one, other].map(|ns| Arc::new(ns.run(open_tun).expect("entered")));
        let ways = [(0, 1), (1, 0)].map(|(from, to)| (Arc::clone(&ends[from]), Arc::clone(&ends[to])));
        let threads = ways.map(|(from, to)| {
            let stop = Arc::clone(&stop);
            thread::spawn(move || {
                let mut packet = vec![0; 65536];
                while !stop.load(Ordering::Relaxed) {
                    let mut waited = [PollFd::new(from.as_fd(), PollFlags::POLLIN)];
                    if poll(&mut waited, 50_u8).is_ok_and(|ready| ready > 0)
                        && let Ok(length) = (&*from).read(&mut packet)
                    {
                        // The other end may be down.
                        let _lost = (&*to).write(&packet[..length]);
                    }
                }
            })
        });
        Self {
            stop,
            threads: threads.into(),
        }
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _panicked = thread.join();
        }
    }
}

/// The program's end of `tun0` of the namespace that the thread is in.
fn open_tun() -> File {
    let file = cmd::poll("/dev/net/tun", TIMEOUT, || {
        File::options().read(true).write(true).open("/dev/net/tun").ok()
    })
    .expect("tun devices");
    // SAFETY: made of integers and arrays of them.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(b"tun0") {
        *to = from.cast_signed();
    }
    request.ifr_ifru.ifru_flags = i16::try_from(libc::IFF_TUN | libc::IFF_NO_PI).expect("two bits of it");
    // SAFETY: an open descriptor, and a request of the type that this call takes.
    let done = unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETIFF, &raw mut request) };
    assert_eq!(done, 0, "{}", std::io::Error::last_os_error());
    file
}
