//! What the daemon and the object must agree on, compared in the object itself: it is built for another target.

use std::collections::{BTreeMap, BTreeSet};

use aya_obj::{Object, ProgramSection};
use netfast::apply::OBJECT;
use netfast_common::{
    abi::{HookKind, Program, map},
    alias::{Alias, AliasKey, MemberKey},
    control::Control,
    device::{Device, DeviceKey, Traffic},
    direct::{Pace, Port, PortKey},
    flow::{Flow, FlowKey},
    localhost::{self, Published, Switch},
    macvlan::{AddressKey, AddressOwner, Station, StationKey},
    net::{AnyIp, Ip4, Ip6},
    reason::Count,
    resolver::Ports,
    trace::{Filter, Tally},
    tunnel::{Decap, Encap, End, Tunnel},
    vet::Answer,
    vip::{Backend, BackendStats, Conn, ConnKey, Member, Service, SlotKey, Syn},
};
use netfast_ebpf::{
    ctx::Part,
    state::{asked::Asked, candidate::Candidates, dns::Scratch, lb::Work, six::Work6},
};

/// Each map's key and value as this side sees them, in bytes.
const MAPS: [(&str, usize, usize); 54] = [
    (map::CONTROL, 4, size_of::<Control>()),
    (map::DEVICES, size_of::<DeviceKey>(), size_of::<Device>()),
    (map::GENERATIONS, 4, 4),
    (map::TRAFFIC, 4, size_of::<Traffic>()),
    (map::REASONS, 4, size_of::<Count>()),
    (map::FLOWS4, size_of::<FlowKey<Ip4>>(), size_of::<Flow<Ip4>>()),
    (map::UNREPLIED4, size_of::<FlowKey<Ip4>>(), size_of::<Flow<Ip4>>()),
    (map::VET4, 0, 0),
    (map::VETTED4, size_of::<FlowKey<Ip4>>(), size_of::<Answer>()),
    (map::FLOWS6, size_of::<FlowKey<Ip6>>(), size_of::<Flow<Ip6>>()),
    (map::UNREPLIED6, size_of::<FlowKey<Ip6>>(), size_of::<Flow<Ip6>>()),
    (map::VET6, 0, 0),
    (map::VETTED6, size_of::<FlowKey<Ip6>>(), size_of::<Answer>()),
    (map::WORK6, 4, size_of::<Work6>()),
    (map::SUMMED, 4, size_of::<Part>()),
    (map::WARMUP, 4, 4),
    (map::PORTS, size_of::<PortKey>(), size_of::<Port>()),
    (map::PACES, 4, size_of::<Pace>()),
    (map::TUNNELS, size_of::<DeviceKey>(), size_of::<Tunnel>()),
    (map::ENCAP4, size_of::<FlowKey<Ip4>>(), size_of::<Encap>()),
    (map::ENDS, size_of::<End>(), 4),
    (map::DECAP4, size_of::<FlowKey<Ip4>>(), size_of::<Decap>()),
    (map::ASKED, 4, size_of::<Asked>()),
    (map::ENCAP_WORK, 4, size_of::<Encap>()),
    (map::DECAP_WORK, 4, size_of::<Decap>()),
    (map::CANDIDATES, 4, size_of::<Candidates>()),
    (map::FILTER, 4, size_of::<Filter>()),
    (map::TALLY, 4, size_of::<Tally>()),
    (map::TRACED, 0, 0),
    (map::ALIASES, size_of::<AliasKey>(), size_of::<Alias>()),
    (map::CURSORS, 8, 8),
    (map::FIRST_NAMED, size_of::<MemberKey>(), 8),
    (map::ANSWERS, 4, 8),
    (map::SCRATCH, 4, size_of::<Scratch>()),
    (map::VIPS, size_of::<AnyIp>(), size_of::<Service>()),
    (map::VIP_SLOTS, size_of::<SlotKey>(), size_of::<Backend>()),
    (map::VIP_MEMBERS, size_of::<MemberKey>(), size_of::<Member>()),
    (map::VIP_STATS, size_of::<MemberKey>(), size_of::<BackendStats>()),
    (map::VIP_CONNECTIONS, size_of::<ConnKey>(), size_of::<Conn>()),
    (map::VIP_WAITING, size_of::<ConnKey>(), size_of::<Conn>()),
    (map::VIP_SYNS, size_of::<ConnKey>(), size_of::<Syn>()),
    (map::VIP_VERDICTS, 4, 8),
    (map::VIP_WORK, 4, size_of::<Work>()),
    (map::MACVLANS, size_of::<StationKey>(), size_of::<Station>()),
    (
        map::MACVLAN_ADDRESSES,
        size_of::<AddressKey>(),
        size_of::<AddressOwner>(),
    ),
    // `struct bpf_devmap_val`.
    (map::XDP_ENDS, 4, 8),
    (map::XDP_STATE, 4, 8),
    (map::XDP_DONE, 4, size_of::<Count>()),
    (map::RESOLVERS, 8, size_of::<Ports>()),
    (map::LOCALHOST, 4, size_of::<Switch>()),
    (map::PUBLISHED, 4, size_of::<Published>()),
    (map::LED_SOCKETS, 4, size_of::<localhost::Asked>()),
    (map::CGROUPS, 8, 8),
    (map::OUTCOMES, 4, 8),
];

fn object() -> Object {
    assert!(!OBJECT.is_empty(), "netfast was built without its BPF programs");
    Object::parse(OBJECT).expect("an object")
}

/// What a debugger reads would be three quarters of it.
#[test]
fn the_object_has_what_the_kernel_reads_and_nothing_for_debuggers() {
    let has = |name: &str| OBJECT.windows(name.len()).any(|window| window == name.as_bytes());
    assert!(has("\0.BTF\0") && has("\0.BTF.ext\0") && has("\0.symtab\0"));
    assert!(!has(".debug_") && !has(".rel.BTF"));
    // With the sources' lines, for what the verifier says.
    let object = object();
    assert!(object.btf_ext.is_some() && !object.functions.is_empty());
    for function in object.functions.values() {
        assert!(!function.line_info.line_info.is_empty(), "{}", function.name);
    }
}

#[test]
fn maps_are_of_the_same_size_on_both_sides() {
    let object = object();
    let got: BTreeMap<&str, (u32, u32)> = object
        .maps
        .iter()
        // Sections of constants are maps too, and need no agreement.
        .filter(|(name, _)| !name.starts_with('.'))
        .map(|(name, map)| (name.as_str(), (map.key_size(), map.value_size())))
        .collect();
    let size = |bytes: usize| u32::try_from(bytes).expect("small");
    let wanted: BTreeMap<&str, (u32, u32)> = MAPS
        .iter()
        .map(|(name, key, value)| (*name, (size(*key), size(*value))))
        .collect();
    assert_eq!(got, wanted);
}

#[test]
fn programs_are_those_of_the_abi() {
    let object = object();
    let got: BTreeSet<&str> = object.programs.keys().map(String::as_str).collect();
    let wanted: BTreeSet<&str> = Program::ALL.iter().map(|program| program.name()).collect();
    assert_eq!(got, wanted);
}

/// What the table says of a program's hook is what the object's section says.
#[test]
fn programs_are_for_the_hooks_of_the_abi() {
    let object = object();
    for program in Program::ALL {
        let section = &object.programs[program.name()].section;
        let fits = match program.hook() {
            HookKind::Tcx(_) => matches!(section, ProgramSection::SchedClassifier),
            HookKind::Xdp => matches!(section, ProgramSection::Xdp { .. }),
            HookKind::Fentry(_) => matches!(section, ProgramSection::FEntry { .. }),
            HookKind::RawTracepoint(_) => matches!(section, ProgramSection::RawTracePoint),
            // `UDPSendMsg4` is of `sendmsg4`.
            HookKind::SockAddr(name) => {
                let is = |kind: String| kind.to_lowercase().trim_start_matches("udp") == name;
                matches!(section, ProgramSection::CgroupSockAddr { attach_type } if is(format!("{attach_type:?}")))
            }
        };
        assert!(fits, "{program:?}: {section:?}");
    }
}

/// The sizes above are of every map of the table.
#[test]
fn no_map_of_the_abi_is_forgotten() {
    let listed: Vec<&str> = MAPS.iter().map(|(name, ..)| *name).collect();
    let table: Vec<&str> = map::ALL.iter().map(|map| map.name).collect();
    assert_eq!(listed, table);
}
