//! What happens in a scenario: traffic, odd packets, and events in between.

use super::{
    super::{
        judge::Shaper,
        odd::Odd,
        rule::Rule,
        scenario::{Protocol, Talk},
        step::{By, Close, Datagrams, Device, Icmp, Mac, Part, PortFlag, Step},
    },
    Maker,
};

impl Maker {
    /// What happens, with these rules there from the beginning.
    pub(super) fn script(&mut self, rules: &[Rule]) -> Vec<Step> {
        let mut steps = Vec::new();
        let mut removable: Vec<usize> = (0..rules.len()).collect();
        if self.rng.chance(10) {
            // Before anything is said.
            steps.extend(self.judge());
        }
        for talk in 0..self.talks.len() {
            if self.rng.chance(8) {
                steps.push(Step::Knock(talk, 3));
            }
            if self.rng.chance(6) {
                steps.extend(self.lone(talk));
            }
            steps.push(Step::Open(talk));
            steps.push(Step::Exchange(talk, self.rng.pick(&[2, 3, 4])));
        }
        // By now netfast has vetted what it has learned.
        steps.push(Step::Pause(10));
        for talk in 0..self.talks.len() {
            steps.push(Step::Exchange(talk, 2));
        }
        for sieve in self.sieves.clone() {
            steps.extend(self.probe(sieve));
        }
        for rule in rules {
            steps.extend(self.marked(rule));
        }
        if let Some(helper) = rules.iter().position(|rule| matches!(rule, Rule::Helper(_))) {
            steps.extend(self.ftp());
            if self.rng.chance(60) {
                removable.retain(|rule| *rule != helper);
                steps.extend([Step::RemoveRule(helper), Step::Exchange(0, 3)]);
                steps.extend(self.ftp());
            }
        }
        for _ in 0..5 + self.rng.below(10) {
            let is_event = self.rng.chance(30);
            let more = if is_event {
                self.event(&mut removable)
            } else {
                self.traffic()
            };
            steps.extend(more);
            if is_event {
                // What it did to whom.
                for talk in 0..self.talks.len() {
                    if self.rng.chance(70) {
                        steps.push(Step::Exchange(talk, 2));
                    }
                }
                for talk in self.lone.clone() {
                    steps.push(Step::Lone(talk, 2));
                }
            }
        }
        for talk in 0..self.talks.len() {
            steps.push(Step::Exchange(talk, 2));
            if self.rng.chance(30) {
                steps.extend(self.close(talk));
            }
        }
        steps
    }

    pub(super) fn by(&mut self) -> By {
        self.rng.pick(&[By::Client, By::Server])
    }

    fn close(&mut self, talk: usize) -> Vec<Step> {
        let (first, second) = self.rng.pick(&[(By::Client, By::Server), (By::Server, By::Client)]);
        let mut steps = vec![Step::Finish(talk, first), Step::Acknowledge(talk, second)];
        if self.rng.chance(50) {
            // Half closed: the other goes on.
            steps.push(Step::Send(talk, second, Odd::Plain(100)));
        }
        steps.extend([Step::Finish(talk, second), Step::Acknowledge(talk, first)]);
        steps
    }

    /// Something that a conversation sends.
    fn traffic(&mut self) -> Vec<Step> {
        let talk = self.rng.below(self.talks.len());
        let by = self.by();
        match self.rng.weighted(&[
            (60, 0),
            (5, 1),
            (5, 2),
            (4, 3),
            (5, 4),
            (6, 5),
            (4, 6),
            (4, 7),
            (5, 8),
            (4, 9),
            (4, 10),
            (2, 11),
            (2, 12),
            (6, 13),
            (2, 14),
            (6, 15),
            (if self.shape.br_netfilter { 0 } else { 8 }, 16),
        ]) {
            0 => {
                let caught = if self.rng.chance(30) { self.caught(talk) } else { None };
                let odd = caught.unwrap_or_else(|| self.odd(talk));
                let mut steps = vec![Step::Send(talk, by, odd)];
                if self.rng.chance(50) {
                    steps.push(Step::Exchange(talk, self.rng.pick(&[1, 2])));
                }
                steps
            }
            1 => self.close(talk),
            2 => {
                let mut steps = self.close(talk);
                steps.extend([Step::Reopen(talk), Step::Exchange(talk, 3)]);
                steps
            }
            3 => vec![Step::Reset(talk, by), Step::Exchange(talk, 1)],
            4 => vec![Step::Reopen(talk), Step::Exchange(talk, 3)],
            5 => {
                let kind = self.rng.pick(&[Icmp::Port, Icmp::TooBig(1200), Icmp::Time]);
                vec![Step::Error(talk, by, kind), Step::Exchange(talk, 2)]
            }
            6 => vec![Step::Echo(talk, 3)],
            7 => {
                let close = self
                    .rng
                    .pick(&[Close::HalfByClient, Close::HalfByServer, Close::ResetByClient]);
                vec![Step::Transfer(talk, self.rng.pick(&[1, 60, 300]), close)]
            }
            8 => vec![Step::HostTalk(self.container(), 3, self.family())],
            15 => self.lone(talk),
            16 => self.among_neighbours(talk),
            11 => {
                let part = self.rng.pick(&[Part::All, Part::Use, Part::Learn]);
                vec![Step::SwitchedOff(talk, part), Step::Exchange(talk, 2)]
            }
            12 => vec![Step::Torn(talk), Step::Exchange(talk, 2)],
            13 => vec![Step::Datagrams(talk, self.datagrams())],
            14 => {
                let (from, family) = (self.container(), self.family());
                match self.on_bridge(from, true) {
                    Some(to) => vec![Step::Relayed(from, to, family)],
                    None => vec![Step::HostTalk(from, 3, family)],
                }
            }
            10 => vec![Step::OneWay(talk, by, self.rng.pick(&[4, 12]))],
            _ => vec![Step::Pause(self.rng.pick(&[10, 40, 80])), Step::Exchange(talk, 2)],
        }
    }

    pub(super) fn datagrams(&mut self) -> Datagrams {
        let rng = &mut self.rng;
        let (size, segments) = rng.weighted(&[
            (3, (1, 1)),
            (4, (200, 1)),
            (3, (1464, 1)),
            (2, (3000, 1)),
            (2, (100, 10)),
            (2, (1400, 3)),
        ]);
        Datagrams {
            rounds: rng.pick(&[1, 5, 8]),
            size,
            segments: if self.shape.xdp { 1 } else { segments },
        }
    }

    pub(super) fn odd(&mut self, talk: usize) -> Odd {
        let odd = self.any_odd(talk);
        self.of_family(self.talks[talk].family, odd)
    }

    fn any_odd(&mut self, talk: usize) -> Odd {
        let Talk { protocol, client, .. } = self.talks[talk];
        let is_tcp = protocol == Protocol::Tcp;
        let neighbour = self.on_bridge(client, true);
        let rng = &mut self.rng;
        match rng.below(42) {
            0 | 1 => Odd::Plain(rng.pick(&[0, 1, 3, 8, 15, 17, 200, 1300])),
            2 => Odd::Full { df: rng.chance(50) },
            3 => Odd::Ttl(rng.pick(&[0, 1, 1])),
            4 => Odd::Ttl(rng.pick(&[2, 3, 128, 255])),
            5 => Odd::Dscp(rng.pick(&[8, 46, 63])),
            6 => Odd::Ecn(rng.pick(&[1, 2, 3])),
            7 | 34 => Odd::IpOptions,
            8 => Odd::Fragments {
                size: rng.pick(&[16, 24]),
                reversed: rng.chance(30),
                first_only: rng.chance(20),
            },
            9 => Odd::ReservedBit,
            10 => Odd::NoDf,
            11 | 33 => Odd::BadIpChecksum,
            12 | 13 => Odd::BadChecksum,
            36 => Odd::ZeroChecksum,
            14 | 35 => Odd::Vlan(rng.pick(&[0, 5])),
            15 => Odd::Protocol(rng.pick(&[132, 47, 1])),
            16 => match neighbour {
                Some(neighbour) => Odd::SpoofedAddress(neighbour),
                None => Odd::StrangeAddress,
            },
            17 => Odd::StrangeAddress,
            18 => match neighbour {
                Some(neighbour) => Odd::SpoofedMac(neighbour),
                None => Odd::StrangeMac,
            },
            19 => Odd::MulticastMac,
            20 => Odd::BroadcastMac,
            21 => Odd::StrangeMac,
            22 => match neighbour {
                Some(neighbour) => Odd::WrongMac(neighbour),
                None => Odd::MulticastAddress,
            },
            23 if is_tcp => Odd::Flags(rng.pick(&[0, 0x08, 0x20, 0x28, 0x03, 0x06, 0x30, 0x50, 0xff])),
            24 if is_tcp => Odd::TcpOptions { long: rng.chance(50) },
            25 if is_tcp && !self.shape.strict => Odd::OutOfWindow(rng.pick(&[200_000, 2_000_000_000])),
            26 | 37 => Odd::Padded(rng.pick(&[1, 8, 18])),
            38 => Odd::Needle,
            39 if is_tcp => Odd::Window(rng.pick(&[0, 500, 5000])),
            40 if is_tcp => Odd::Sack,
            27 => rng.pick(&[Odd::Truncated(4), Odd::BadHeaderLength, Odd::NotIp]),
            28 => Odd::BadLength,
            29 | 30 if !self.shape.xdp => Odd::Gso {
                size: rng.pick(&[100, 536, 1000, 1400, 1448]),
                count: rng.pick(&[2, 3, 10]),
            },
            31 | 32 if is_tcp => Odd::Flags(rng.pick(&[0, 0x08, 0x20, 0x28])),
            41 => Odd::Burst(rng.pick(&[3, 8])),
            // Those of TCP, where it is UDP.
            _ => Odd::Plain(rng.pick(&[2, 500, 1472])),
        }
    }

    /// Something that happens to the host.
    fn event(&mut self, removable: &mut Vec<usize>) -> Vec<Step> {
        if !self.shape.br_netfilter && self.rng.chance(32) {
            return self.unjudged();
        }
        let container = self.container();
        let bridge = self.rng.below(self.shape.bridges.len());
        let uplink = self.rng.below(2);
        let family = self.family();
        let step = match self.rng.weighted(&[
            (22, 0),
            (12, 1),
            (5, 2),
            (8, 3),
            (8, 4),
            (7, 5),
            (4, 6),
            (6, 7),
            (8, 8),
            (6, 9),
            (1, 10),
            (3, 11),
            (4, 12),
            (4, 13),
            (4, 14),
            (38, 15),
        ]) {
            15 => return self.judge(),
            1 if !removable.is_empty() => Step::RemoveRule(removable.swap_remove(self.rng.below(removable.len()))),
            0 | 1 => return self.added(),
            2 => Step::Stop(container),
            3 => Step::Replace(container, self.rng.pick(&[Mac::Same, Mac::Other])),
            4 => {
                Step::Rename(
                    self.rng
                        .pick(&[Device::Bridge(bridge), Device::Veth(container), Device::Uplink(uplink)]),
                )
            }
            5 => Step::Route(self.rng.weighted(&[(1, 0), (2, 1)]), family),
            6 => Step::PolicyRule(container, family),
            7 => Step::Neighbour(uplink, self.rng.chance(30), family),
            8 => {
                let device = self.rng.pick(&[
                    Device::Uplink(uplink),
                    Device::Uplink(0),
                    Device::Veth(container),
                    Device::Bridge(bridge),
                ]);
                return self.mtu(device);
            }
            9 => Step::CallIptables(bridge, self.rng.chance(60), family),
            10 => Step::CallIptablesAll(self.rng.chance(50), family),
            11 => Step::Forwarding(false, family),
            12 => Step::Address(uplink, family),
            13 => Step::Qdisc(Device::Veth(container), Shaper::Fifo),
            _ => Step::Port(container, self.rng.pick(&[PortFlag::Isolated, PortFlag::Hairpin])),
        };
        vec![step]
    }

    /// A rule comes, and packets that it catches.
    fn added(&mut self) -> Vec<Step> {
        let rule = self.rule();
        let mut steps = vec![Step::AddRule(rule)];
        if let Rule::Sieve(_, sieve, _) = rule {
            steps.extend(self.probe(sieve));
        }
        steps.extend(self.marked(&rule));
        steps
    }

    /// An MTU, and packets that no longer fit, or do again.
    fn mtu(&mut self, device: Device) -> Vec<Step> {
        let mut steps = vec![Step::Mtu(device, self.narrow_mtu())];
        for talk in 0..self.talks.len() {
            let by = self.by();
            steps.push(Step::Send(talk, by, Odd::Full { df: true }));
            steps.push(Step::Exchange(talk, 1));
            steps.push(Step::Send(
                talk,
                by,
                Odd::Full {
                    df: self.rng.chance(60),
                },
            ));
        }
        if self.rng.chance(40) {
            steps.push(Step::Mtu(device, 1500));
            for talk in 0..self.talks.len() {
                steps.push(Step::Send(talk, By::Client, Odd::Full { df: true }));
            }
        }
        steps
    }
}
