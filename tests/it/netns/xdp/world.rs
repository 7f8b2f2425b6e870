//! A host whose uplink and containers can do XDP, and how to see it.

use std::net::UdpSocket;

use netfast::{apply::read::Tables, state::State, sys::ethtool};
use netfast_tests::{
    cmd,
    site::{HOST_IP, LAN_IP},
    topo::{Container, Topo},
};
use nix::sys::signal::Signal;

use crate::netns::lab::{Echo, Lab, TIMEOUT, ask, at, topology, udp};

/// Where the container listens.
pub const PORT: u16 = 7001;

/// The usual topology.
pub struct World {
    pub lab: Lab,
}

impl World {
    /// With `xdp = "on"`.
    pub fn start() -> Self {
        Self::with("xdp = \"on\"")
    }

    /// With `xdp = "on"`, an echo in the container, and a socket whose datagrams go there by XDP.
    pub fn at_work() -> (Self, Echo, UdpSocket) {
        let world = Self::start();
        let echo = world.echo();
        let socket = world.socket();
        world.is_fast(&socket);
        (world, echo, socket)
    }

    /// With these keys.
    pub fn with(config: &str) -> Self {
        Self::around(Topo::new(&topology()).expect("a topology"), config)
    }

    /// In a topology that is there.
    pub fn around(topo: Topo, config: &str) -> Self {
        let lab = Lab::around(topo, Some(config));
        let world = Self { lab };
        world.set_tx_checksums(false);
        world
    }

    /// The daemon is killed, without a word.
    pub fn kill(&mut self) {
        self.lab.netfast.stop(Signal::SIGKILL).expect("killed");
    }

    /// The container of the published port.
    pub fn container(&self) -> &Container {
        self.lab.topo.container(0, 0)
    }

    /// Whether whom the datagrams come from leaves their checksums to the hardware.
    pub fn set_tx_checksums(&self, on: bool) {
        let set = || ethtool::set_tx_checksums("eth0", on);
        self.lab.topo.lan().run(set).expect("entered").expect("a setting");
    }

    /// Whether GRO is on in the container.
    pub fn gro(&self) -> bool {
        self.container()
            .ns
            .run(|| ethtool::has_gro("eth0"))
            .expect("entered")
            .expect("a setting")
    }

    /// Somebody in the container switches it.
    pub fn set_gro(&self, on: bool) {
        let set = || ethtool::set_gro("eth0", on);
        self.container().ns.run(set).expect("entered").expect("a setting");
    }

    /// Whether an XDP program is attached to the uplink.
    pub fn has_program(&self) -> bool {
        let shown = self.lab.topo.host().sh("ip -d link show dev eth0").expect("the uplink");
        shown.contains("prog/xdp")
    }

    /// Datagrams that went by XDP.
    pub fn sent(&self) -> u64 {
        let tables = Tables::open(self.lab.netfast.pin_dir()).expect("the maps are pinned");
        tables.xdp().expect("the count").packets
    }

    /// A client outside.
    pub fn socket(&self) -> UdpSocket {
        udp(self.lab.topo.lan(), 7010, at(HOST_IP, 7000))
    }

    /// An echo server in the container.
    pub fn echo(&self) -> Echo {
        Echo::start(&self.container().ns, PORT)
    }

    /// Asks until questions go by XDP.
    pub fn is_fast(&self, socket: &UdpSocket) {
        let fast = cmd::poll("datagrams by XDP", TIMEOUT, || {
            let before = self.sent();
            let answered = (0..20).filter(|_| ask(socket)).count();
            (answered == 20 && self.sent() >= before + 19).then_some(())
        });
        fast.unwrap_or_else(|error| {
            panic!(
                "{error}: {:?}; {}\n{}",
                self.why(),
                self.lab.told(),
                self.lab.netfast.log()
            );
        });
        // What is shown may not be otherwise.
        self.shows("on", "goes by XDP, once it is known");
    }

    /// Each command that tells of uplinks tells the same of this one.
    fn shows(&self, state: &str, sentence: &str) {
        let config = self.lab.netfast.run_dir().join("netfast.toml").display().to_string();
        let to = LAN_IP.to_string();
        let shown = |words: &str, args: &[&str]| {
            let text = self.lab.netfast.verb(args).expect("it ends");
            // Lines are broken where the terminal is at its end.
            let flat = text.split_whitespace().collect::<Vec<_>>().join(" ");
            assert!(flat.contains(words), "no {words:?} in {args:?}: {text}");
        };
        shown(&format!("XDP at eth0: {state}"), &["networks"]);
        shown(&format!("eth0 {state}"), &["status"]);
        shown(
            &format!("eth0 XDP {state}"),
            &["check", "--runtime", "none", "--config", &config],
        );
        shown(sentence, &["explain", &self.container().veth, &to]);
    }

    /// Datagrams are answered, and none goes by XDP; what is said of the uplink.
    pub fn is_not(&self, socket: &UdpSocket) {
        let none = cmd::poll("no datagrams by XDP", TIMEOUT, || {
            let before = self.sent();
            let answered = (0..20).filter(|_| ask(socket)).count();
            (answered == 20 && self.sent() == before).then_some(())
        });
        none.unwrap_or_else(|error| panic!("{error}: {}", self.lab.told()));
    }

    /// Why there is no XDP at the uplink, as the state says.
    pub fn why(&self) -> Option<String> {
        let state = State::read(self.lab.netfast.run_dir())
            .expect("readable")
            .expect("a state");
        state.xdp.into_iter().find(|report| report.name == "eth0")?.why
    }

    /// Waits until that is said.
    pub fn says(&self, words: &str) {
        let said = cmd::poll("the reason", TIMEOUT, || self.why().filter(|why| why.contains(words)));
        let why = said.unwrap_or_else(|error| panic!("{error}: {words:?} in {:?}", self.why()));
        self.shows(&format!("off: {why}"), &format!("does not go by XDP: {why}"));
    }
}
