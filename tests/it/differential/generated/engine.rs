//! The rules that an engine writes: where there is IPv6 one since 28, elsewhere an older one, whose verdicts are the same but for
//! what comes from elsewhere to a container's own address.

use netfast_tests::seeds::{
    family::Family,
    names,
    scenario::{Base, CONTAINER_PORT, PUBLISHED_PORT, Place, Published, REAL_PORTS, Shape},
};

/// What an engine with default options writes for a family, options of the scenario included: tables, and lines for
/// `iptables-restore`.
pub fn engine(shape: &Shape, base: &Base, family: Family) -> Vec<(&'static str, String)> {
    let mut rules = Rules {
        base,
        family,
        is_new: shape.six,
        raw: Vec::new(),
        filter: Vec::new(),
        nat: Vec::new(),
    };
    rules.frame();
    for bridge in &base.internal {
        rules.keep_inside(*bridge);
    }
    for bridge in 0..shape.bridges.len() {
        rules.bridge(bridge);
    }
    for (number, port) in base.published.iter().enumerate() {
        rules.publish(*port, u16::try_from(number).expect("few"));
    }
    if base.routes_between_uplinks {
        rules.filter.push("-A FORWARD -i eth0 -o eth1 -j ACCEPT".to_owned());
        rules.filter.push("-A FORWARD -i eth1 -o eth0 -j ACCEPT".to_owned());
    }
    let of = |table: &'static str, lines: Vec<String>| lines.into_iter().map(move |line| (table, line));
    of("raw", rules.raw)
        .chain(of("filter", rules.filter))
        .chain(of("nat", rules.nat))
        .collect()
}

struct Rules<'a> {
    base: &'a Base,
    family: Family,
    is_new: bool,
    raw: Vec<String>,
    filter: Vec<String>,
    nat: Vec<String>,
}

impl Rules<'_> {
    /// What there is once.
    fn frame(&mut self) {
        let jumps: &[&str] = if self.is_new {
            &[
                "-A FORWARD -j DOCKER-USER",
                "-A FORWARD -j DOCKER-FORWARD",
                "-A DOCKER-FORWARD -j DOCKER-CT",
                "-A DOCKER-FORWARD -j DOCKER-ISOLATION-STAGE-1",
                "-A DOCKER-FORWARD -j DOCKER-BRIDGE",
            ]
        } else {
            &["-A FORWARD -j DOCKER-USER", "-A FORWARD -j DOCKER-ISOLATION-STAGE-1"]
        };
        self.filter.extend(jumps.iter().map(|line| (*line).to_owned()));
        let not_loopback = match (self.base.hairpin, self.family) {
            (true, _) => "",
            (false, Family::V4) => "! -d 127.0.0.0/8 ",
            (false, Family::V6) => "! -d ::1/128 ",
        };
        self.nat.extend([
            "-A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER".to_owned(),
            format!("-A OUTPUT {not_loopback}-m addrtype --dst-type LOCAL -j DOCKER"),
        ]);
    }

    /// An internal network.
    fn keep_inside(&mut self, bridge: usize) {
        let (name, net) = (names::bridge(bridge), names::network(bridge, self.family));
        self.filter.extend([
            format!("-A DOCKER-ISOLATION-STAGE-1 ! -s {net} -o {name} -j DROP"),
            format!("-A DOCKER-ISOLATION-STAGE-1 ! -d {net} -i {name} -j DROP"),
        ]);
    }

    fn bridge(&mut self, bridge: usize) {
        let Base {
            internal,
            no_icc,
            hairpin,
            ..
        } = self.base;
        let (name, net) = (names::bridge(bridge), names::network(bridge, self.family));
        let icc = if no_icc.contains(&bridge) { "DROP" } else { "ACCEPT" };
        let (known, published, forward) = if self.is_new {
            ("DOCKER-CT", "DOCKER-BRIDGE", "DOCKER-FORWARD")
        } else {
            ("FORWARD", "FORWARD", "FORWARD")
        };
        self.filter.extend([
            format!("-A {known} -o {name} -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT"),
            format!("-A {published} -o {name} -j DOCKER"),
            format!("-A {forward} -i {name} ! -o {name} -j ACCEPT"),
            format!("-A {forward} -i {name} -o {name} -j {icc}"),
            format!("-A DOCKER-ISOLATION-STAGE-1 -i {name} ! -o {name} -j DOCKER-ISOLATION-STAGE-2"),
            format!("-A DOCKER-ISOLATION-STAGE-2 -o {name} -j DROP"),
        ]);
        if !internal.contains(&bridge) {
            self.nat
                .push(format!("-A POSTROUTING -s {net} ! -o {name} -j MASQUERADE"));
        }
        if *hairpin {
            self.nat.push(format!(
                "-A POSTROUTING -m addrtype --src-type LOCAL -o {name} -j MASQUERADE"
            ));
        }
    }

    fn publish(&mut self, published: Published, number: u16) {
        let Published {
            container: (bridge, index),
            address,
        } = published;
        let hairpin = self.base.hairpin;
        let name = names::bridge(bridge);
        let ip = names::ip(Place::Container(bridge, index), self.family);
        let address = address.map_or_else(String::new, |uplink| {
            format!("-d {} ", names::uplink_ip(uplink, self.family))
        });
        let not_from = if hairpin {
            String::new()
        } else {
            format!("! -i {name} ")
        };
        if self.is_new {
            self.raw.push(format!("-A PREROUTING -d {ip} ! -i {name} -j DROP"));
        }
        for (protocol, more) in [("tcp", 0), ("udp", 0), ("tcp", REAL_PORTS), ("udp", REAL_PORTS)] {
            let (host, inside) = (PUBLISHED_PORT + number + more, CONTAINER_PORT + number + more);
            let to = std::net::SocketAddr::new(ip, inside);
            self.nat.push(format!(
                "-A DOCKER {address}{not_from}-p {protocol} --dport {host} -j DNAT --to-destination {to}"
            ));
            self.filter.push(format!(
                "-A DOCKER -d {ip} {not_from}-o {name} -p {protocol} --dport {inside} -j ACCEPT"
            ));
            if hairpin {
                self.nat.push(format!(
                    "-A POSTROUTING -s {ip} -d {ip} -p {protocol} --dport {inside} -j MASQUERADE"
                ));
            }
        }
    }
}
