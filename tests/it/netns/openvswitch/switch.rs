//! An Open vSwitch of a test's own: in a namespace, with its database, control sockets and log in a directory of its own.

use std::{env, path::PathBuf};

use netfast_tests::{
    cmd,
    netns::NetNs,
    require::{Need, needs},
    topo::{self, Topo},
};
use tempfile::TempDir;

use super::super::lab::{Lab, TIMEOUT};

/// The database's schema, which is part of the switch's package.
const SCHEMA: &str = "NETFAST_OVS_SCHEMA";

/// The bridge with the containers.
pub const BRIDGE: &str = "ovs0";

/// A running switch. In the order of dropping: the daemon before its database.
pub struct Switch {
    daemon: cmd::Background,
    database: cmd::Background,
    dir: TempDir,
}

/// Whether this machine has one: `cargo xtask vm` brings it along.
pub fn is_there() -> bool {
    needs(&[Need::Root, Need::Program("ovs-vswitchd"), Need::Program("ovsdb-tool")])
}

impl Switch {
    /// Starts it in a namespace.
    pub fn start(ns: &NetNs) -> Self {
        // Its module comes with its first netlink message, where the kernel has it.
        ns.sh("modprobe -a openvswitch vport_vxlan").expect("the module");
        let dir = tempfile::tempdir().expect("a directory");
        let at = |name: &str| dir.path().join(name).display().to_string();
        let schema =
            env::var_os(SCHEMA).map_or_else(|| "/usr/share/openvswitch/vswitch.ovsschema".into(), PathBuf::from);
        let (database, socket) = (at("conf.db"), at("db.sock"));
        ns.sh(&format!("ovsdb-tool create {database} {}", schema.display()))
            .expect("a database");
        let run_dir = format!("OVS_RUNDIR={}", dir.path().display());
        let spawn = |line: &[&str]| {
            let line = [&["env", &run_dir][..], line, &["-vconsole:off", "-vsyslog:off"]].concat();
            ns.spawn(&line).expect("it starts")
        };
        let remote = format!("--remote=punix:{socket}");
        let unixctl = |name: &str| format!("--unixctl={}", at(name));
        let server = spawn(&["ovsdb-server", &remote, &unixctl("ovsdb.ctl"), &database]);
        cmd::poll("the database", TIMEOUT, || {
            dir.path().join("db.sock").exists().then_some(())
        })
        .expect("it listens");
        let log = format!("--log-file={}", at("vswitchd.log"));
        let daemon = spawn(&[
            "ovs-vswitchd",
            &unixctl("vswitchd.ctl"),
            &log,
            &format!("unix:{socket}"),
        ]);
        let switch = Self {
            daemon,
            database: server,
            dir,
        };
        switch.vsctl(ns, "--no-wait init");
        switch
    }

    /// Takes its bridges away, ends it and unloads the modules, which nobody may hold then.
    pub fn remove(self, ns: &NetNs) {
        self.vsctl(ns, &format!("del-br {BRIDGE}"));
        let Self { daemon, database, dir } = self;
        let ctl = dir.path().join("vswitchd.ctl");
        ns.sh(&format!("ovs-appctl -t {} exit --cleanup", ctl.display()))
            .expect("it goes");
        drop((daemon, database));
        cmd::poll("the modules' end", TIMEOUT, || {
            ns.sh("modprobe -r vport_vxlan openvswitch").ok()
        })
        .expect("unloaded");
    }

    /// `ovs-vsctl`, which waits until the daemon has done it.
    pub fn vsctl(&self, ns: &NetNs, arguments: &str) -> String {
        let dir = self.dir.path().display();
        ns.sh(&format!("ovs-vsctl --timeout=60 --db=unix:{dir}/db.sock {arguments}"))
            .expect("done")
    }

    /// `ovs-ofctl`.
    pub fn ofctl(&self, ns: &NetNs, arguments: &str) -> String {
        let dir = self.dir.path().display();
        ns.sh(&format!("OVS_RUNDIR={dir} ovs-ofctl {arguments}")).expect("done")
    }

    /// The datapath's flows are made anew. The switch goes on with those that it has where a mirror comes.
    pub fn purge(&self, ns: &NetNs) {
        let dir = self.dir.path().display();
        ns.sh(&format!("ovs-appctl -t {dir}/vswitchd.ctl revalidator/purge"))
            .expect("done");
    }

    /// What the flows of the kernel's datapath do at the moment.
    pub fn datapath_flows(&self, ns: &NetNs) -> String {
        let dir = self.dir.path().display();
        ns.sh(&format!("ovs-appctl -t {dir}/vswitchd.ctl dpctl/dump-flows"))
            .expect("its flows")
    }
}

/// A host with three containers at ports of a switch's bridge, whose own port is their gateway. netfast is in it.
pub struct World {
    pub lab: Lab,
    pub switch: Switch,
}

impl World {
    /// With a configuration file; `prepare` gets the host before netfast does.
    pub fn with(config: Option<&str>, prepare: impl FnOnce(&Topo, &Switch)) -> Self {
        let (topo, switch) = host(3);
        prepare(&topo, &switch);
        Self {
            lab: Lab::around(topo, config),
            switch,
        }
    }

    /// Without either.
    pub fn start() -> Self {
        Self::with(None, |_, _| {})
    }

    pub fn host(&self) -> &NetNs {
        self.lab.topo.host()
    }

    pub fn vsctl(&self, arguments: &str) -> String {
        self.switch.vsctl(self.host(), arguments)
    }

    pub fn ofctl(&self, arguments: &str) -> String {
        self.switch.ofctl(self.host(), arguments)
    }

    /// What `netfast VERB…` prints.
    pub fn said(&self, arguments: &[&str]) -> String {
        self.lab.netfast.verb(arguments).expect("a report")
    }
}

/// The host with so many containers, and its switch.
pub fn host(containers: usize) -> (Topo, Switch) {
    let options = topo::Options {
        bridges: vec![containers],
        iptables: false,
        published: Vec::new(),
        br_netfilter: false,
    };
    let topo = Topo::new(&options).expect("a topology");
    let host = topo.host();
    let switch = Switch::start(host);
    let bridge = &topo.bridges[0];
    host.ip(&format!("link del {}", bridge.name)).expect("another bridge");
    switch.vsctl(host, &format!("add-br {BRIDGE}"));
    host.ip(&format!("addr add {}/24 dev {BRIDGE}", bridge.gateway))
        .expect("an address");
    host.ip(&format!("link set {BRIDGE} up")).expect("it is up");
    for container in &bridge.containers {
        switch.vsctl(host, &format!("add-port {BRIDGE} {}", container.veth));
    }
    (topo, switch)
}
