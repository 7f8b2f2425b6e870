//! The namespaces of a shape, with stations, and with netfast or without. Scenarios are played in it one after the other.

use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, UdpSocket},
    ops::RangeInclusive,
    os::fd::OwnedFd,
    sync::Arc,
    time::Duration,
};

use anyhow::{Context as _, Result};
use netfast::apply::read::Tables;
use netfast_tests::{
    cmd,
    netfast_proc::{NetfastProc, Options},
    netns::NetNs,
    seeds::{
        names,
        scenario::{CONTAINER_PORT, HOST_PORT, PUBLISHED_PORT, Place, REAL_PORTS, Shape},
    },
};

use super::programs::Attached;

use super::super::{
    describe::{Frame, MacNames},
    fence::{Fence, pin, unpin},
    queue,
    station::{Station, Tap},
    world::Mode,
};

/// Ports of real sockets: the stack of a station takes what comes for them, and the segments that they send are not
/// compared one by one. As few as can be, since translation may choose any port by chance.
pub const REAL_SERVER: u16 = 47_000;
/// See above: published ports in containers.
pub const REAL_PUBLISHED: RangeInclusive<u16> = CONTAINER_PORT + REAL_PORTS..=CONTAINER_PORT + REAL_PORTS + 2;
/// See above: the same on the host.
pub const REAL_ON_HOST: RangeInclusive<u16> = PUBLISHED_PORT + REAL_PORTS..=PUBLISHED_PORT + REAL_PORTS + 2;
/// See above: clients.
pub const REAL_CLIENTS: RangeInclusive<u16> = 60_000..=60_099;

fn is_real(port: u16) -> bool {
    port == REAL_SERVER
        || [REAL_PUBLISHED, REAL_ON_HOST, REAL_CLIENTS]
            .iter()
            .any(|ports| ports.contains(&port))
}

/// What each station got.
pub type Got = BTreeMap<Place, Vec<Frame>>;

/// A host that the kernel or netfast forwards on.
pub struct Arena {
    pub mode: Mode,
    cpu: usize,
    pub shape: Shape,
    pub stations: BTreeMap<Place, Station>,
    pub names: MacNames,
    /// What makes the host what it was, in the order of the changes.
    pub undo: Vec<Undo>,
    /// Real clients' ports that were given out.
    pub real_clients: u16,
    /// Bridges have been told something wrong about who is where.
    pub is_confused: bool,
    /// Tables of users' own, with their family.
    pub tables: Vec<(&'static str, String)>,
    /// iptables-legacy has rules.
    pub has_legacy: bool,
    /// netfast's maps.
    pub maps: Option<Tables>,
    // In the order of dropping: the daemon before its namespace.
    pub netfast: Option<NetfastProc>,
    /// Sockets of the host's own: a listener, and one that begins.
    pub listener: UdpSocket,
    pub caller: UdpSocket,
    queue: Option<OwnedFd>,
    buffer: Vec<u8>,
    pub fence: Fence,
    pub spaces: BTreeMap<Place, NetNs>,
    pub host: NetNs,
}

/// A way back.
#[derive(Clone, Debug)]
pub enum Undo {
    /// By a shell line in the host.
    Line(String),
    /// By a new veth pair for a container.
    Container(Place),
    /// By letting it go.
    Program(Arc<Attached>),
}

impl Arena {
    /// Builds it, on a CPU of its own if there are as many, and starts netfast.
    pub fn new(shape: &Shape, mode: Mode, lane: usize) -> Result<Self> {
        let cpu = cpu(mode, lane);
        pin(cpu)?;
        let host = NetNs::new("host")?;
        let mut spaces = BTreeMap::new();
        for place in shape
            .containers()
            .into_iter()
            .chain([Place::Outside(0), Place::Outside(1)])
        {
            let space = NetNs::new(&place.name())?;
            space.sh(&format!("sysctl -qw {}", SILENT.join(" ")))?;
            spaces.insert(place, space);
        }
        set_sysctls(&host, shape)?;
        let socket = |port| host.run(|| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, port)));
        let (listener, caller) = (socket(HOST_PORT)??, socket(HOST_PORT + 1)??);
        for socket in [&listener, &caller] {
            socket.set_nonblocking(true)?;
        }
        let mut arena = Self {
            mode,
            cpu,
            shape: shape.clone(),
            stations: BTreeMap::new(),
            names: MacNames::new(),
            undo: Vec::new(),
            real_clients: 0,
            is_confused: false,
            tables: Vec::new(),
            has_legacy: false,
            maps: None,
            netfast: None,
            listener,
            caller,
            queue: None,
            buffer: vec![0; 1 << 18],
            fence: Fence::new()?,
            spaces,
            host,
        };
        arena.build()?;
        Ok(arena)
    }

    fn build(&mut self) -> Result<()> {
        let mut lines = Vec::new();
        for (number, _) in self.shape.bridges.iter().enumerate() {
            let (name, mac) = (names::bridge(number), names::bridge_mac(number));
            lines.push(format!(
                "link add {name} address {} type bridge mcast_snooping 0",
                names::text(mac)
            ));
            lines.push(trusts_neighbours(&name));
            lines.push(format!("addr add {}/24 dev {name}", names::gateway(number)));
            lines.push(format!("link set {name} up"));
            self.names.insert(mac, name);
        }
        batch(&self.host, &lines)?;
        let places: Vec<Place> = self.spaces.keys().copied().collect();
        for place in places {
            self.plug(place, names::mac(place))?;
        }
        batch(
            &self.host,
            &[
                "route add default via 198.18.0.100".to_owned(),
                format!("route add {}/32 via 198.18.0.100", names::BEHIND),
                format!("route add default via 198.19.0.100 table {}", names::TABLE),
                format!("rule add fwmark {} lookup {}", names::MARK, names::TABLE),
            ],
        )?;
        self.announce()?;
        if self.mode == Mode::On {
            let options = Options {
                config: Some(format!(
                    "direct = true\nrevalidate_ms = {}\nlearn_after = {}\n",
                    self.shape.revalidate_ms, self.shape.learn_after
                )),
                ..Options::no_runtime()
            };
            // The daemon is not to share this thread's CPU with it.
            unpin()?;
            let netfast = NetfastProc::start(&self.host, options)?;
            pin(self.cpu)?;
            self.maps = Some(Tables::open(netfast.pin_dir()).context("the maps are pinned")?);
            self.netfast = Some(netfast);
        }
        Ok(())
    }

    /// Gives a place its veth pair and its station.
    pub fn plug(&mut self, place: Place, mac: [u8; 6]) -> Result<()> {
        let space = &self.spaces[&place];
        let (veth, ip) = (names::veth(place), names::ip(place));
        let (own_mac, gateway_mac, gateway, more) = match place {
            Place::Container(bridge, index) => {
                let own = [2, 0, 0, 2, low(bridge), low(index)];
                let more = vec![format!("link set {veth} master {}", names::bridge(bridge))];
                (own, names::bridge_mac(bridge), names::gateway(bridge), more)
            }
            Place::Outside(uplink) => {
                let own = names::uplink_mac(uplink);
                let ip = names::uplink_ip(uplink);
                (own, own, ip, vec![format!("addr add {ip}/24 dev {veth}")])
            }
        };
        let mut lines = vec![format!(
            "link add {veth} address {} type veth peer name eth0 address {} netns {}",
            names::text(own_mac),
            names::text(mac),
            space.name()
        )];
        lines.extend(more);
        lines.push(trusts_neighbours(&veth));
        lines.push(format!("link set {veth} up"));
        batch(&self.host, &lines)?;
        batch(
            space,
            &[
                trusts_neighbours("eth0"),
                format!("addr add {ip}/24 dev eth0"),
                "link set eth0 up".to_owned(),
                format!("route add default via {gateway}"),
            ],
        )?;
        // What comes for real sockets is taken, and the stack answers nothing else. What a path carries is remembered for
        // minutes, so those errors would reach into the scenarios that follow.
        space.sh(&format!(
            "nft 'table ip silence; flush table ip silence; table ip silence {{ chain every {{ type filter hook \
             prerouting priority -400; meta l4proto {{ tcp, udp }} th dport {{ {REAL_SERVER}, {}-{}, {}-{} }} accept; \
             icmp type destination-unreachable icmp code != frag-needed accept; drop; }}; }}'",
            REAL_PUBLISHED.start(),
            REAL_PUBLISHED.end(),
            REAL_CLIENTS.start(),
            REAL_CLIENTS.end()
        ))?;
        let tap = Tap::open(space, "eth0")?;
        self.names.insert(own_mac, veth);
        self.names.insert(gateway_mac, format!("gateway {gateway}"));
        let name = place.name();
        // Whatever its MAC address is: that is what is compared.
        self.names.insert(mac, name.clone());
        self.stations
            .insert(place, Station::of(name, ip, mac, gateway_mac, tap));
        Ok(())
    }

    /// Each station says where it is, so that bridges and host know, and what they remember of earlier is right again.
    pub fn announce(&mut self) -> Result<()> {
        let neighbours: Vec<String> = self
            .stations
            .iter()
            .map(|(place, station)| {
                let device = match place {
                    Place::Container(bridge, _) => names::bridge(*bridge),
                    Place::Outside(uplink) => names::uplink(*uplink),
                };
                format!(
                    "neigh replace {} lladdr {} dev {device} nud reachable",
                    station.ip,
                    names::text(station.mac)
                )
            })
            .collect();
        batch(&self.host, &neighbours)?;
        let frames: Vec<_> = self
            .stations
            .values()
            .map(|station| (station.tap(), gratuitous_arp(station)))
            .collect();
        for sent in self.fence.send_pinned(&frames)? {
            sent?;
        }
        self.drain();
        Ok(())
    }

    /// How many devices are on the fast path if all are.
    pub fn devices(&self) -> usize {
        self.spaces.len() + self.shape.bridges.len()
    }

    /// An error with the same names in it on every host: those of namespaces are nobody else's.
    pub fn without_namespaces(&self, line: String) -> String {
        let spaces = self.spaces.iter().map(|(place, space)| (space.name(), place.name()));
        let all = spaces.chain([(self.host.name(), "host".to_owned())]);
        all.fold(line, |line, (name, ours)| line.replace(name, &ours))
    }

    /// Forgets what has come.
    pub fn drain(&mut self) {
        for station in self.stations.values() {
            while station.tap().receive().is_some() {}
        }
        let mut buffer = [0; 1 << 11];
        for socket in [&self.listener, &self.caller] {
            while socket.recv(&mut buffer).is_ok() {}
        }
    }

    /// A shell line in the host; what it says if it fails.
    pub fn sh(&self, line: &str) -> Result<(), String> {
        let done = cmd::finish(self.host.command("sh").args(["-c", line]), Duration::from_mins(1));
        let done = done.map_err(|error| error.to_string())?;
        if done.status.success() {
            Ok(())
        } else {
            Err(format!("{}{}", done.stdout.trim(), done.stderr.trim()))
        }
    }

    /// Whether somebody listens on the queue from now on.
    pub fn listen_to_queue(&mut self, is_on: bool) -> Result<()> {
        if is_on && self.queue.is_none() {
            self.queue = Some(self.host.run(queue::open)??);
        } else if !is_on {
            self.queue = None;
        }
        Ok(())
    }

    /// Returns when all that this thread has sent has come to its end, queued packets included.
    pub fn wait(&mut self) -> Result<()> {
        loop {
            self.fence.wait()?;
            let Some(queue) = &self.queue else {
                return Ok(());
            };
            if queue::accept_all(queue, &mut self.buffer) == 0 {
                return Ok(());
            }
        }
    }

    /// What has come to the stations; not what real sockets get.
    pub fn receive(&mut self) -> Got {
        let mut got = Got::new();
        for (place, station) in &self.stations {
            let mut frames = Vec::new();
            while let Some(frame) = station.tap().receive() {
                if frame.is_scripted() && !frame.is_of_ports(is_real) {
                    frames.push(frame);
                }
            }
            got.insert(*place, frames);
        }
        got
    }
}

/// `ip -batch` in a namespace.
pub fn batch(space: &NetNs, lines: &[String]) -> Result<()> {
    space
        .sh(&format!("ip -batch - <<'END'\n{}\nEND", lines.join("\n")))
        .map(drop)
}

/// No router and neighbour discovery: only IPv4 is generated. A stack must say nothing by itself, by its timers,
/// since a bridge learns from every frame where a station is.
const SILENT: [&str; 2] = [
    "net.ipv6.conf.all.disable_ipv6=1",
    "net.ipv6.conf.default.disable_ipv6=1",
];

/// For the same reason neighbours that are known are not asked again in the next half hour: a line for [`batch`].
fn trusts_neighbours(device: &str) -> String {
    format!("ntable change name arp_cache dev {device} base_reachable 3600000")
}

fn set_sysctls(host: &NetNs, shape: &Shape) -> Result<()> {
    let mut lines: Vec<String> = SILENT.map(str::to_owned).into();
    lines.extend([
        "net.ipv4.ip_forward=1".to_owned(),
        format!("net.bridge.bridge-nf-call-iptables={}", u8::from(shape.br_netfilter)),
        // Else packets within a bridge would never be forwarded directly.
        "net.bridge.bridge-nf-call-ip6tables=0".to_owned(),
        "net.bridge.bridge-nf-call-arptables=0".to_owned(),
        // Whether an ICMP error comes must not depend on when the last one came.
        "net.ipv4.icmp_ratelimit=0".to_owned(),
        "net.ipv4.conf.all.send_redirects=0".to_owned(),
        "net.ipv4.conf.default.send_redirects=0".to_owned(),
        // Nor must incomplete datagrams time out while a scenario is played.
        "net.ipv4.ipfrag_time=3600".to_owned(),
        format!("net.netfilter.nf_conntrack_checksum={}", u8::from(!shape.unsummed)),
        // By design netfast has each connection that it carries marked so: conntrack sees one segment a second, and would
        // call the others' successors invalid.
        format!("net.netfilter.nf_conntrack_tcp_be_liberal={}", u8::from(!shape.strict)),
    ]);
    host.sh(&format!("sysctl -qw {}", lines.join(" "))).map(drop)
}

/// An announcement of one's own address (RFC 5227).
fn gratuitous_arp(station: &Station) -> Vec<u8> {
    let mut frame = vec![0xff; 6];
    frame.extend(station.mac);
    frame.extend([0x08, 0x06, 0, 1, 0x08, 0, 6, 4, 0, 1]);
    frame.extend(station.mac);
    frame.extend(station.ip.octets());
    frame.extend([0; 6]);
    frame.extend(station.ip.octets());
    frame.resize(60, 0);
    frame
}

/// The CPU of an arena: each lane has two, and where lanes share them, each CPU has as many with netfast on.
fn cpu(mode: Mode, lane: usize) -> usize {
    let of_two = match mode {
        Mode::Off => lane % 2,
        Mode::On => (lane + 1) % 2,
    };
    (2 * lane + of_two) % cpus()
}

/// CPUs of the machine, whatever this thread is bound to.
fn cpus() -> usize {
    // SAFETY: no pointers.
    usize::try_from(unsafe { libc::sysconf(libc::_SC_NPROCESSORS_ONLN) }).unwrap_or(1)
}

fn low(number: usize) -> u8 {
    u8::try_from(number).expect("a handful of everything")
}

impl Arena {
    /// One container announces itself.
    pub fn announce_one(&mut self, place: Place) -> Result<()> {
        let Some(station) = self.stations.get(&place) else {
            return Ok(());
        };
        self.fence
            .send_pinned(&[(station.tap(), gratuitous_arp(station))])?
            .into_iter()
            .collect::<Result<Vec<_>, _>>()?;
        Ok(())
    }
}
