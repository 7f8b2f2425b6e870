//! What others attach in mid-flow, and what makes the host drop what it would forward.

use std::sync::Arc;

use netfast_tests::{
    netns::NetNs,
    seeds::{
        family::Family,
        judge::{Foreign, Hole, Hook, LONG, Prey, Shaper, Spot, Switch},
        names,
        scenario::Place,
        step::{Device, PortFlag, Step},
    },
};

use super::{
    arena::{Arena, REAL_PUBLISHED, REAL_SERVER, Undo},
    programs::{self, Kind, Program},
    settle::Expect,
};

/// The nexthop object's number.
const NEXTHOP: u32 = 9;
/// Shared blocks: numbers of a namespace's own.
const BLOCKS: [u32; 2] = [22, 23];

impl Arena {
    /// Does it; what the kernel says against it, and what netfast should do about it.
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "traffic is no event; `Play::step` lists what is"
    )]
    pub fn judge(&mut self, number: usize, step: &Step) -> (Result<(), String>, Expect) {
        match *step {
            Step::Attach(foreign) => (self.attach(number, foreign), announced_by(foreign)),
            Step::Hole(hole) => self.hole(hole),
            Step::Switch(device, switch) => {
                let (name, on, off) = switch.setting();
                let device = names::device(device);
                let set = |value| format!("sysctl -qw net.ipv4.conf.{device}.{name}={value}");
                let expect = match switch {
                    Switch::ReversePath | Switch::Forwarding => Expect::Announced,
                    // They only permit: nothing that was forwarded is stopped.
                    Switch::AcceptLocal | Switch::RouteLocalnet => Expect::Nothing,
                };
                (self.change(&set(on), &set(off)), expect)
            }
            Step::Qdisc(device, shaper) => {
                let device = names::device(device);
                let what = match shaper {
                    Shaper::Fifo => "pfifo limit 1000".to_owned(),
                    Shaper::Bucket => format!("tbf rate 10gbit burst {LONG} limit 100000"),
                };
                let done = self.change(
                    &format!("tc qdisc add dev {device} root {what}"),
                    &format!("tc qdisc del dev {device} root"),
                );
                (done, Expect::Planned)
            }
            Step::Port(place, flag) => {
                let veth = names::veth(place);
                let set = |what: &str| format!("ip link set {veth} type bridge_slave {what}");
                let (there, back, expect) = match flag {
                    PortFlag::Isolated => ("isolated on", "isolated off", Expect::Planned),
                    // What leaves by where it came in is never learned.
                    PortFlag::Hairpin => ("hairpin on", "hairpin off", Expect::Perhaps),
                    PortFlag::Locked => ("locked on fdb_flush", "locked off", Expect::Planned),
                    PortFlag::Blocked => ("state 4", "state 3", Expect::Planned),
                    // Who is known is not flooded.
                    PortFlag::NotFlooded => ("flood off", "flood on", Expect::Perhaps),
                    PortFlag::NotLearning => ("learning off", "learning on", Expect::Perhaps),
                    PortFlag::Suppressed => ("neigh_suppress on", "neigh_suppress off", Expect::Perhaps),
                };
                if matches!(flag, PortFlag::Locked | PortFlag::Blocked) {
                    self.is_confused = true;
                }
                (self.change(&set(there), &set(back)), expect)
            }
            Step::Vlans(place) => {
                let Place::Container(bridge, _) = place else {
                    return (Ok(()), Expect::Nothing);
                };
                let (veth, bridge) = (names::veth(place), names::bridge(bridge));
                let filter = |on| format!("ip link set {bridge} type bridge vlan_filtering {on}");
                // Addresses are known by VLAN, and the bridge forgets some that it knew.
                self.is_confused = true;
                let done = self.change(
                    &format!("bridge vlan del dev {veth} vid 1 && {}", filter(1)),
                    &format!("{}; bridge vlan add dev {veth} vid 1 pvid untagged", filter(0)),
                );
                (done, Expect::Planned)
            }
            Step::Down(device) => {
                let name = names::device(device);
                let quiet = self.until_quiet();
                self.is_confused = true;
                let set = |how| format!("ip link set {name} {how} && {{ {quiet}; }}");
                (self.change(&set("down"), &set("up")), Expect::Planned)
            }
            Step::Up(device) => {
                let name = names::device(device);
                let done = self.sh(&format!("ip link set {name} up && {{ {}; }}", self.until_quiet()));
                let done = done.and_then(|()| match device {
                    Device::Veth(place) => self.announce_one(place).map_err(|error| format!("{error:#}")),
                    Device::Bridge(_) | Device::Uplink(_) => {
                        // Interfaces may have other names by now, and stations be gone.
                        drop(self.announce());
                        Ok(())
                    }
                });
                (done, Expect::Planned)
            }
            Step::Forget(whose) => {
                let line = match whose {
                    Some((place, family)) => format!(
                        "conntrack -D -f {} -s {} 2>/dev/null; true",
                        family.name(),
                        names::ip(place, family)
                    ),
                    None => "conntrack -F 2>/dev/null".to_owned(),
                };
                // Whoever has paused for as long as `revalidate_ms` asks again in any case.
                (self.sh(&line), Expect::Nothing)
            }
            Step::Inner(place) => (self.inner(place), Expect::Nothing),
            _ => (Err(format!("{step:?} is no event")), Expect::Nothing),
        }
    }

    fn hole(&mut self, hole: Hole) -> (Result<(), String>, Expect) {
        let behind = names::behind(Family::V4);
        let (line, back) = match hole {
            Hole::Route(place, family) => {
                let to = names::ip(place, family);
                let route = |verb| format!("{} route {verb} blackhole {to}/{}", family.ip(), family.bits());
                (route("add"), route("del"))
            }
            Hole::Rule(place, family) => {
                let from = names::ip(place, family);
                let rule = |verb| format!("{} rule {verb} from {from} blackhole", family.ip());
                (rule("add"), rule("del"))
            }
            Hole::Nexthop => (
                format!(
                    "ip nexthop replace id {NEXTHOP} via 198.18.0.100 dev {} && ip route replace {behind}/32 nhid {NEXTHOP}",
                    names::uplink(0)
                ),
                format!("ip route replace {behind}/32 via 198.18.0.100; ip nexthop del id {NEXTHOP}"),
            ),
            // Routes are not told of by themselves then (`nexthop_compat_mode`).
            Hole::NexthopGone => (
                format!(
                    "sysctl -qw net.ipv4.nexthop_compat_mode=0; ip nexthop get id {NEXTHOP} >/dev/null && \
                     ip nexthop replace id {NEXTHOP} blackhole"
                ),
                "sysctl -qw net.ipv4.nexthop_compat_mode=1".to_owned(),
            ),
            Hole::Xfrm(place, family) => {
                let (from, any) = (names::ip(place, family), family.unspecified());
                let of = format!("dir fwd src {from}/{} dst {any}/0", family.bits());
                (
                    format!("ip xfrm policy add {of} action block"),
                    format!("ip xfrm policy del {of}"),
                )
            }
            Hole::Station(place, other) => {
                self.is_confused = true;
                let (mac, port) = (names::text(names::mac(place)), names::veth(other));
                (
                    format!("bridge fdb replace {mac} dev {port} master static"),
                    format!("bridge fdb del {mac} dev {port} master"),
                )
            }
        };
        let expect = if matches!(hole, Hole::Xfrm(..)) {
            Expect::Planned
        } else {
            Expect::Announced
        };
        (self.change(&line, &back), expect)
    }

    fn attach(&mut self, number: usize, foreign: Foreign) -> Result<(), String> {
        let Foreign {
            family,
            spot,
            hook,
            prey,
        } = foreign;
        let (space, device) = match spot {
            Spot::Host(device) => (self.host.handle(), names::device(device)),
            Spot::Inside(place) => (self.spaces[&place].handle(), "eth0".to_owned()),
        };
        let place = match hook {
            Hook::Tcx { egress, first } => programs::Place::Tcx { egress, first },
            Hook::XdpNative => programs::Place::Xdp { native: true },
            Hook::XdpGeneric => programs::Place::Xdp { native: false },
            Hook::Filter { egress } => return self.filter(&device, egress, None, (family, prey)),
            Hook::Block { egress } => return self.filter(&device, egress, Some(BLOCKS), (family, prey)),
            Hook::Netdev { egress } => return self.netdev(number, &device, egress, (family, prey)),
        };
        let kind = match place {
            programs::Place::Tcx { .. } => Kind::Classifier,
            programs::Place::Xdp { .. } => Kind::Xdp,
        };
        let program = Program::load(kind, family, prey).expect("the verifier accepts it");
        let attached = program
            .attach(&space, &device, place)
            .map_err(|error| format!("{error:#}"))?;
        self.undo.push(Undo::Program(Arc::new(attached)));
        Ok(())
    }

    fn filter(
        &mut self,
        device: &str,
        egress: bool,
        blocks: Option<[u32; 2]>,
        (family, prey): (Family, Prey),
    ) -> Result<(), String> {
        let program = Program::load(Kind::Classifier, family, prey).expect("the verifier accepts it");
        let pin = program.pin().expect("it is pinned");
        let shared = blocks.map_or_else(String::new, |[ingress, egress]| {
            format!("ingress_block {ingress} egress_block {egress} ")
        });
        let at = match blocks {
            Some([ingress_block, egress_block]) => {
                let block = if egress { egress_block } else { ingress_block };
                format!("block {block}")
            }
            None => format!("dev {device} {}", if egress { "egress" } else { "ingress" }),
        };
        self.change(
            // It may be there already.
            &format!(
                "tc qdisc add dev {device} {shared}clsact 2>/dev/null; tc filter add {at} protocol {} bpf da object-pinned {}",
                family.protocol(),
                pin.path()
            ),
            &format!("tc qdisc del dev {device} clsact"),
        )
    }

    fn netdev(
        &mut self,
        number: usize,
        device: &str,
        egress: bool,
        (family, prey): (Family, Prey),
    ) -> Result<(), String> {
        let hook = if egress { "egress" } else { "ingress" };
        let what = match prey {
            Prey::All => String::new(),
            Prey::Long => format!("meta length > {LONG} "),
            Prey::Marked => format!("meta mark {} ", names::MARK),
        };
        let table = format!("foreign{number}");
        self.sh(&format!(
            "nft 'table netdev {table} {{ chain every {{ type filter hook {hook} device \"{device}\" priority 0; ether type \
             {} {what}drop; }}; }}'",
            family.nft()
        ))?;
        self.tables.push(("netdev", table));
        Ok(())
    }

    /// A container's own packet filter, which is asked by its sockets' packets only: the others are seen before it.
    fn inner(&mut self, place: Place) -> Result<(), String> {
        let space = &self.spaces[&place];
        let table = "table inet inner";
        space
            .sh(&format!(
                "nft '{table} {{ chain every {{ type filter hook prerouting priority -450; udp dport {{ {REAL_SERVER}, \
                 {}-{} }} drop; }}; }}'",
                REAL_PUBLISHED.start(),
                REAL_PUBLISHED.end()
            ))
            .map_err(|error| format!("{error:#}"))?;
        let back = format!("ip netns exec {} nft 'delete {table}'", space.name());
        self.undo.push(Undo::Line(back));
        Ok(())
    }

    /// A shell line that waits until the kernel has drawn all conclusions from a link's end or beginning, for which it
    /// takes up to a second (`net/core/link_watch.c`): those who can send, and what neighbours are forgotten.
    fn until_quiet(&self) -> String {
        let inside = self.spaces.values().map(NetNs::name);
        let shows = inside.map(|name| format!("ip -n {name} -o link show eth0"));
        let show: Vec<String> = shows.chain(["ip -o link show".to_owned()]).collect();
        let is_pending = "awk '(/ state UP/ != /LOWER_UP/) && !/ state UNKNOWN/ {n = 1} END {exit !n}'";
        format!(
            "for i in $(seq 500); do {{ {}; }} 2>/dev/null | {is_pending} || break; sleep 0.005; done",
            show.join("; ")
        )
    }
}

/// Whether netfast hears of it.
fn announced_by(foreign: Foreign) -> Expect {
    match (foreign.hook, foreign.spot) {
        // Redirects lead past a bridge, whatever runs first there.
        (Hook::Tcx { .. }, Spot::Host(Device::Bridge(_))) => Expect::Found,
        // What runs inside a container behind the place where redirected packets come out, and what drops before
        // netfast's program runs.
        (Hook::Tcx { .. }, Spot::Inside(_))
        | (
            Hook::Tcx {
                egress: false,
                first: true,
            },
            Spot::Host(_),
        ) => Expect::Nothing,
        // Nobody announces them to the host. (The kernel leaves out generic XDP for what `bpf_redirect` has sent,
        // `skb_is_redirected` in `net/core/dev.c`.)
        (Hook::Tcx { .. }, _) | (Hook::XdpGeneric, Spot::Inside(_)) => Expect::Found,
        // The other end of the veth announces itself: it has other features now.
        (Hook::XdpNative | Hook::XdpGeneric | Hook::Filter { .. } | Hook::Block { .. } | Hook::Netdev { .. }, _) => {
            Expect::Planned
        }
    }
}
