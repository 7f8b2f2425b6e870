//! The interfaces of the packet ring's namespace, with addresses of both families.

use netfast_tests::{
    netns::NetNs,
    packet::six,
    scene::{BRIDGE, Dev, HOST},
};

/// Makes them.
pub fn make(ns: &NetNs) {
    let ip = |args: String| {
        ns.ip(&args).unwrap_or_else(|error| panic!("ip {args}: {error:#}"));
    };
    for dev in Dev::ALL {
        let name = dev.name();
        if dev == Dev::Bridge {
            ip(format!("link add name {name} type bridge"));
            ip(format!("address add {BRIDGE}/16 dev {name}"));
        } else {
            ip(format!("link add name {name} type veth peer name p-{name}"));
            ip(format!("link set p-{name} up"));
        }
        if matches!(dev, Dev::Uplink | Dev::Uplink2 | Dev::Stranger) {
            // What comes in for another address is none of an uplink's.
            ip(format!("link set {name} address {}", mac(dev)));
        }
        ip(format!("link set {name} up"));
    }
    ip(format!("address add {HOST}/24 dev {}", Dev::Uplink.name()));
    ip(format!("route add default dev {}", Dev::Uplink.name()));
    let six = |ip| six::address(ip).expect("it has a like");
    ip(format!(
        "address add {}/112 dev {} nodad",
        six(BRIDGE),
        Dev::Bridge.name()
    ));
    ip(format!(
        "address add {}/120 dev {} nodad",
        six(HOST),
        Dev::Uplink.name()
    ));
    ip(format!("-6 route add default dev {}", Dev::Uplink.name()));
    ns.set_sysctl("net/ipv6/conf/all/forwarding", "1").expect("forwarding");
    // bpf_fib_lookup answers only for interfaces that forward.
    ns.set_sysctl("net/ipv4/ip_forward", "1").expect("forwarding");
}

/// The MAC address that packets to a device carry, as `ip` takes it.
fn mac(dev: Dev) -> String {
    dev.mac().map(|byte| format!("{byte:02x}")).join(":")
}
