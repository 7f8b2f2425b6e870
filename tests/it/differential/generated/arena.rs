//! The namespaces of a shape, with stations, and with netfast or without. Scenarios are played in it one after the other.

use std::{
    collections::BTreeMap,
    net::{SocketAddr, UdpSocket},
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
        family::Family,
        names,
        scenario::{CONTAINER_PORT, HOST_PORT, PUBLISHED_PORT, Place, REAL_PORTS, Shape},
    },
};

use super::{
    super::{
        describe::{Frame, MacNames},
        fence::{Fence, pin, unpin},
        queue,
        station::Station,
        world::Mode,
    },
    programs::Attached,
    wiring::{routes, set_sysctls, silent},
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
    /// Sockets of the host's own, for each family that it has.
    pub sockets: BTreeMap<Family, Sockets>,
    queue: Option<OwnedFd>,
    buffer: Vec<u8>,
    pub fence: Fence,
    pub spaces: BTreeMap<Place, NetNs>,
    pub host: NetNs,
}

/// The host's own.
pub struct Sockets {
    /// It listens.
    pub listener: UdpSocket,
    /// It begins.
    pub caller: UdpSocket,
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
            space.sh(&format!("sysctl -qw {}", silent(shape).join(" ")))?;
            spaces.insert(place, space);
        }
        set_sysctls(&host, shape)?;
        let mut sockets = BTreeMap::new();
        for family in shape.families() {
            let socket = |port| {
                let socket = host.run(|| UdpSocket::bind(SocketAddr::new(family.unspecified(), port)))??;
                socket.set_nonblocking(true)?;
                anyhow::Ok(socket)
            };
            let (listener, caller) = (socket(HOST_PORT)?, socket(HOST_PORT + 1)?);
            sockets.insert(*family, Sockets { listener, caller });
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
            sockets,
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
            lines.extend(self.trusts_neighbours(&name));
            lines.push(format!("link set {name} up"));
            lines.extend(self.addresses(&name, |family| names::gateway(number, family)));
            self.names.insert(mac, name);
        }
        batch(&self.host, &lines)?;
        let places: Vec<Place> = self.spaces.keys().copied().collect();
        for place in places {
            self.plug(place, names::mac(place))?;
        }
        for family in self.shape.families() {
            let lines = routes(*family);
            self.host.sh(&lines.join(" && "))?;
        }
        self.announce()?;
        if self.mode == Mode::On {
            let options = Options {
                config: Some(format!(
                    "direct = true\nrevalidate_ms = {}\nlearn_after = {}\nxdp = \"{}\"\n",
                    self.shape.revalidate_ms,
                    self.shape.learn_after,
                    if self.shape.xdp { "on" } else { "off" }
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
        for Sockets { listener, caller } in self.sockets.values() {
            for socket in [listener, caller] {
                while socket.recv(&mut buffer).is_ok() {}
            }
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
