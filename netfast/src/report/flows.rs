//! `netfast flows`: what has been learned, as packets enter and as they leave.

use std::{
    fmt::Write as _,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use netfast_common::{
    flow::{Exit, Flow, FlowKey, Origin},
    net::Port,
};
use serde::Serialize;

pub mod follow;

use crate::report::{
    Style, Table,
    units::{bytes, count, duration},
};

/// IANA protocol numbers.
const ICMP: u8 = 1;
const ICMP6: u8 = 58;

/// What is said when there are none.
const NONE: &str = "No flows: no accelerated connection is open now (flows end with their connection).";

/// The whole report.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Flows {
    /// How many there are, shown or not.
    pub total: usize,
    /// Those that are shown, busiest first.
    pub flows: Vec<FlowReport>,
}

/// One direction of one conversation.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct FlowReport {
    /// `tcp`, `udp`, `icmp` or `icmp6`; others by number.
    pub protocol: String,
    /// Where its packets enter.
    pub enters: Side,
    /// Where they leave.
    pub leaves: Side,
    /// `peer` (into the container at once), `device` (through the interface) or `host` (to the host's own stack).
    pub exit: &'static str,
    /// Whether it may be used: its reverse has been seen, too.
    pub usable: bool,
    /// Packets on the fast path; GSO packets count as one.
    pub packets: u64,
    /// Bytes of them, network layer and up.
    pub bytes: u64,
    /// Since it was learned first.
    pub age_ms: u64,
    /// Since the last packet took the fast path.
    pub idle_ms: u64,
    /// Since the kernel was asked last.
    pub asked_ms: u64,
}

/// One end of a flow's way through the host.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Side {
    /// The interface's index.
    pub ifindex: u32,
    /// The interface's name; its number if it is gone.
    pub device: String,
    /// The container behind it.
    pub container: Option<String>,
    /// Whether it is the host's own stack, behind a bridge device.
    pub host: bool,
    /// Source address and port there; of a request of ICMP echo its identifier is the port.
    pub source: SocketAddr,
    /// Destination address and port there; of a reply of ICMP echo its identifier is the port.
    pub destination: SocketAddr,
}

/// What is known of an interface.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeviceName {
    /// Its name.
    pub device: String,
    /// The container behind it.
    pub container: Option<String>,
}

impl FlowReport {
    fn new(
        key: &FlowKey<IpAddr>,
        flow: &Flow<IpAddr>,
        usable: bool,
        now_ns: u64,
        names: impl Fn(u32) -> Option<DeviceName>,
    ) -> Self {
        let side = |ifindex, host, source, destination| {
            let known = names(ifindex).unwrap_or_else(|| DeviceName {
                device: format!("#{ifindex}"),
                container: None,
            });
            Side {
                ifindex,
                device: known.device,
                container: known.container,
                host,
                source,
                destination,
            }
        };
        let since_ms = |then: u64| now_ns.saturating_sub(then) / 1_000_000;
        Self {
            protocol: match key.protocol {
                6 => "tcp".into(),
                17 => "udp".into(),
                ICMP => "icmp".into(),
                ICMP6 => "icmp6".into(),
                other => other.to_string(),
            },
            enters: side(
                key.ifindex,
                key.origin == Origin::Host as u8,
                socket(key.source, key.source_port),
                socket(key.destination, key.destination_port),
            ),
            leaves: side(
                flow.out_ifindex,
                flow.exit == Exit::Host as u8,
                socket(flow.source, flow.source_port),
                socket(flow.destination, flow.destination_port),
            ),
            exit: match flow.exit {
                exit if exit == Exit::Peer as u8 => "peer",
                exit if exit == Exit::Device as u8 => "device",
                exit if exit == Exit::Host as u8 => "host",
                _ => "unknown",
            },
            usable,
            packets: flow.packets,
            bytes: flow.bytes,
            age_ms: since_ms(flow.created_ns),
            idle_ms: since_ms(flow.used_ns.max(flow.created_ns)),
            asked_ms: since_ms(flow.learned_ns),
        }
    }
}

impl Side {
    /// Who is there, in one word.
    fn name(&self) -> String {
        match (&self.container, self.host) {
            (Some(container), _) => container.clone(),
            (None, true) => format!("host({})", self.device),
            (None, false) => self.device.clone(),
        }
    }
}

fn socket(address: IpAddr, port: Port) -> SocketAddr {
    SocketAddr::from((address, port.number()))
}

/// Keeps the busiest flows of a walk through the tables, however many there are: a table may hold millions.
#[derive(Debug)]
pub struct Busiest {
    limit: usize,
    total: usize,
    kept: Vec<(FlowKey<IpAddr>, Flow<IpAddr>, bool)>,
}

impl Busiest {
    /// Keeps at most `limit`; 0 keeps all.
    pub fn new(limit: usize) -> Self {
        Self {
            limit: if limit == 0 { usize::MAX } else { limit },
            total: 0,
            kept: Vec::new(),
        }
    }

    /// Takes one in. `usable`: its reverse has been seen, too.
    pub fn push(&mut self, key: FlowKey<IpAddr>, flow: Flow<IpAddr>, usable: bool) {
        self.total += 1;
        self.kept.push((key, flow, usable));
        // Now and then, so that sorting costs little.
        if self.kept.len() >= self.limit.saturating_mul(2).max(1024) {
            self.trim();
        }
    }

    fn trim(&mut self) {
        // What is equally busy is sorted by its addresses, so that two calls show the same order.
        let tuple = |key: &FlowKey<IpAddr>| {
            (
                key.source,
                key.source_port.number(),
                key.destination,
                key.destination_port.number(),
            )
        };
        self.kept.sort_by(|(a, flow_a, _), (b, flow_b, _)| {
            flow_b
                .packets
                .cmp(&flow_a.packets)
                .then_with(|| (tuple(a), a.ifindex).cmp(&(tuple(b), b.ifindex)))
        });
        self.kept.truncate(self.limit);
    }

    /// The report. `now_ns` is of the clock that the programs use (`CLOCK_MONOTONIC`).
    pub fn report(mut self, now_ns: u64, names: impl Fn(u32) -> Option<DeviceName>) -> Flows {
        self.trim();
        let flows = self
            .kept
            .iter()
            .map(|(key, flow, usable)| FlowReport::new(key, flow, *usable, now_ns, &names));
        Flows {
            total: self.total,
            flows: flows.collect(),
        }
    }
}

impl Flows {
    /// The text.
    pub fn render(&self, style: Style) -> String {
        let headings = [
            "PROTO",
            "ENTERS",
            "LEAVES",
            "EXIT",
            ">PACKETS",
            ">BYTES",
            ">AGE",
            ">IDLE",
            "FROM > TO",
        ];
        let mut table = Table::new(&headings);
        for flow in &self.flows {
            let age = |ms| duration(Duration::from_millis(ms)).into();
            table.row([
                flow.protocol.clone().into(),
                flow.enters.name().into(),
                flow.leaves.name().into(),
                if flow.usable { flow.exit.into() } else { "waits".into() },
                count(flow.packets).into(),
                bytes(flow.bytes).into(),
                age(flow.age_ms),
                age(flow.idle_ms),
                flow.tuples(style.width.is_some()).into(),
            ]);
        }
        let mut text = table.render(style);
        match (self.total, self.flows.len()) {
            (0, _) => text = format!("{NONE}\n"),
            (total, shown) if shown < total => {
                // Writing to a string cannot fail.
                let _ = writeln!(
                    text,
                    "{} of {} flows; --limit 0 shows all.",
                    count(shown as u64),
                    count(total as u64)
                );
            }
            _ => {}
        }
        text
    }
}

impl FlowReport {
    /// Addresses and ports of one of its sides; of ICMP echo its identifier.
    pub fn ends(&self, side: &Side) -> String {
        let Side {
            source, destination, ..
        } = side;
        if !["icmp", "icmp6"].contains(&self.protocol.as_str()) {
            return format!("{source} > {destination}");
        }
        let (kind, id) = match source.port() {
            0 => ("reply", destination.port()),
            id => ("request", id),
        };
        format!("{} > {} {kind} id {id}", source.ip(), destination.ip())
    }

    /// As it enters, and as it leaves where that is different, on a line of its own if there may be more than one.
    fn tuples(&self, lines: bool) -> String {
        let tuple = |side: &Side| self.ends(side);
        let (enters, leaves) = (tuple(&self.enters), tuple(&self.leaves));
        match (enters == leaves, lines) {
            (true, _) => enters,
            (false, true) => format!("{enters},\nleaves as {leaves}"),
            (false, false) => format!("{enters}, leaves as {leaves}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use netfast_common::net::Ip4;

    use super::*;
    use crate::report::golden::{assert_golden, assert_golden_json};

    const SECOND: u64 = 1_000_000_000;

    fn names(ifindex: u32) -> Option<DeviceName> {
        let (device, container) = match ifindex {
            2 => ("eth0", None),
            5 => ("docker0", None),
            12 => ("veth1a2b3c4", Some("web".into())),
            13 => ("veth5d6e7f8", Some("database".into())),
            _ => return None,
        };
        Some(DeviceName {
            device: device.into(),
            container,
        })
    }

    fn address(text: &str) -> (Ip4, Port) {
        let SocketAddr::V4(socket) = text.parse().unwrap() else {
            panic!("not IPv4")
        };
        (Ip4::from_bytes(socket.ip().octets()), Port::new(socket.port()))
    }

    fn ip(address: Ip4) -> IpAddr {
        address.bytes().into()
    }

    fn flow(
        enters: (u32, &str, &str),
        leaves: (u32, &str, &str),
        exit: Exit,
        packets: u64,
    ) -> (FlowKey<IpAddr>, Flow<IpAddr>) {
        let ((source, source_port), (destination, destination_port)) = (address(enters.1), address(enters.2));
        let key = FlowKey {
            source,
            destination,
            source_port,
            destination_port,
            ifindex: enters.0,
            protocol: 6,
            ..FlowKey::default()
        };
        let ((source, source_port), (destination, destination_port)) = (address(leaves.1), address(leaves.2));
        let flow = Flow {
            source,
            destination,
            source_port,
            destination_port,
            out_ifindex: leaves.0,
            exit: exit as u8,
            packets,
            bytes: packets * 1448,
            created_ns: 10 * SECOND,
            used_ns: 99 * SECOND,
            learned_ns: 99 * SECOND + SECOND / 2,
            ..Flow::default()
        };
        (key.with_addresses(ip), flow.with_addresses(ip))
    }

    fn example(limit: usize) -> Flows {
        let (web, database, outside) = ("172.17.0.2:43210", "172.17.0.3:5432", "203.0.113.9:443");
        let flows = [
            flow((12, web, database), (13, web, database), Exit::Peer, 12_345),
            flow(
                (12, web, outside),
                (2, "192.0.2.1:43210", outside),
                Exit::Device,
                7_654_321,
            ),
            flow(
                (13, database, "172.17.0.1:50000"),
                (5, database, "172.17.0.1:50000"),
                Exit::Host,
                17,
            ),
            flow((77, web, database), (13, web, database), Exit::Peer, 0),
        ];
        let mut busiest = Busiest::new(limit);
        for (key, flow) in flows {
            busiest.push(key, flow, flow.packets > 0);
        }
        busiest.report(100 * SECOND, names)
    }

    #[test]
    fn text_and_json() {
        let flows = example(0);
        assert_golden("flows.txt", &flows.render(Style::default()));
        for width in [80, 120] {
            let style = Style {
                width: Some(width),
                color: false,
            };
            assert_golden(&format!("flows-{width}.txt"), &flows.render(style));
        }
        assert_golden_json("flows.json", &flows);
    }

    #[test]
    fn echo_has_identifiers_and_no_ports() {
        let (web, outside) = ("172.17.0.2", "203.0.113.9");
        let mut busiest = Busiest::new(0);
        let (mut key, there) = flow(
            (12, &format!("{web}:7"), &format!("{outside}:0")),
            (2, "192.0.2.1:61000", &format!("{outside}:0")),
            Exit::Device,
            3,
        );
        key.protocol = ICMP;
        busiest.push(key, there, true);
        let (mut key, back) = flow(
            (12, &format!("{web}:0"), "172.17.0.3:9"),
            (13, &format!("{web}:0"), "172.17.0.3:9"),
            Exit::Peer,
            2,
        );
        key.protocol = ICMP6;
        busiest.push(key, back, true);
        let text = busiest.report(100 * SECOND, names).render(Style::default());
        for told in [
            "icmp ",
            "172.17.0.2 > 203.0.113.9 request id 7, leaves as 192.0.2.1 > 203.0.113.9 request id 61000",
            "icmp6 ",
            "172.17.0.2 > 172.17.0.3 reply id 9",
        ] {
            assert!(text.contains(told), "{told}: {text}");
        }
    }

    #[test]
    fn the_limit_keeps_the_busiest() {
        let flows = example(2);
        assert_eq!((flows.total, flows.flows.len()), (4, 2));
        assert_eq!(flows.flows[0].packets, 7_654_321);
        assert!(
            flows
                .render(Style::default())
                .ends_with("2 of 4 flows; --limit 0 shows all.\n")
        );
    }

    #[test]
    fn no_flows_are_no_sign_of_a_slow_past() {
        assert_eq!(
            Flows::default().render(Style::default()),
            "No flows: no accelerated connection is open now (flows end with their connection).\n"
        );
    }

    #[test]
    fn a_table_of_any_size_takes_little_room() {
        let mut busiest = Busiest::new(3);
        for packets in 0..10_000 {
            let (key, flow) = flow(
                (12, "10.0.0.1:1", "10.0.0.2:2"),
                (13, "10.0.0.1:1", "10.0.0.2:2"),
                Exit::Peer,
                packets,
            );
            busiest.push(key, flow, true);
        }
        assert!(busiest.kept.len() < 1024 && busiest.kept.capacity() <= 2048);
        let flows = busiest.report(0, names);
        assert_eq!(flows.total, 10_000);
        let packets: Vec<_> = flows.flows.iter().map(|flow| flow.packets).collect();
        assert_eq!(packets, [9_999, 9_998, 9_997]);
    }
}
