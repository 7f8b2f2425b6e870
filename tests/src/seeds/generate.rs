//! From a seed to a scenario.

use super::{
    family::Family,
    rng::Rng,
    rule::{Chain, Match, Rule, Verdict, sieve::Sieve},
    scenario::{Base, Place, Protocol, Published, Scenario, Shape, Talk, Way},
};

mod judges;
mod script;
mod six;

/// So many seeds in a row have the same shape, so that a run needs new namespaces, and netfast a new start, only once
/// for all of them.
pub const SEEDS_OF_A_SHAPE: u64 = 20;

/// Ports of servers; rules name them, too.
const PORTS: [u16; 3] = [7000, 7001, 53];
/// Client ports: less than those of real sockets.
const FIRST_CLIENT_PORT: u64 = 20_000;
const CLIENT_PORTS: u64 = 20_000;
/// The most conversations of a scenario.
const TALKS: usize = 5;

/// The shape that a seed has.
pub fn shape(seed: u64) -> Shape {
    // Other numbers than those of the scenario.
    let mut rng = Rng::new((seed / SEEDS_OF_A_SHAPE) ^ 0x5eed_0000_0000_0000);
    let mut bridges = vec![0; 1 + rng.below(4)];
    let containers = bridges.len().max(2) + rng.below(9 - bridges.len().max(2));
    for number in 0..containers {
        let bridge = if number < bridges.len() {
            number
        } else {
            rng.below(bridges.len())
        };
        bridges[bridge] += 1;
    }
    Shape {
        bridges,
        br_netfilter: rng.chance(55),
        six: rng.chance(45),
        revalidate_ms: if rng.chance(25) { 60 } else { 10_000 },
        unsummed: rng.chance(25),
        // Seldom: what is only counted is not on the fast path.
        learn_after: if rng.chance(20) { 3 } else { 0 },
        strict: rng.chance(30),
        xdp: rng.chance(40),
    }
}

/// The scenario of a seed.
pub fn scenario(seed: u64) -> Scenario {
    let shape = shape(seed);
    let mut maker = Maker {
        rng: Rng::new(seed),
        containers: shape.containers(),
        base: Base::default(),
        talks: Vec::new(),
        has_queue: false,
        has_mark: false,
        sieves: Vec::new(),
        lone: Vec::new(),
        shape,
    };
    maker.base = maker.base();
    for number in 0..2 + maker.rng.below(TALKS - 1) {
        let talk = maker.talk(seed, number);
        maker.talks.push(talk);
    }
    let rules: Vec<Rule> = (0..maker.rng.weighted(&[(5, 0), (4, 1), (3, 2), (1, 3)]))
        .map(|_| maker.rule())
        .collect();
    if rules.iter().any(|rule| matches!(rule, Rule::Helper(_))) {
        maker.speak_ftp();
    }
    let steps = maker.script(&rules);
    Scenario {
        seed,
        shape: maker.shape,
        base: maker.base,
        rules,
        talks: maker.talks,
        steps,
    }
}

struct Maker {
    rng: Rng,
    shape: Shape,
    containers: Vec<Place>,
    base: Base,
    talks: Vec<Talk>,
    has_queue: bool,
    /// A rule marks packets.
    has_mark: bool,
    /// By what rules catch packets.
    sieves: Vec<Sieve>,
    /// Conversations beside which there are datagrams that nobody answers.
    lone: Vec<usize>,
}

/// What a conversation can be.
#[derive(Clone, Copy)]
enum Path {
    Neighbours,
    Outside,
    Published,
    PublishedByContainer,
    OtherBridge,
    Behind,
    Host,
    BetweenUplinks,
    FromOutsideDirectly,
}

impl Maker {
    fn base(&mut self) -> Base {
        let some = |rng: &mut Rng, percent, count| (0..count).filter(|_| rng.chance(percent)).collect::<Vec<usize>>();
        let bridges = self.shape.bridges.len();
        let (internal, no_icc) = (some(&mut self.rng, 12, bridges), some(&mut self.rng, 12, bridges));
        let published = (0..=self.rng.below(3)).map(|_| {
            let Place::Container(bridge, index) = self.rng.pick(&self.containers) else {
                unreachable!("all of them are containers")
            };
            Published {
                container: (bridge, index),
                address: self.rng.chance(30).then(|| self.rng.below(2)),
            }
        });
        Base {
            published: published.collect(),
            internal,
            no_icc,
            hairpin: self.rng.chance(25),
            routes_between_uplinks: self.rng.chance(40),
        }
    }

    /// One of those that the host has.
    fn family(&mut self) -> Family {
        if self.shape.six && self.rng.chance(60) {
            Family::V6
        } else {
            Family::V4
        }
    }

    fn container(&mut self) -> Place {
        self.rng.pick(&self.containers)
    }

    fn on_bridge(&mut self, of: Place, same: bool) -> Option<Place> {
        let bridge = |place| match place {
            Place::Container(bridge, _) => Some(bridge),
            Place::Outside(_) => None,
        };
        let others = self.containers.iter().copied();
        let found: Vec<Place> = others
            .filter(|other| *other != of && (bridge(*other) == bridge(of)) == same)
            .collect();
        (!found.is_empty()).then(|| self.rng.pick(&found))
    }

    fn talk(&mut self, seed: u64, number: usize) -> Talk {
        let path = self.rng.weighted(&[
            (30, Path::Neighbours),
            (26, Path::Outside),
            (24, Path::Published),
            (6, Path::PublishedByContainer),
            (5, Path::OtherBridge),
            (8, Path::Behind),
            (7, Path::Host),
            (4, Path::BetweenUplinks),
            (3, Path::FromOutsideDirectly),
        ]);
        let client = self.container();
        let outside = Place::Outside(self.rng.weighted(&[(3, 0), (1, 1)]));
        let published = self.rng.below(self.base.published.len());
        let uplink = self.base.published[published].address.unwrap_or(0);
        let (client, way) = match path {
            Path::Neighbours => match self.on_bridge(client, true) {
                Some(server) => (client, Way::Direct(server)),
                None => (client, Way::Direct(outside)),
            },
            Path::Outside => (client, Way::Direct(outside)),
            Path::Published => (Place::Outside(uplink), Way::Published(published, uplink)),
            Path::PublishedByContainer => (client, Way::Published(published, uplink)),
            Path::OtherBridge => match self.on_bridge(client, false) {
                Some(server) => (client, Way::Direct(server)),
                None => (client, Way::Direct(outside)),
            },
            Path::Behind => (client, Way::Behind),
            Path::Host => (if self.rng.chance(30) { outside } else { client }, Way::Host),
            Path::BetweenUplinks => (Place::Outside(0), Way::Direct(Place::Outside(1))),
            Path::FromOutsideDirectly => (outside, Way::Direct(client)),
        };
        let port = FIRST_CLIENT_PORT + (seed.wrapping_mul(TALKS as u64) + number as u64) % CLIENT_PORTS;
        Talk {
            family: self.family(),
            // The host's own TCP would go on by itself, by its timers.
            protocol: if self.rng.chance(50) || way == Way::Host {
                Protocol::Udp
            } else {
                Protocol::Tcp
            },
            client,
            port: u16::try_from(port).expect("a port"),
            way,
            to_port: self.rng.pick(&PORTS),
        }
    }

    /// What a rule is about: never everything, or little would get as far as the fast path.
    fn what(&mut self) -> Match {
        let family = self.family();
        let rng = &mut self.rng;
        let protocol = rng.chance(75).then(|| rng.pick(&[Protocol::Tcp, Protocol::Udp]));
        let mut what = Match {
            family,
            protocol,
            source: None,
            port: None,
            from_bridge: None,
            to_bridge: None,
            is_new: rng.chance(20).then(|| rng.chance(50)),
        };
        match rng.below(4) {
            0 if protocol.is_some() => what.port = Some(rng.pick(&PORTS)),
            1 => what.from_bridge = Some(rng.below(self.shape.bridges.len())),
            2 => what.to_bridge = Some(rng.below(self.shape.bridges.len())),
            _ => what.source = Some(self.container()),
        }
        what
    }

    /// The same, perhaps of conversations only that nobody has answered.
    fn of_new(&mut self, what: Match) -> Match {
        if self.rng.chance(50) {
            return what;
        }
        Match {
            is_new: Some(true),
            protocol: what.protocol.map(|_| Protocol::Udp),
            ..what
        }
    }

    fn rule(&mut self) -> Rule {
        let kind = self.rng.weighted(&[
            (20, 0),
            (10, 1),
            (5, 2),
            (3, 3),
            (3, 4),
            (4, 5),
            (9, 6),
            (3, 7),
            (4, 8),
            (6, 9),
            (7, 10),
            (3, 11),
            (2, 12),
            (2, 13),
            (3, 14),
            (2, 15),
            (2, 16),
            (5, 17),
            (2, 18),
            (2, 19),
            (2, 20),
            (30, 21),
            (24, 22),
        ]);
        if kind == 21 {
            return self.sieve();
        }
        let what = self.what();
        if kind == 22 {
            return self.steady(what);
        }
        let verdict = self
            .rng
            .pick(&[Verdict::Accept, Verdict::Drop, Verdict::Reject, Verdict::Reset]);
        let family = self.family();
        let what = if (11..=16).contains(&kind) || kind == 19 {
            self.of_new(what)
        } else {
            what
        };
        let rng = &mut self.rng;
        match kind {
            0 => Rule::User(verdict, what),
            1 => {
                let chain = rng.pick(&[Chain::Prerouting, Chain::Forward, Chain::Postrouting]);
                let priority = rng.pick(&[-450, -150, -10, 10, 150]);
                Rule::Own(chain, priority, verdict, what)
            }
            2 => {
                let chain = rng.pick(&[Chain::Forward, Chain::Forward, Chain::Prerouting, Chain::Postrouting]);
                Rule::Bridge(chain, rng.pick(&[Verdict::Accept, Verdict::Drop]), what)
            }
            3 => Rule::Notrack(what),
            4 => Rule::Helper(judges::FTP),
            5 => Rule::Dscp(rng.pick(&[8, 46]), what),
            6 => Rule::Ttl(rng.pick(&[1, 33, 33, 63, 200, 200]), what),
            7 => Rule::TtlRaised(what),
            8 => Rule::Mss(rng.pick(&[536, 1000, 1400]), family),
            9 => {
                self.has_mark = true;
                Rule::Mark(what)
            }
            10 => Rule::LateMark(rng.pick(&[1, 0x8000_0000]), what),
            11 => Rule::Limit(rng.pick(&[1, 5, 10]), what),
            12 => Rule::HashLimit(rng.pick(&[1, 5, 10]), what),
            13 => Rule::Quota(rng.pick(&[100, 500, 3000]), what),
            14 => Rule::Nth(rng.pick(&[2, 3, 7]), what),
            15 => Rule::ConnBytes(rng.pick(&[2, 6, 12]), what),
            16 => Rule::Length(rng.pick(&[60, 200, 1000]), what),
            17 => {
                self.has_queue = true;
                Rule::Queue(what)
            }
            18 => Rule::Synproxy(rng.pick(&PORTS), family),
            19 => Rule::Recent(rng.pick(&[3, 8, 15]), what),
            _ => Rule::Account(what),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeSet, HashSet};

    use super::*;
    use crate::seeds::{coverage::Coverage, keep::Part, odd::Odd, step::Step};

    #[test]
    fn a_seed_is_always_the_same_scenario() {
        for seed in [0, 1, 77, 1 << 40] {
            assert_eq!(scenario(seed), scenario(seed));
            let text = serde_json::to_string(&scenario(seed)).expect("a scenario can be stored");
            let again: Scenario = serde_json::from_str(&text).expect("and read");
            assert_eq!(again, scenario(seed));
        }
        assert_ne!(scenario(1).steps, scenario(2).steps);
    }

    #[test]
    fn shapes_are_within_their_bounds_and_shared() {
        let mut shapes = HashSet::new();
        for seed in 0..2000 {
            let shape = shape(seed);
            let containers = shape.containers().len();
            assert!(
                (1..=4).contains(&shape.bridges.len()) && (2..=8).contains(&containers),
                "{shape:?}"
            );
            shapes.insert(format!("{shape:?}"));
        }
        let most = 2000 / usize::try_from(SEEDS_OF_A_SHAPE).expect("small");
        assert!(shapes.len() > 20 && shapes.len() <= most, "{}", shapes.len());
    }

    /// A scenario is of use only if the translated ports of its conversations do not depend on chance.
    #[test]
    fn conversations_have_ports_of_their_own() {
        for seed in 0..500 {
            let scenario = scenario(seed);
            let ports: BTreeSet<u16> = scenario.talks.iter().map(|talk| talk.port).collect();
            assert_eq!(ports.len(), scenario.talks.len(), "{scenario}");
        }
    }

    #[test]
    fn segments_are_in_their_windows_where_windows_are_judged() {
        for seed in 0..2000 {
            let scenario = scenario(seed);
            for step in &scenario.steps {
                if let Step::Send(_, _, Odd::OutOfWindow(_)) = step {
                    assert!(!scenario.shape.strict, "{scenario}");
                }
            }
        }
    }

    /// Only hosts with IPv6 have conversations, rules and odd packets of it, and what IPv4 alone has is not sent by IPv6.
    #[test]
    fn families_are_those_of_the_host() {
        let mut sixes = 0;
        for seed in 0..1000 {
            let scenario = scenario(seed);
            let of_six = scenario.talks.iter().filter(|talk| talk.family == Family::V6).count();
            let rules = scenario.rules.iter().filter(|rule| rule.family() == Family::V6).count();
            assert!(scenario.shape.six || of_six + rules == 0, "{scenario}");
            sixes += of_six;
            for step in &scenario.steps {
                if let Step::Send(talk, _, odd) = step {
                    let family = scenario.talks[*talk].family;
                    assert!(odd.family().is_none_or(|of| of == family), "{odd:?} in {scenario}");
                }
            }
        }
        assert!(sixes > 500, "{sixes}");
    }

    #[test]
    fn every_kind_of_judge_comes_often_enough() {
        const SEEDS: u64 = 3000;
        let mut coverage = Coverage::default();
        for seed in 0..SEEDS {
            coverage.note(&Part::whole(&scenario(seed)));
        }
        // More than a run of as many must have had: the kernel may refuse some.
        assert_eq!(coverage.seldom(SEEDS / 100), [""; 0], "{coverage}");
    }

    /// Only where such a rule is are packets slow for want of an answer.
    #[test]
    fn datagrams_that_nobody_answers_meet_rules_about_what_is_new() {
        let mut met = Vec::new();
        for seed in 0..3000 {
            let Scenario { rules, steps, .. } = scenario(seed);
            let is_initial = rules.iter().any(Rule::judges_each_new_packet);
            let mut after = steps.iter().skip_while(|step| {
                !is_initial && !matches!(step, Step::AddRule(rule) if rule.judges_each_new_packet())
            });
            if after.any(|step| matches!(step, Step::Lone(..))) {
                met.push(seed);
            }
        }
        assert!(met.len() > 60, "{met:?}");
    }

    #[test]
    fn ftp_goes_on_after_its_helper_was_removed() {
        let mut count = 0;
        for seed in 0..3000 {
            let Scenario { rules, steps, .. } = scenario(seed);
            let is_helper = |rule: &usize| matches!(rules[*rule], Rule::Helper(_));
            let mut after = steps
                .iter()
                .skip_while(|step| !matches!(step, Step::RemoveRule(rule) if is_helper(rule)));
            count += u32::from(after.any(|step| matches!(step, Step::Send(_, _, Odd::Ftp(..)))));
        }
        assert!(count >= 20, "{count}");
    }
}
