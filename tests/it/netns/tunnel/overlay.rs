//! A tunnel as Swarm's overlay networks have it: VXLAN device, bridge and the ports of its containers in a namespace of their own, the
//! way of outer packets in the host's. Whatever netfast does on these hosts, it is none of its.

use netfast_tests::netns::{NetNs, veth_pair};

use super::*;

/// The namespace of one host's overlay network, with a container in it.
struct Sandbox {
    ns: NetNs,
    container: NetNs,
    ip: Ipv4Addr,
}

/// Name of the tunnel's device in there.
const OVERLAY: &str = "vxlan0";

/// MAC and IP address of the container of a host.
fn station(number: usize) -> (String, Ipv4Addr) {
    let last = u8::try_from(number).expect("a small number") + 3;
    (format!("02:42:0a:00:09:{last:02x}"), Ipv4Addr::new(10, 0, 9, last))
}

impl Sandbox {
    /// As Docker makes it: the device is made by the host, and moved.
    fn new(world: &World, number: usize) -> Self {
        let host = world.host(number);
        let (ns, container) = (NetNs::new("sandbox").expect("made"), NetNs::new("task").expect("made"));
        host.ns
            .ip(&format!(
                "link add {OVERLAY} type vxlan id 4097 dstport 4789 proxy l2miss l3miss learning"
            ))
            .expect("a tunnel");
        host.ns
            .ip(&format!("link set {OVERLAY} netns {}", ns.name()))
            .expect("moved");
        veth_pair((&ns, "veth0"), (&container, "eth0")).expect("a pair");
        let (mac, ip) = station(number);
        let (far_mac, far_ip) = station(1 - number);
        for line in [
            "link add br0 type bridge".to_owned(),
            format!("link set {OVERLAY} mtu 1450 master br0 up"),
            "link set veth0 mtu 1450 master br0 up".into(),
            "link set br0 up".into(),
            format!("neigh add {far_ip} lladdr {far_mac} dev {OVERLAY} nud permanent"),
        ] {
            ns.ip(&line).expect("it is made");
        }
        let far = world.host(1 - number).ip;
        ns.sh(&format!(
            "bridge fdb add {far_mac} dev {OVERLAY} dst {far} self permanent"
        ))
        .expect("the far end");
        container
            .ip(&format!("link set eth0 mtu 1450 address {mac} up"))
            .expect("an interface");
        container.ip(&format!("addr add {ip}/24 dev eth0")).expect("an address");
        Self { ns, container, ip }
    }
}

#[test]
fn a_tunnel_of_another_namespace_is_left_alone() {
    let Some((world, _echo, socket)) = conversation(Kind::Routed) else {
        return;
    };
    let boxes = [0, 1].map(|number| Sandbox::new(&world, number));
    let attached = |ns: &NsHandle| programs_at(ns, OVERLAY).len() + programs_at(ns, "veth0").len();
    let repeated = || [0, 1].map(|number| world.count(number, Reason::Encapsulated));
    transfer::bulk(&boxes[0].container, at(boxes[1].ip, 7001), &boxes[1].container, 7001);
    let before = repeated();
    transfer::bulk(&boxes[0].container, at(boxes[1].ip, 7001), &boxes[1].container, 7001);
    assert_eq!(repeated(), before, "these are the kernel's");
    assert_eq!([attached(&boxes[0].ns), attached(&boxes[1].ns)], [0, 0]);
    // The tunnel beside it goes on as before.
    world.warm(&socket);
    let before = world.sent(0);
    bulk(&world);
    world.check_share(0, before, 100);
}
