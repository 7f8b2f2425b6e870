//! What only hosts with IPv6 have, and what only bridges have that nobody judges.

use super::{
    super::{
        family::Family,
        judge::{Foreign, Hook, Prey, Shaper, Spot},
        odd::Odd,
        rule::{Chain, Match, Rule, Verdict},
        scenario::{Place, Way},
        step::{By, Device, PortFlag, Step},
    },
    Maker,
};

/// Extension headers: hop-by-hop options, routing, fragment (of a datagram in one piece), options for the destination.
const EXTENSIONS: [u8; 4] = [0, 43, 44, 60];
/// Router solicitation and advertisement, neighbour solicitation and advertisement, redirect (RFC 4861).
const DISCOVERY: [u8; 5] = [133, 134, 135, 136, 137];

impl Maker {
    /// An odd packet that a conversation's family has: what IPv4 alone has is something of IPv6's own there.
    pub(super) fn of_family(&mut self, family: Family, odd: Odd) -> Odd {
        let is_other = odd.family().is_some_and(|of| of != family);
        if family == Family::V4 || !(is_other || self.rng.chance(12)) {
            return odd;
        }
        let rng = &mut self.rng;
        match rng.below(4) {
            0 => Odd::LinkLocal { source: rng.chance(50) },
            1 | 2 => Odd::Discovery(rng.pick(&DISCOVERY)),
            _ => Odd::Extension(rng.pick(&EXTENSIONS)),
        }
    }

    /// Datagrams that nobody answers, until somebody does, perhaps.
    pub(super) fn lone(&mut self, talk: usize) -> Vec<Step> {
        if !self.lone.contains(&talk) {
            self.lone.push(talk);
        }
        // Before it is 50 ms old netfast does not ask about such a flow.
        let mut steps = vec![
            Step::Lone(talk, 2),
            Step::Pause(60),
            Step::Lone(talk, 2),
            Step::Pause(10),
            Step::Lone(talk, self.rng.pick(&[3, 8])),
        ];
        if self.rng.chance(40) {
            steps.extend([
                Step::LateAnswer(talk),
                Step::Lone(talk, 3),
                Step::LateAnswer(talk),
                Step::Lone(talk, 2),
            ]);
        }
        steps
    }

    /// On a bridge where nobody judges, somebody begins to: between two containers that talk.
    pub(super) fn unjudged(&mut self) -> Vec<Step> {
        let (talk, client, server) = self.neighbours();
        let place = self.rng.pick(&[client, server]);
        let bridge = match place {
            Place::Container(bridge, _) => bridge,
            Place::Outside(_) => 0,
        };
        let device = Device::Veth(place);
        let family = self.family();
        let egress = self.rng.chance(50);
        let what = Match {
            family,
            ..Match::default()
        };
        let step = match self.rng.weighted(&[
            (2, 0),
            (3, 1),
            (2, 2),
            (1, 3),
            (1, 4),
            (2, 5),
            (2, 6),
            (2, 7),
            (1, 8),
            (2, 9),
            (9, 10),
            (2, 11),
        ]) {
            0 => Step::Port(place, PortFlag::Isolated),
            1 => Step::Vlans(place),
            2 => Step::Port(place, PortFlag::NotFlooded),
            3 => Step::Port(place, PortFlag::NotLearning),
            4 => Step::Port(place, PortFlag::Suppressed),
            5 => Step::Port(place, PortFlag::Blocked),
            6 => Step::Attach(Foreign {
                family,
                spot: Spot::Host(device),
                hook: self.rng.pick(&[Hook::Filter { egress }, Hook::Block { egress }]),
                prey: self.rng.pick(&[Prey::All, Prey::Long]),
            }),
            7 => {
                // Once both its ends are.
                let mut steps = vec![Step::Port(client, PortFlag::Isolated)];
                steps.extend(self.among_neighbours(talk));
                steps.push(Step::Port(server, PortFlag::Isolated));
                steps.extend(self.among_neighbours(talk));
                return steps;
            }
            8 => Step::AddRule(Rule::Bridge(Chain::Forward, Verdict::Drop, what)),
            9 if self.rng.chance(50) => Step::CallIptables(bridge, true, family),
            9 => Step::CallIptablesAll(true, family),
            10 => return self.narrow(talk, device),
            _ => Step::Qdisc(device, Shaper::Fifo),
        };
        let mut steps = vec![step];
        steps.extend(self.among_neighbours(talk));
        steps
    }

    /// Longer than a port takes.
    fn narrow(&mut self, talk: usize, device: Device) -> Vec<Step> {
        let mut steps = vec![Step::Mtu(device, self.narrow_mtu())];
        for df in [true, false] {
            for by in [By::Client, By::Server] {
                steps.extend([
                    Step::Send(talk, by, Odd::Full { df }),
                    Step::Exchange(talk, 1),
                    Step::Send(talk, by, Odd::Plain(1430)),
                ]);
            }
        }
        steps
    }

    /// Packets of all kinds between two neighbours: whatever they are, the bridge passes them on, or does not.
    pub(super) fn among_neighbours(&mut self, talk: usize) -> Vec<Step> {
        let mut steps = vec![Step::Exchange(talk, 2), Step::Echo(talk, 1), Step::Lone(talk, 2)];
        let odd = self.odd(talk);
        steps.push(Step::Send(talk, self.by(), odd));
        if self.rng.chance(50) {
            steps.extend([Step::Reopen(talk), Step::Exchange(talk, 1)]);
        } else {
            steps.extend([Step::Send(talk, By::Client, Odd::Plain(900)), Step::Echo(talk, 1)]);
        }
        steps
    }

    /// A conversation of two containers on one bridge, and who they are; any, if there is none.
    fn neighbours(&mut self) -> (usize, Place, Place) {
        let talks = self.talks.iter().enumerate();
        let found: Vec<(usize, Place, Place)> = talks
            .filter_map(|(number, talk)| match (talk.client, talk.way) {
                (Place::Container(bridge, _), Way::Direct(server @ Place::Container(other, _))) if other == bridge => {
                    Some((number, talk.client, server))
                }
                _ => None,
            })
            .collect();
        if found.is_empty() {
            let place = self.involved();
            return (self.rng.below(self.talks.len()), place, place);
        }
        self.rng.pick(&found)
    }

    /// An MTU that not everything fits. A device of less than 1280 has no IPv6 (RFC 8200, 5), and forgets its addresses.
    pub(super) fn narrow_mtu(&mut self) -> u16 {
        let mtus = if self.shape.six {
            [1280, 1300, 1400]
        } else {
            [700, 1000, 1200]
        };
        self.rng.pick(&mtus)
    }
}
