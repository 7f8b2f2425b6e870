//! A container host from plain namespaces: bridges with "containers" and rules like Docker's, and no Docker.
//!
//! For tests of exact topologies, and for machines that cannot run dockerd. Bridge N is `br-N` with 172.30.N.1/24; its
//! container I (from 0) has `eth0` with 172.30.N.(I+2), and the host-side veth `vethNxI`.

use std::net::Ipv4Addr;

use anyhow::{Context as _, Result};

use crate::{
    cmd,
    netns::{NetNs, NsHandle, veth_pair},
    site::Site,
};

/// A published port of a container: what `-p HOST_PORT:PORT` makes, for TCP and UDP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Published {
    /// Port on the host's addresses.
    pub host_port: u16,
    /// Bridge and container.
    pub container: (usize, usize),
    /// Port in the container.
    pub port: u16,
}

/// The shape of a topology.
#[derive(Debug, Clone)]
pub struct Options {
    /// Containers on each bridge.
    pub bridges: Vec<usize>,
    /// Rules like Docker's by `iptables`: masquerade, published ports, isolation between bridges, FORWARD policy DROP.
    /// Without them the host forwards everything and translates nothing.
    pub iptables: bool,
    /// Published ports; they need `iptables`.
    pub published: Vec<Published>,
    /// Whether bridged packets pass iptables (`bridge-nf-call-iptables` and its like), where the kernel has `br_netfilter`.
    pub br_netfilter: bool,
}

impl Default for Options {
    /// One bridge with two containers, rules, and `br_netfilter`: what docker0 is like.
    fn default() -> Self {
        Self {
            bridges: vec![2],
            iptables: true,
            published: Vec::new(),
            br_netfilter: true,
        }
    }
}

/// A bridge of the host.
#[derive(Debug)]
pub struct Bridge {
    /// Device name.
    pub name: String,
    /// The host's address on it, its containers' gateway.
    pub gateway: Ipv4Addr,
    /// Its containers.
    pub containers: Vec<Container>,
}

/// A namespace that plays a container.
#[derive(Debug)]
pub struct Container {
    /// Its namespace.
    pub ns: NetNs,
    /// The host-side end of its veth pair.
    pub veth: String,
    /// Address of its `eth0`.
    pub ip: Ipv4Addr,
    /// MAC address of its `eth0`.
    pub mac: String,
}

/// The whole topology; removed when dropped.
#[derive(Debug)]
pub struct Topo {
    /// The bridges, in the order of the options.
    pub bridges: Vec<Bridge>,
    /// Host and outside client.
    pub site: Site,
}

impl Topo {
    /// Builds it.
    pub fn new(options: &Options) -> Result<Self> {
        let mut topo = Self {
            bridges: Vec::new(),
            site: Site::new()?,
        };
        topo.site.host.set_sysctl("net/ipv4/ip_forward", "1")?;
        for of in ["ip", "ip6", "arp"] {
            let switch = format!("net/bridge/bridge-nf-call-{of}tables");
            if topo.site.host.sysctl(&switch).is_ok() {
                topo.site
                    .host
                    .set_sysctl(&switch, if options.br_netfilter { "1" } else { "0" })?;
            }
        }
        for (number, containers) in options.bridges.iter().enumerate() {
            topo.add_bridge(number)?;
            for _ in 0..*containers {
                topo.add_container(number)?;
            }
        }
        if options.iptables {
            topo.add_rules(&options.published)
                .context("cannot add rules like Docker's")?;
        }
        Ok(topo)
    }

    /// The host's namespace.
    pub fn host(&self) -> &NetNs {
        &self.site.host
    }

    /// The outside client's namespace.
    pub fn lan(&self) -> &NetNs {
        &self.site.lan
    }

    /// Container `index` of bridge `bridge`.
    pub fn container(&self, bridge: usize, index: usize) -> &Container {
        &self.bridges[bridge].containers[index]
    }

    fn add_bridge(&mut self, number: usize) -> Result<()> {
        let name = format!("br-{number}");
        let gateway = address(number, 1)?;
        let host = &self.site.host;
        // As an engine does. Else it would be the lowest address of its ports, and each that comes or goes could change
        // it, upon which the kernel forgets all neighbours behind it.
        let mac = mac_of(gateway);
        host.ip(&format!("link add {name} address {mac} type bridge"))?;
        host.ip(&format!("addr add {gateway}/24 dev {name}"))?;
        host.ip(&format!("link set {name} up"))?;
        self.bridges.push(Bridge {
            name,
            gateway,
            containers: Vec::new(),
        });
        Ok(())
    }

    /// Adds one more container to bridge `number`, as a container start would.
    pub fn add_container(&mut self, number: usize) -> Result<&Container> {
        let (host, bridge) = (&self.site.host, &mut self.bridges[number]);
        let index = bridge.containers.len();
        let veth = format!("veth{number}x{index}");
        let ip = address(number, index + 2)?;
        let mac = mac_of(ip);
        let ns = NetNs::new(&format!("c{number}x{index}"))?;
        veth_pair((host, &veth), (&ns, "eth0"))?;
        host.ip(&format!("link set {veth} master {} up", bridge.name))?;
        ns.ip(&format!("link set eth0 address {mac} up"))?;
        ns.ip(&format!("addr add {ip}/24 dev eth0"))?;
        ns.ip(&format!("route add default via {}", bridge.gateway))?;
        bridge.containers.push(Container { ns, veth, ip, mac });
        Ok(&bridge.containers[index])
    }

    /// The rules of an engine with default options, for these bridges.
    fn add_rules(&self, published: &[Published]) -> Result<()> {
        let mut lines = vec![
            "filter -P FORWARD DROP".to_owned(),
            "filter -N DOCKER".to_owned(),
            "filter -N DOCKER-USER".to_owned(),
            "filter -N DOCKER-ISOLATION-STAGE-1".to_owned(),
            "filter -N DOCKER-ISOLATION-STAGE-2".to_owned(),
            "filter -A FORWARD -j DOCKER-USER".to_owned(),
            "filter -A FORWARD -j DOCKER-ISOLATION-STAGE-1".to_owned(),
            "nat -N DOCKER".to_owned(),
            "nat -A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER".to_owned(),
            "nat -A OUTPUT ! -d 127.0.0.0/8 -m addrtype --dst-type LOCAL -j DOCKER".to_owned(),
        ];
        for (number, Bridge { name, .. }) in self.bridges.iter().enumerate() {
            let net = format!("{}/24", address(number, 0)?);
            lines.extend([
                format!("filter -A FORWARD -o {name} -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT"),
                format!("filter -A FORWARD -o {name} -j DOCKER"),
                format!("filter -A FORWARD -i {name} ! -o {name} -j ACCEPT"),
                format!("filter -A FORWARD -i {name} -o {name} -j ACCEPT"),
                format!("filter -A DOCKER-ISOLATION-STAGE-1 -i {name} ! -o {name} -j DOCKER-ISOLATION-STAGE-2"),
                format!("filter -A DOCKER-ISOLATION-STAGE-2 -o {name} -j DROP"),
                format!("nat -A POSTROUTING -s {net} ! -o {name} -j MASQUERADE"),
            ]);
        }
        for Published {
            host_port,
            container: (bridge, index),
            port,
        } in published
        {
            let (name, ip) = (&self.bridges[*bridge].name, self.container(*bridge, *index).ip);
            for protocol in ["tcp", "udp"] {
                lines.extend([
                    format!("nat -A DOCKER ! -i {name} -p {protocol} --dport {host_port} -j DNAT --to {ip}:{port}"),
                    format!("filter -A DOCKER -d {ip} ! -i {name} -o {name} -p {protocol} --dport {port} -j ACCEPT"),
                ]);
            }
        }
        for line in lines {
            self.iptables(&format!("-t {line}"))?;
        }
        Ok(())
    }

    /// `iptables -w ARGS…` in the host.
    pub fn iptables(&self, args: &str) -> Result<String> {
        let handle: &NsHandle = &self.site.host;
        cmd::run(handle.command("iptables").arg("-w").args(args.split_whitespace()))
    }
}

fn address(bridge: usize, host: usize) -> Result<Ipv4Addr> {
    let octet = |number: usize| u8::try_from(number).with_context(|| format!("{number} does not fit an address"));
    Ok(Ipv4Addr::new(172, 30, octet(bridge)?, octet(host)?))
}

/// The MAC address that Docker would give to whoever has this address (libnetwork's `netutils.GenerateMACFromIP`).
fn mac_of(ip: Ipv4Addr) -> String {
    let [a, b, c, d] = ip.octets();
    format!("02:42:{a:02x}:{b:02x}:{c:02x}:{d:02x}")
}
