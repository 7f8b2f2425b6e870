//! From the daemon's state and the pinned tables to the report.

use std::collections::BTreeMap;

use netfast_common::{
    control::Control,
    device::{self, DeviceKey, Kind},
    reason::Count,
};

use super::{Daemon, Device, Endpoint, HostAbilities, Interface, Network, Runtime, Status, Totals, Traffic};
use crate::{
    plan::report::{InSandbox, Path, Why},
    report::{
        path::PathState,
        tunnels::{self, Told},
        xdp::Xdp,
    },
    state::{DeviceReport, LocalState, State},
};

/// What the pinned tables say; counters are summed over the CPUs.
#[derive(Clone, Debug, Default)]
pub struct Tables {
    /// The switches.
    pub control: Control,
    /// Counts by reason number.
    pub counts: Vec<Count>,
    /// The devices.
    pub devices: BTreeMap<DeviceKey, device::Device>,
    /// Packets by slot of a device.
    pub traffic: BTreeMap<u16, Traffic>,
    /// Counters of the interfaces in containers, by the index of the host's side of the veth.
    pub interfaces: BTreeMap<u32, Interface>,
    /// How many flows there are, those that wait for their reverse included.
    pub flows: u64,
    /// The tunnels whose outer headers are repeated.
    pub tunnels: Told,
    /// What became of programs that asked for published ports at loopback addresses.
    pub outcomes: BTreeMap<String, u64>,
    /// What went by XDP.
    pub xdp: Count,
    /// Those in the namespaces of overlay networks, by the names of their directories.
    pub sandboxes: BTreeMap<String, Ports>,
}

/// The devices in the namespace of an overlay network.
#[derive(Clone, Debug, Default)]
pub struct Ports {
    /// The devices.
    pub devices: BTreeMap<DeviceKey, device::Device>,
    /// Packets by slot of a device.
    pub traffic: BTreeMap<u16, Traffic>,
}

impl Status {
    /// Puts the report together. Without a state (its file is gone, but the programs are attached) only the tables
    /// speak. `name_of` names an interface.
    pub fn gather(
        state: Option<&State>,
        tables: &Tables,
        running: bool,
        now_ms: u64,
        name_of: impl Fn(u32) -> Option<String>,
    ) -> Self {
        let mut status = state.map_or_else(Self::default, |state| Self {
            daemon: daemon(state, running, now_ms),
            runtime: Runtime {
                state: state.runtime.state.clone(),
                engine: state.runtime.engine.clone(),
                error: state.runtime.error.clone(),
            },
            totals: Totals {
                flow_capacity: state.config.flows.into(),
                table_bytes: state.table_bytes,
                ..Totals::default()
            },
            host: HostAbilities::gather(&state.record, now_ms),
            networks: networks(state, tables, running),
            devices: devices(state, tables),
            tunnels: tunnels::gather(&state.tunnels, &tables.tunnels),
            localhost: localhost(state, tables),
            xdp: Xdp::gather(&state.xdp, state.xdp_ends, tables.xdp),
            resolvers: state.resolvers.clone(),
            ..Self::default()
        });
        if state.is_none() {
            status.daemon.running = running;
            status.devices = tables.unnamed_devices(name_of);
        }
        status.daemon.attached = true;
        status.daemon.using = tables.control.may_use();
        status.daemon.learning = tables.control.may_learn();
        status.daemon.epoch = tables.control.epoch;
        status.daemon.revalidate_ms = tables.control.revalidate_ns / 1_000_000;
        status.totals.flows = tables.flows;
        status.count(&tables.counts);
        status.with_verdict()
    }
}

/// With the counts, where anybody asks for it.
fn localhost(state: &State, tables: &Tables) -> LocalState {
    let outcomes = if state.config.localhost {
        tables.outcomes.clone()
    } else {
        BTreeMap::new()
    };
    LocalState {
        outcomes,
        ..state.localhost.clone()
    }
}

fn daemon(state: &State, running: bool, now_ms: u64) -> Daemon {
    Daemon {
        running,
        pid: running.then_some(state.pid),
        version: state.version.clone(),
        uptime_ms: running.then(|| now_ms.saturating_sub(state.started_ms)),
        in_sync: running && state.in_sync,
        attached_by: state.attached_by.clone(),
        lacks: state.lacks.clone(),
        learning_off: state.learning_off.clone(),
        pin_dir: state.pin_dir.display().to_string(),
        ..Daemon::default()
    }
}

fn networks(state: &State, tables: &Tables, running: bool) -> Vec<Network> {
    let endpoint_of = |report: &crate::plan::report::EndpointReport| Endpoint {
        container: report.container.clone(),
        veth: report.veth.clone(),
        path: PathState::from(&report.path),
        traffic: report
            .device()
            .filter(|_| report.path.is_fast())
            .and_then(|device| tables.of_device(device))
            .or_else(|| tables.in_sandbox(report.sandbox.as_ref()?)),
        interface: report
            .ifindex
            .and_then(|ifindex| tables.interfaces.get(&ifindex).copied()),
    };
    let network_of = |report: &crate::plan::report::NetworkReport| Network {
        name: report.name.clone(),
        driver: report.driver.clone(),
        bridge: report.bridge.clone(),
        path: PathState::from(&report.path),
        host: PathState::from(&report.host),
        direct: report.direct.as_ref().filter(|_| running).map(PathState::from),
        endpoints: report.endpoints.iter().map(endpoint_of).collect(),
    };
    state.networks.iter().map(network_of).collect()
}

/// Bridges and uplinks: endpoints are shown with their networks.
fn devices(state: &State, tables: &Tables) -> Vec<Device> {
    let others = state
        .devices
        .iter()
        .filter(|(_, device)| device.kind != Kind::Endpoint.name());
    let report = others.map(|(key, device)| Device {
        name: device.name.clone(),
        kind: device.kind.clone(),
        attached: device.attached,
        error: device.error.as_ref().map(|slow| slow.text.clone()),
        path: path_of_device(*key, device, state, tables),
        traffic: tables.of_device(*key),
    });
    report.collect()
}

/// What the programs were told of a bridge device or an uplink, with the plan's cause where it is not to be fast.
fn path_of_device(key: DeviceKey, device: &DeviceReport, state: &State, tables: &Tables) -> PathState {
    if let Some(error) = &device.error {
        return PathState::from(&Path::Slow(error.clone()));
    }
    let mut networks = state.networks.iter();
    let planned =
        networks.find(|network| network.bridge_ifindex.map(DeviceKey::served) == Some(key) && !network.host.is_fast());
    let told = tables.devices.get(&key);
    if let Some(network) = planned {
        PathState::from(&network.host)
    } else if device.attached && told.is_some_and(|told| told.has(device::Device::ACCELERATED)) {
        PathState::fast()
    } else {
        PathState::from(&Path::slow_since(Why::NotAttached, "netfast is not attached to it yet"))
    }
}

impl Tables {
    fn in_sandbox(&self, inside: &InSandbox) -> Option<Traffic> {
        let ports = self.sandboxes.get(&inside.directory)?;
        let device = ports.devices.get(&DeviceKey::served(inside.ifindex))?;
        ports.traffic.get(&device.slot).copied()
    }

    fn of_device(&self, key: DeviceKey) -> Option<Traffic> {
        self.traffic.get(&self.devices.get(&key)?.slot).copied()
    }

    /// All devices, by what the programs know of them.
    fn unnamed_devices(&self, name_of: impl Fn(u32) -> Option<String>) -> Vec<Device> {
        let report = self.devices.iter().map(|(key, device)| Device {
            name: name_of(key.ifindex).unwrap_or_else(|| format!("#{key}")),
            kind: device.kind().map_or("unknown", Kind::name).into(),
            attached: true,
            error: None,
            path: if device.has(device::Device::ACCELERATED) {
                PathState::fast()
            } else {
                PathState::slow("unknown-device", "its flows are not used")
            },
            traffic: self.of_device(*key),
        });
        report.collect()
    }
}

#[cfg(test)]
mod tests {
    use netfast_common::reason::{FAST, Reason, SLOTS};

    use super::*;
    use crate::{
        config::Config,
        plan::report::{EndpointReport, NetworkReport, Slow},
        report::tunnels::tests::{planned, told},
        state::RuntimeReport,
    };

    fn state() -> State {
        let device = |name: &str, kind: &str, error| DeviceReport {
            name: name.into(),
            kind: kind.into(),
            slot: Some(1),
            attached: true,
            error,
        };
        let endpoint = |container: &str, ifindex, path| EndpointReport {
            container: container.into(),
            ifindex,
            path,
            ..Default::default()
        };
        State {
            version: "0.1.0".into(),
            abi: 1,
            boot: String::new(),
            pid: 7,
            started_ms: 1_000,
            synced_ms: Some(1_500),
            in_sync: true,
            pin_dir: "/pins".into(),
            config: Config::default(),
            attached_by: "tcx".into(),
            queue_watch_error: None,
            lacks: vec!["the kernel has no tcx; without it, much is lost. Wait.".into()],
            record: crate::abilities::Record::default(),
            record_file: None,
            learning_off: None,
            runtime: RuntimeReport {
                state: "connected".into(),
                engine: Some("Docker 28".into()),
                error: None,
            },
            networks: vec![NetworkReport {
                name: "bridge".into(),
                endpoints: vec![
                    endpoint("web", Some(12), Path::Fast),
                    endpoint("off", Some(13), Path::slow(Why::DisabledByLabel)),
                ],
                ..NetworkReport::default()
            }],
            devices: [
                (12, device("veth12", "endpoint", None)),
                (
                    5,
                    device("docker0", "bridge", Some(Slow::new(Why::NotAttached, "no memory"))),
                ),
            ]
            .map(|(ifindex, device)| (DeviceKey::served(ifindex), device))
            .into(),
            tunnels: Vec::new(),
            not_uplinks: Vec::new(),
            sysctls: Vec::new(),
            clsact: BTreeMap::new(),
            table_bytes: 9,
            aliases: Vec::new(),
            localhost: LocalState::default(),
            resolvers: Vec::new(),
            resolver_rules: Vec::new(),
            vips: crate::state::VipState::default(),
            segments: Vec::new(),
            xdp_gro: Vec::new(),
            xdp: Vec::new(),
            xdp_ends: 0,
        }
    }

    fn tables() -> Tables {
        let mut counts = vec![Count::default(); SLOTS as usize];
        counts[FAST as usize] = Count {
            packets: 90,
            bytes: 900,
        };
        counts[18] = Count {
            packets: 10,
            bytes: 100,
        };
        Tables {
            control: Control {
                epoch: 3,
                switches: Control::USE,
                revalidate_ns: 1_000_000_000,
                ..Control::default()
            },
            counts,
            devices: [
                (12, device::Device::new(Kind::Endpoint, 0, 0)),
                (13, device::Device::new(Kind::Endpoint, 0, 2)),
                (5, device::Device::new(Kind::Bridge, 0, 1)),
            ]
            .map(|(ifindex, device)| (DeviceKey::served(ifindex), device))
            .into(),
            traffic: [
                (
                    0,
                    Traffic {
                        in_fast_packets: 60,
                        ..Traffic::default()
                    },
                ),
                (
                    1,
                    Traffic {
                        in_fast_packets: 30,
                        ..Traffic::default()
                    },
                ),
                (2, Traffic::default()),
            ]
            .into(),
            interfaces: [(
                13,
                Interface {
                    received_packets: 7,
                    ..Interface::default()
                },
            )]
            .into(),
            sandboxes: BTreeMap::new(),
            flows: 4,
            tunnels: Told::new(),
            outcomes: BTreeMap::new(),
            xdp: Count::default(),
        }
    }

    #[test]
    fn state_and_tables_meet_by_interface() {
        let status = Status::gather(Some(&state()), &tables(), true, 4_000, |_| None);
        assert_eq!(
            (status.daemon.uptime_ms, status.daemon.pid, status.daemon.in_sync),
            (Some(3_000), Some(7), true)
        );
        assert!(status.daemon.using && !status.daemon.learning);
        assert_eq!(status.daemon.lacks, state().lacks);
        assert_eq!(
            (
                status.totals.fast_packets,
                status.totals.slow_packets,
                status.totals.flows
            ),
            (90, 10, 4)
        );
        let [web, off] = status.networks[0].endpoints.as_slice() else {
            panic!("{:?}", status.networks)
        };
        assert_eq!(web.traffic.map(|traffic| traffic.in_fast_packets), Some(60));
        assert_eq!(off.traffic, None, "what is on the slow path has no counters");
        let received = |endpoint: &Endpoint| endpoint.interface.map(|of| of.received_packets);
        assert_eq!((received(web), received(off)), (None, Some(7)), "on whatever path");
        let [bridge] = status.devices.as_slice() else {
            panic!("{:?}", status.devices)
        };
        assert_eq!(bridge.traffic.map(|traffic| traffic.in_fast_packets), Some(30));
        assert_eq!(bridge.error.as_deref(), Some("no memory"));
        assert_eq!(bridge.path.why.as_deref(), Some("not-attached"));
    }

    /// ufw's rules once kept the host's own packets slow, while its bridge was shown as attached and no more.
    #[test]
    fn a_bridge_whose_own_packets_are_slow_is_not_shown_as_fast() {
        let (mut state, mut tables) = (state(), tables());
        state.devices.get_mut(&DeviceKey::served(5)).expect("docker0").error = None;
        state.networks[0].bridge_ifindex = Some(5);
        let path = |state: &State, tables: &Tables| {
            let status = Status::gather(Some(state), tables, true, 4_000, |_| None);
            (status.devices[0].path.why.clone(), status.networks[0].host.why.clone())
        };
        let not_told = path(&state, &tables);
        assert_eq!(not_told, (Some("not-attached".into()), None));
        tables.devices.insert(
            DeviceKey::served(5),
            device::Device::new(Kind::Bridge, device::Device::ACCELERATED, 1),
        );
        assert_eq!(path(&state, &tables), (None, None));
        state.networks[0].host = Path::slow_since(Why::RateRules, "ufw's limit");
        let ruled = path(&state, &tables);
        assert_eq!(ruled, (Some("rate-rules".into()), Some("rate-rules".into())));
        let status = Status::gather(Some(&state), &tables, true, 4_000, |_| None);
        let text = status.render(crate::report::Style::default(), false);
        assert!(
            text.contains("attached; slow from and to the host: ufw's limit"),
            "{text}"
        );
    }

    #[test]
    fn tunnels_are_shown_with_what_is_known_of_them() {
        let (mut state, mut tables) = (state(), tables());
        (state.tunnels, tables.tunnels) = (planned(), told());
        tables.counts[Reason::Encapsulated.number() as usize] = Count {
            packets: 40_000,
            bytes: 100_000_000,
        };
        let status = Status::gather(Some(&state), &tables, true, 4_000, |_| None);
        assert_eq!(status.tunnels, tunnels::gather(&planned(), &told()));
        assert_eq!(
            (status.totals.tunnel_packets, status.totals.tunnel_bytes),
            (40_000, 100_000_000)
        );
        assert_eq!((status.totals.fast_packets, status.totals.slow_packets), (90, 10));
        assert!(status.learning.is_empty(), "none of them was a candidate");
        let text = status.render(crate::report::Style::default(), true);
        assert!(
            text.contains("\nTUNNELS (40,000 packets left with a repeated outer header)\n  DEVICE "),
            "{text}"
        );
        assert!(
            text.contains("the kernel writes each outer header: its outer packets are IPv6\n"),
            "{text}"
        );
    }

    #[test]
    fn a_dead_daemon_is_not_in_step() {
        let status = Status::gather(Some(&state()), &tables(), false, 4_000, |_| None);
        assert_eq!(
            (status.daemon.uptime_ms, status.daemon.pid, status.daemon.in_sync),
            (None, None, false)
        );
        assert!(status.daemon.attached);
    }

    #[test]
    fn without_a_state_the_tables_speak() {
        let status = Status::gather(None, &tables(), false, 4_000, |ifindex| {
            (ifindex == 12).then(|| "veth12".into())
        });
        let devices: Vec<_> = status
            .devices
            .iter()
            .map(|device| (device.name.as_str(), device.kind.as_str()))
            .collect();
        assert_eq!(devices, [("#5", "bridge"), ("veth12", "endpoint"), ("#13", "endpoint")]);
        assert_eq!(status.totals.fast_packets, 90);
    }
}
