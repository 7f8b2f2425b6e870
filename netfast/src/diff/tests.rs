//! The diff against a model of the host: it converges, it disturbs nobody, and its order is safe at every step.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use netfast_common::{
    alias::MemberKey,
    control::Pace,
    device::{Device, Kind},
    flow::Exit,
    macvlan::{AddressKey, Station, StationKey},
    vip::Backend,
};
use proptest::{
    collection::{btree_map, btree_set},
    option,
    prelude::*,
    sample::subsequence,
};

use super::*;
use crate::{
    config::VipPool,
    host::{Mac, Namespace, Ruleset},
    plan::{
        AliasTable, Aliases, Client, DirectPort, EpochInputs, Identity, Loopback, Macvlans, SegmentEnd, VipService,
        VipTable, Vips, Way,
    },
};

/// The host as the programs see it: what is realized, and the generations.
#[derive(Clone, Debug, Default)]
struct Host {
    realized: Realized,
    generations: BTreeMap<u16, u32>,
    /// The generation that each port was said to hold for.
    said: BTreeMap<DeviceKey, u32>,
}

impl Host {
    fn act(&mut self, action: &Action) {
        match action {
            Action::AddDevice { device, .. }
            | Action::ChangeDevice { to: device, .. }
            | Action::RemoveDevice { device, .. } => *self.generations.entry(device.slot).or_default() += 1,
            Action::SetPort { key, to: Some(_), .. } => {
                let slot = self.realized.devices[key].device.slot;
                self.said.insert(*key, self.generations[&slot]);
            }
            Action::NewEpoch { .. }
            | Action::NoteInputs(_)
            | Action::SetSwitches { .. }
            | Action::SetPort { to: None, .. }
            | Action::NoteIdentity { .. }
            | Action::Attach { .. }
            | Action::Detach(_)
            | Action::SetTunnel { .. }
            | Action::SetAliases { .. }
            | Action::SetVips { .. }
            | Action::SetWay { .. }
            | Action::AddPool(_)
            | Action::RemovePool(_)
            | Action::TakeOut { .. }
            | Action::PutBack { .. }
            | Action::SetMacvlans { .. }
            | Action::SetLocalhost { .. }
            | Action::Xdp(_)
            | Action::SetSegments { .. } => {}
        }
        self.realized.note(action);
    }

    fn reach(&mut self, desired: &Desired) -> Vec<Action> {
        let actions = diff(desired, &self.realized);
        for action in &actions {
            self.act(action);
        }
        actions
    }

    fn slots(&self) -> BTreeMap<DeviceKey, u16> {
        let devices = self.realized.devices.iter();
        devices.map(|(key, entry)| (*key, entry.device.slot)).collect()
    }

    /// The programs that carry devices' flows.
    fn on_devices(&self) -> Vec<&Attachment> {
        let found = self.realized.attachments.iter();
        found.filter(|found| found.device_of_kind().is_some()).collect()
    }

    /// The programs for virtual addresses.
    fn for_vips(&self) -> Vec<&Attachment> {
        let found = self.realized.attachments.iter();
        found.filter(|found| found.endpoint_of_vips().is_some()).collect()
    }

    /// Where the program at resolvers' answers is.
    fn on_loopbacks(&self) -> Vec<Loopback> {
        self.realized
            .attachments
            .iter()
            .filter_map(Attachment::loopback)
            .collect()
    }

    /// Whether what is said of ports holds for the generations that their devices have.
    fn is_true_of_ports(&self) -> bool {
        let mut ports = self.realized.ports.iter().filter(|(_, found)| !found.is_ended);
        ports.all(|(key, _)| {
            let slot = self.realized.devices[key].device.slot;
            self.said[key] == self.generations[&slot]
        })
    }

    /// What another daemon finds of it.
    fn adopted(&self) -> Self {
        let mut adopted = self.clone();
        adopted.realized.inputs = None;
        adopted.realized.ports.clear();
        for entry in adopted.realized.devices.values_mut() {
            entry.identity = None;
        }
        adopted
    }
}

fn kind() -> impl Strategy<Value = Kind> {
    prop_oneof![4 => Just(Kind::Endpoint), 1 => Just(Kind::Bridge), 1 => Just(Kind::Uplink)]
}

fn device_spec() -> impl Strategy<Value = DeviceSpec> {
    (
        kind(),
        0u8..16,
        any::<[u8; 2]>(),
        option::of(any::<[u8; 4]>()),
        1280u32..1285,
    )
        .prop_map(|(kind, flags, mac, address, mtu)| DeviceSpec {
            name: format!("if{mtu}"),
            kind,
            flags,
            mac: Mac([2, 0, 0, 0, mac[0], mac[1]]),
            address4: address.map(Into::into),
            address6: None,
            identity: Identity {
                mtu,
                ..Identity::default()
            },
        })
}

prop_compose! {
    fn aliases()(
        pids in btree_set(1u32..5, 0..4), alias in option::of(0u64..3), vips in vips(),
    ) -> Aliases {
        let loopbacks = pids.into_iter().map(|pid| (Loopback { netns: u64::from(pid / 2), pid }, format!("c{pid}")));
        let members = alias.into_iter().map(|alias| MemberKey { alias, address: [1, 0] });
        let services = vips.table.services.values().map(|service| service.id);
        let table = AliasTable {
            members: members.collect(),
            services: services.collect(),
            ..AliasTable::default()
        };
        Aliases { loopbacks: loopbacks.collect(), table, reports: Vec::new(), vips }
    }
}

prop_compose! {
    /// Services by number, with so many slots, and clients.
    fn vips()(services in btree_map(10u8..13, 0usize..3, 0..3), clients in btree_set(1u32..5, 0..4), mac in 0u8..2) -> Vips {
        if services.is_empty() {
            return Vips::default();
        }
        let way = Way { blocks: BTreeSet::from([IpAddr::from([198, 19, 0, 0])]), mac: Mac([2, 0, 0, 0, 0, mac]) };
        let member = |service: u8| MemberKey { alias: u64::from(service), address: [1, 0] };
        Vips {
            table: VipTable {
                members: services.iter().map(|(service, slots)| (member(*service), *slots != 0)).collect(),
                services: services.into_iter().map(|(service, slots)| {
                    let slots = vec![Backend::default(); slots];
                    (IpAddr::from([198, 19, 0, service]), VipService { id: service.into(), slots, ..VipService::default() })
                }).collect(),
            },
            endpoints: clients.iter().map(|client| (DeviceKey::served(*client), format!("veth{client}"))).collect(),
            clients: clients.into_iter().map(|client| {
                (Client { netns: client.into(), pid: client, ifindex: 2 }, (way.clone(), format!("c{client}")))
            }).collect(),
            pools: BTreeSet::from([VipPool::DEFAULT]),
            ..Vips::default()
        }
    }
}

prop_compose! {
    fn macvlans()(containers in btree_map((20u32..23, 2u8..5), any::<u128>(), 0..4)) -> Macvlans {
        let mut all = Macvlans::default();
        for ((ifindex, number), address) in containers {
            let parent = DeviceKey::served(ifindex);
            let (host, mac) = ([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, number]);
            all.parents.insert(parent, format!("eth{ifindex}"));
            for (mac, who) in [(host, Station::HOST), (mac, Station::CONTAINER)] {
                all.table.stations.insert(StationKey::new(parent, mac), Station { who, host });
            }
            let address = IpAddr::from(address.to_be_bytes()).into();
            all.table.addresses.insert(AddressKey { parent, address }, mac);
        }
        all
    }
}

fn segment_end(number: u32) -> (SegmentEnd, String) {
    let client = Client {
        netns: number.into(),
        pid: number,
        ifindex: 2,
    };
    let end = if number.is_multiple_of(2) {
        SegmentEnd::Host(number)
    } else {
        SegmentEnd::Container(client)
    };
    (end, format!("end{number}"))
}

prop_compose! {
    fn desired()(
        devices in btree_map((1u32..12).prop_map(DeviceKey::served), device_spec(), 0..8),
        generation in 0u32..3,
        learning_off in option::of(Just("a queue".to_owned())),
        revalidate_ns in 1u64..4,
        learn_after in 0u8..3,
        aliases in aliases(),
        direct in proptest::collection::vec((0usize..8, 1400u32..1402), 0..6),
        macvlans in macvlans(),
        segments in btree_set(0u32..6, 0..5),
    ) -> Desired {
        let netns = Namespace {
            ruleset: Ruleset { nft_generation: Some(generation), ..Ruleset::default() },
            ..Namespace::default()
        };
        let endpoints: Vec<_> = devices.iter().filter(|(_, spec)| spec.kind == Kind::Endpoint).collect();
        let port = |(at, max_length): (usize, u32)| {
            let (key, spec) = endpoints.get(at)?;
            let port = DirectPort { bridge: 100, mac: spec.mac, max_length, exit: Exit::Peer };
            Some((**key, port))
        };
        Desired {
            direct: direct.into_iter().filter_map(port).collect(),
            inputs: EpochInputs::of(&netns, &devices),
            devices,
            learning_off,
            pace: Pace { revalidate_ns, learn_after },
            aliases,
            macvlans,
            segments: segments.into_iter().map(segment_end).collect(),
            ..Desired::default()
        }
    }
}

proptest! {
    #[test]
    fn one_pass_reaches_what_is_desired_and_the_next_does_nothing(
        steps in proptest::collection::vec(desired(), 1..5),
    ) {
        let mut host = Host::default();
        for desired in &steps {
            host.reach(desired);
            let devices: Vec<_> = host.realized.devices.keys().collect();
            prop_assert_eq!(devices, desired.devices.keys().collect::<Vec<_>>());
            for (device, spec) in &desired.devices {
                let slot = host.realized.devices[device].device.slot;
                prop_assert_eq!(host.realized.devices[device].device, spec.device(slot));
                for hook in Hook::BOTH {
                    let wanted = Attachment::of_device(*device, spec.kind, hook);
                    prop_assert!(host.realized.attachments.contains(&wanted));
                }
            }
            prop_assert_eq!(host.on_devices().len(), 2 * desired.devices.len());
            prop_assert_eq!(host.realized.control, desired.control(host.realized.control.epoch));
            prop_assert!(host.realized.ports.iter().map(|(key, found)| (key, &found.port)).eq(&desired.direct));
            prop_assert!(host.realized.ports.values().all(|found| !found.is_ended));
            prop_assert_eq!(&host.realized.aliases, &desired.aliases.table);
            prop_assert!(host.on_loopbacks().iter().eq(desired.aliases.loopbacks.keys()));
            let vips = &desired.aliases.vips;
            prop_assert_eq!(&host.realized.vips, &vips.table);
            prop_assert_eq!(host.for_vips().len(), 2 * vips.endpoints.len());
            prop_assert!(host.realized.ways.iter().eq(vips.clients.iter().map(|(client, (way, _))| (client, way))));
            prop_assert_eq!((&host.realized.pools, &host.realized.macvlans), (&vips.pools, &desired.macvlans.table));
            prop_assert!(host.realized.segments.iter().eq(desired.segments.keys()));
            let parents = host.realized.attachments.iter().filter_map(Attachment::macvlan_parent);
            prop_assert!(parents.eq(desired.macvlans.parents.keys().copied()));
            prop_assert_eq!(diff(desired, &host.realized), vec![]);
        }
    }

    #[test]
    fn slots_are_unique_at_every_step_and_kept(one in desired(), two in desired()) {
        let mut host = Host::default();
        host.reach(&one);
        let before = host.slots();
        for action in diff(&two, &host.realized) {
            host.act(&action);
            let slots = host.slots();
            prop_assert_eq!(slots.values().collect::<BTreeSet<_>>().len(), slots.len(), "after {}", action);
        }
        for (ifindex, slot) in host.slots() {
            let kind = |desired: &Desired| desired.devices.get(&ifindex).map(|spec| spec.kind);
            if kind(&one) == kind(&two) {
                prop_assert_eq!(before[&ifindex], slot);
            }
        }
    }

    #[test]
    fn only_what_changed_gets_a_new_generation(one in desired(), two in desired()) {
        let mut host = Host::default();
        host.reach(&one);
        let (slots, generations) = (host.slots(), host.generations.clone());
        host.reach(&two);
        for (ifindex, slot) in slots {
            let (old, new) = (one.devices.get(&ifindex), two.devices.get(&ifindex));
            let same = old.zip(new).is_some_and(|(old, new)| {
                old.device(0) == new.device(0) && old.identity == new.identity
            });
            prop_assert_eq!(host.generations[&slot] == generations[&slot], same, "device {}", ifindex);
        }
        for slot in host.slots().values().filter(|slot| !generations.contains_key(slot)) {
            prop_assert_eq!(host.generations[slot], 1);
        }
    }

    #[test]
    fn what_is_said_of_a_port_never_outlives_its_generation(
        one in desired(), two in desired(), ended in subsequence((1u32..12).collect::<Vec<_>>(), 0..4),
    ) {
        let mut host = Host::default();
        host.reach(&one);
        prop_assert!(host.is_true_of_ports());
        for key in ended.into_iter().map(DeviceKey::served) {
            if let Some(slot) = host.slots().get(&key) {
                *host.generations.get_mut(slot).expect("it was added") += 1;
                host.realized.end_port(key);
            }
        }
        for action in diff(&two, &host.realized) {
            host.act(&action);
            prop_assert!(host.is_true_of_ports(), "after {}", action);
            // Nothing that is not wanted any more is left when the first thing comes.
            if let Action::AddDevice { .. } | Action::ChangeDevice { .. } = action {
                let mut left = host.realized.ports.iter();
                prop_assert!(left.all(|(key, found)| two.direct.get(key) == Some(&found.port)));
            }
        }
        prop_assert!(host.realized.ports.iter().map(|(key, found)| (key, &found.port)).eq(&two.direct));
        prop_assert!(host.realized.ports.values().all(|found| !found.is_ended));
    }

    #[test]
    fn a_program_never_runs_for_a_device_without_its_entry(one in desired(), two in desired()) {
        let mut host = Host::default();
        host.reach(&one);
        for action in diff(&two, &host.realized) {
            if let Action::Attach { attachment, .. } = &action
                && let Some((device, kind)) = attachment.device_of_kind()
            {
                let entry = host.realized.devices.get(&device);
                prop_assert_eq!(entry.and_then(|entry| entry.device.kind()), Some(kind));
            }
            host.act(&action);
        }
    }

    #[test]
    fn nobody_is_told_of_a_virtual_address_that_does_not_work(
        steps in proptest::collection::vec(desired(), 1..4),
    ) {
        let mut host = Host::default();
        for desired in &steps {
            for action in diff(desired, &host.realized) {
                host.act(&action);
                let told = &host.realized.aliases.services;
                let known: BTreeSet<u64> = host.realized.vips.services.values().map(|service| service.id).collect();
                prop_assert!(told.is_subset(&known), "after {}", action);
                prop_assert!(told.is_empty() || !host.realized.pools.is_empty(), "after {}", action);
                if matches!(action, Action::SetAliases { .. }) {
                    let wanted = &desired.aliases.vips;
                    prop_assert!(wanted.clients.keys().all(|client| host.realized.ways.contains_key(client)));
                    let links = |device: &DeviceKey| {
                        let wanted = |hook| Attachment::of_vips(*device, hook);
                        Hook::BOTH.map(|hook| host.realized.attachments.contains(&wanted(hook)))
                    };
                    prop_assert!(wanted.endpoints.keys().all(|device| links(device) == [true; 2]));
                }
            }
        }
    }

    #[test]
    fn an_epoch_ends_when_its_inputs_change_and_before_anything_else_is_done(
        one in desired(), two in desired(),
    ) {
        let mut host = Host::default();
        host.reach(&one);
        let before = host.realized.control.epoch;
        let actions = host.reach(&two);
        let ended = !one.inputs.causes(&two.inputs).is_empty();
        prop_assert_eq!(host.realized.control.epoch, before + u32::from(ended));
        if ended {
            let first = matches!(actions.first(), Some(Action::NewEpoch { .. }));
            prop_assert!(first, "{:?}", actions);
        }
    }

    #[test]
    fn what_failed_is_done_by_the_next_pass(
        one in desired(), two in desired(), fails in subsequence((0u32..12).collect::<Vec<_>>(), 0..6),
    ) {
        let mut host = Host::default();
        host.reach(&one);
        for action in diff(&two, &host.realized) {
            if action.device().is_none_or(|device| !fails.contains(&device.ifindex)) {
                host.act(&action);
            }
        }
        host.reach(&two);
        prop_assert_eq!(diff(&two, &host.realized), vec![]);
        prop_assert_eq!(host.realized.devices.len(), two.devices.len());
        prop_assert_eq!(host.on_devices().len(), 2 * two.devices.len());
    }

    #[test]
    fn another_daemon_takes_over_with_a_new_epoch_and_nothing_else(desired in desired()) {
        let mut host = Host::default();
        host.reach(&desired);
        let mut next = host.adopted();
        next.reach(&desired);
        prop_assert_eq!(next.realized.control.epoch, host.realized.control.epoch + 1);
        prop_assert_eq!(&next.generations, &host.generations);
        prop_assert_eq!(next.slots(), host.slots());
        prop_assert_eq!(next.realized.inputs, host.realized.inputs);
        prop_assert_eq!(next.realized.devices, host.realized.devices);
    }

    #[test]
    fn undone_in_reverse_a_first_pass_leaves_nothing(desired in desired()) {
        let mut host = Host::default();
        let before = host.realized.clone();
        let done = host.reach(&desired);
        for action in done.iter().rev().filter_map(Action::undo) {
            host.act(&action);
        }
        prop_assert_eq!(&host.realized.devices, &before.devices);
        prop_assert!(before.attachments.is_empty());
        prop_assert_eq!(&host.realized.attachments, &before.attachments);
        prop_assert_eq!(host.realized.control.switches, 0);
        prop_assert_eq!((&host.realized.vips, &host.realized.macvlans), (&before.vips, &before.macvlans));
        prop_assert!(host.realized.ways.is_empty() && host.realized.pools.is_empty());
    }
}

#[test]
fn the_order_of_a_start() {
    let endpoint = DeviceSpec {
        name: "veth1".into(),
        kind: Kind::Endpoint,
        flags: Device::ACCELERATED,
        mac: Mac([2, 0, 0, 0, 0, 1]),
        address4: Some([172, 17, 0, 2].into()),
        address6: None,
        identity: Identity::default(),
    };
    let desired = Desired {
        devices: BTreeMap::from([(DeviceKey::served(7), endpoint)]),
        pace: Pace {
            revalidate_ns: 1_000_000_000,
            learn_after: 3,
        },
        ..Desired::default()
    };
    let said: Vec<String> = diff(&desired, &Realized::default())
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(
        said,
        [
            "new epoch: start",
            "switch the fast path off",
            "add device 7 in slot 0",
            "attach to veth1 in",
            "attach to veth1 out",
            "switch the fast path and learning on",
        ]
    );
}
