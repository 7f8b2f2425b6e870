//! Two container hosts on one link, with a VXLAN tunnel between their containers, and no engine.
//!
//! Host I (from 0) is 198.18.0.(I+1) on `eth0`. Either its containers' bridge has the tunnel's device as a port, and all are on one
//! network; or each host has a network of its own, with a route through the tunnel to the other's, as flannel makes it, or to the other
//! host itself.

use std::net::Ipv4Addr;

use anyhow::Result;

use crate::netns::{NetNs, veth_pair};

/// How containers' packets get into the tunnel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The tunnel's device is a port of the containers' bridge.
    Bridged,
    /// By a route, as flannel's backend `vxlan` has it.
    Routed,
    /// There is no tunnel: by a route to the other host itself, as flannel's backend `host-gw` has it.
    Gateway,
}

/// UDP port of the tunnels.
pub const PORT: u16 = 8472;
/// Their network identifier.
pub const VNI: u32 = 1;
/// Name of their devices.
pub const TUNNEL: &str = "flannel.1";
/// Name of the containers' bridges.
pub const BRIDGE: &str = "cni0";

/// One of the hosts.
#[derive(Debug)]
pub struct Host {
    /// Its namespace.
    pub ns: NetNs,
    /// Its address on the link.
    pub ip: Ipv4Addr,
    /// A container's namespace.
    pub container: NetNs,
    /// The container's address.
    pub container_ip: Ipv4Addr,
}

/// All pods.
const CLUSTER: &str = "10.244.0.0/16";

impl Host {
    /// What flanneld adds to iptables (`pkg/trafficmngr/iptables` there), and nothing else lets packets through.
    pub fn add_rules_of_flannel(&self) -> Result<()> {
        let [a, b, c, _] = self.container_ip.octets();
        let pods = format!("{a}.{b}.{c}.0/24");
        for rule in [
            "-F FORWARD".to_owned(),
            "-t nat -F POSTROUTING".into(),
            "-N FLANNEL-FWD".into(),
            "-A FORWARD -m comment --comment \"flanneld forward\" -j FLANNEL-FWD".into(),
            format!("-A FLANNEL-FWD -s {CLUSTER} -j ACCEPT"),
            format!("-A FLANNEL-FWD -d {CLUSTER} -j ACCEPT"),
            "-t nat -N FLANNEL-POSTRTG".into(),
            "-t nat -A POSTROUTING -m comment --comment \"flanneld masq\" -j FLANNEL-POSTRTG".into(),
            "-t nat -A FLANNEL-POSTRTG -m mark --mark 0x4000/0x4000 -j RETURN".into(),
            format!("-t nat -A FLANNEL-POSTRTG -s {pods} -d {CLUSTER} -j RETURN"),
            format!("-t nat -A FLANNEL-POSTRTG -s {CLUSTER} -d {pods} -j RETURN"),
            format!("-t nat -A FLANNEL-POSTRTG ! -s {CLUSTER} -d {pods} -j RETURN"),
            format!("-t nat -A FLANNEL-POSTRTG -s {CLUSTER} ! -d 224.0.0.0/4 -j MASQUERADE --random-fully"),
            format!("-t nat -A FLANNEL-POSTRTG ! -s {CLUSTER} -d {CLUSTER} -j MASQUERADE --random-fully"),
        ] {
            self.ns.sh(&format!("iptables -w {rule}"))?;
        }
        Ok(())
    }
}

/// Both of them; removed when dropped.
#[derive(Debug)]
pub struct Hosts {
    /// The hosts.
    pub hosts: [Host; 2],
}

impl Hosts {
    /// Makes them, their tunnel with these options besides (`noudpcsum`, ...).
    pub fn new(kind: Kind, options: &str) -> Result<Self> {
        let hosts = [Self::host(kind, 0)?, Self::host(kind, 1)?];
        veth_pair((&hosts[0].ns, "eth0"), (&hosts[1].ns, "eth0"))?;
        for (number, host) in hosts.iter().enumerate() {
            let ns = &host.ns;
            ns.ip(&format!("link set eth0 address {} up", mac(0, number)))?;
            ns.ip(&format!("addr add {}/24 dev eth0", host.ip))?;
        }
        let hosts = Self { hosts };
        hosts.make_tunnel(0, kind, options)?;
        hosts.make_tunnel(1, kind, options)?;
        let far = hosts.hosts[1].container_ip;
        hosts.hosts[0].container.sh(&format!("busybox ping -c1 -W5 {far}"))?;
        Ok(hosts)
    }

    /// Makes the tunnel of a host, with its way to the other one.
    pub fn make_tunnel(&self, number: usize, kind: Kind, options: &str) -> Result<()> {
        let (host, far) = (&self.hosts[number], &self.hosts[1 - number]);
        let ns = &host.ns;
        if kind == Kind::Gateway {
            ns.ip(&format!("route add 10.244.{}.0/24 via {}", 1 - number, far.ip))?;
            return Ok(());
        }
        // flannel tells it everything.
        let learning = if kind == Kind::Routed { "nolearning" } else { "" };
        ns.ip(&format!(
            "link add {TUNNEL} address {} type vxlan id {VNI} dstport {PORT} local {} dev eth0 {learning} {options}",
            mac(1, number),
            host.ip
        ))?;
        match kind {
            Kind::Bridged => {
                ns.ip(&format!("link set {TUNNEL} master {BRIDGE} up"))?;
                ns.sh(&format!(
                    "bridge fdb append 00:00:00:00:00:00 dev {TUNNEL} dst {}",
                    far.ip
                ))?;
                Ok(())
            }
            Kind::Routed | Kind::Gateway => Self::route(host, far, 1 - number),
        }
    }

    fn host(kind: Kind, number: usize) -> Result<Host> {
        let last = u8::try_from(number)?;
        let ns = NetNs::new(&format!("host{number}"))?;
        let container = NetNs::new(&format!("pod{number}"))?;
        ns.set_sysctl("net/ipv4/ip_forward", "1")?;
        container.set_sysctl("net/ipv4/ip_forward", "0")?;
        for of in ["ip", "ip6", "arp"] {
            let switch = format!("net/bridge/bridge-nf-call-{of}tables");
            if ns.sysctl(&switch).is_ok() {
                ns.set_sysctl(&switch, "1")?;
            }
        }
        ns.ip(&format!("link add {BRIDGE} address {} type bridge", mac(2, number)))?;
        veth_pair((&ns, "veth0"), (&container, "eth0"))?;
        ns.ip(&format!("link set veth0 mtu 1450 master {BRIDGE} up"))?;
        ns.ip(&format!("link set {BRIDGE} mtu 1450 up"))?;
        container.ip(&format!("link set eth0 mtu 1450 address {} up", mac(3, number)))?;
        let (net, container_ip) = match kind {
            Kind::Bridged => (
                Ipv4Addr::new(10, 244, 0, 1 + last),
                Ipv4Addr::new(10, 244, 0, 11 + last),
            ),
            Kind::Routed | Kind::Gateway => (Ipv4Addr::new(10, 244, last, 1), Ipv4Addr::new(10, 244, last, 2)),
        };
        ns.ip(&format!("addr add {net}/24 dev {BRIDGE}"))?;
        container.ip(&format!("addr add {container_ip}/24 dev eth0"))?;
        container.ip(&format!("route add default via {net}"))?;
        // As engines and network plugins have them, so that conntrack works.
        for rule in [
            "-P FORWARD DROP",
            "-A FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
            "-A FORWARD -s 10.244.0.0/16 -j ACCEPT",
            "-t nat -A POSTROUTING -s 10.244.0.0/16 ! -d 10.244.0.0/16 -j MASQUERADE",
        ] {
            ns.sh(&format!("iptables -w {rule}"))?;
        }
        Ok(Host {
            ns,
            ip: Ipv4Addr::new(198, 18, 0, 1 + last),
            container,
            container_ip,
        })
    }

    /// What flannel's daemon does when it hears of another host.
    fn route(host: &Host, far: &Host, number: usize) -> Result<()> {
        let ns = &host.ns;
        let [a, b, c, _] = host.container_ip.octets();
        ns.ip(&format!("addr add {a}.{b}.{c}.0/32 dev {TUNNEL}"))?;
        ns.ip(&format!("link set {TUNNEL} up"))?;
        let (end, net) = (mac(1, number), format!("10.244.{number}.0"));
        ns.ip(&format!("neigh add {net} lladdr {end} dev {TUNNEL} nud permanent"))?;
        ns.sh(&format!(
            "bridge fdb add {end} dev {TUNNEL} dst {} self permanent",
            far.ip
        ))?;
        ns.ip(&format!("route add {net}/24 via {net} dev {TUNNEL} onlink"))?;
        Ok(())
    }
}

/// MAC address of the tunnel's device of a host.
pub fn tunnel_mac(number: usize) -> String {
    mac(1, number)
}

fn mac(kind: usize, number: usize) -> String {
    format!("02:00:00:00:{kind:02x}:{:02x}", number + 1)
}
