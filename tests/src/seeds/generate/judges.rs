//! What judges packets: rules that some packets of a flow are caught by, rules that say the same of all, what others
//! attach, and what makes the host drop what it would forward.

use super::{
    super::{
        family::Family,
        judge::{Foreign, Hole, Hook, Prey, Shaper, Spot, Switch},
        odd::Odd,
        rule::{
            Chain, Match, Rule,
            sieve::{Form, Sieve},
            steady::Steady,
        },
        scenario::{Place, Protocol, Talk, Way},
        step::{By, Device, PortFlag, Step},
    },
    Maker,
};

/// The port that FTP's servers listen on, and what conntrack's helper is for.
pub(super) const FTP: u16 = 21;
/// The port that a client tells the server to call it at.
const FTP_DATA: u16 = 25_000;
/// A payload that makes a frame long, see [`LONG`](super::super::judge::LONG).
const LONG: Odd = Odd::Plain(900);

impl Maker {
    /// A rule that catches some packets of a conversation and not the others.
    pub(super) fn sieve(&mut self) -> Rule {
        let sieve = if self.rng.chance(6) {
            // It has one form more than the others.
            Sieve::Tos
        } else {
            self.rng.pick(&Sieve::ALL)
        };
        let what = self.about_somebody(sieve);
        let device = self.device();
        let rng = &mut self.rng;
        let chain = rng.pick(&[Chain::Prerouting, Chain::Forward, Chain::Forward, Chain::Postrouting]);
        let forms = [
            (3, Form::User),
            (2, Form::Raw),
            (2, Form::Marked),
            (1, Form::Legacy),
            (2, Form::Own(chain)),
            (1, Form::OwnIp),
            (2, Form::Set),
            (3, Form::Vmap),
            (2, Form::Jump),
            (2, Form::Map),
            (3, Form::Bridge(chain)),
            // One match only has it.
            (16, Form::Ebtables),
            (1, Form::Netdev(device, false)),
            (1, Form::Netdev(device, true)),
        ];
        let fitting: Vec<(usize, Form)> = forms
            .into_iter()
            .filter(|(_, form)| sieve.fits(*form, what.family))
            .collect();
        let form = rng.weighted(&fitting);
        self.sieves.push(sieve);
        Rule::Sieve(form, sieve, what)
    }

    /// About a conversation that there is, and perhaps about others.
    fn about_somebody(&mut self, sieve: Sieve) -> Match {
        let talk = self.somebody();
        let bridge = |place: Option<Place>| match place {
            Some(Place::Container(bridge, _)) => Some(bridge),
            Some(Place::Outside(_)) | None => None,
        };
        let (client, server) = (bridge(Some(talk.client)), bridge(self.server(talk)));
        let rng = &mut self.rng;
        let protocol = sieve.protocol().or_else(|| rng.chance(50).then_some(talk.protocol));
        let mut what = Match {
            // There is no such bit in IPv6.
            family: if sieve == Sieve::Fragmentable {
                Family::V4
            } else {
                talk.family
            },
            protocol,
            // An acknowledgement belongs to every handshake.
            is_new: (sieve == Sieve::NoPush).then_some(false),
            ..Match::default()
        };
        match rng.below(4) {
            0 => what.from_bridge = client,
            1 => what.to_bridge = server,
            2 if client.is_some() => what.source = Some(talk.client),
            _ => {}
        }
        what
    }

    /// A rule that nothing has to be slow for.
    pub(super) fn steady(&mut self, what: Match) -> Rule {
        let place = self.involved();
        let bridge = self.rng.below(self.shape.bridges.len());
        let steady = self.rng.pick(&[
            Steady::Dscp,
            Steady::Ports,
            Steady::Mac(place),
            Steady::PacketType,
            Steady::ConnMark,
            Steady::Range(bridge),
            Steady::AddressType,
            Steady::Comment,
            Steady::Mark,
            Steady::NamedSet(place),
            Steady::Invalid,
            Steady::Owner,
            Steady::Direction,
            Steady::Port(place),
            Steady::Group,
            Steady::Policy,
        ]);
        Rule::Steady(steady, what)
    }

    /// Packets that a rule catches, among ordinary ones.
    pub(super) fn probe(&mut self, sieve: Sieve) -> Vec<Step> {
        let mut steps = Vec::new();
        for talk in 0..self.talks.len() {
            if sieve
                .protocol()
                .is_some_and(|protocol| protocol != self.talks[talk].protocol)
            {
                continue;
            }
            let (by, family) = (self.by(), self.talks[talk].family);
            let caught = sieve.caught();
            if caught.family().is_none_or(|of| of == family) {
                steps.extend([Step::Send(talk, by, caught), Step::Exchange(talk, 1)]);
            }
        }
        steps
    }

    /// What the host itself sends has the mark of a rule after routing before netfast sees it.
    pub(super) fn marked(&mut self, rule: &Rule) -> Option<Step> {
        let Rule::LateMark(_, what) = rule else { return None };
        let containers = self.containers.iter().copied();
        let of = |place: &Place| {
            what.to_bridge
                .is_none_or(|bridge| matches!(place, Place::Container(of, _) if *of == bridge))
        };
        let found: Vec<Place> = containers.filter(of).collect();
        Some(Step::HostTalk(self.rng.pick(&found), 3, what.family))
    }

    /// A packet that one of the rules catches, if there is such a rule for this conversation.
    pub(super) fn caught(&mut self, talk: usize) -> Option<Odd> {
        let Talk { protocol, family, .. } = self.talks[talk];
        let mut sieves = self.sieves.clone();
        sieves.retain(|sieve| {
            let of = sieve.caught().family();
            sieve.protocol().is_none_or(|of| of == protocol) && of.is_none_or(|of| of == family)
        });
        (!sieves.is_empty()).then(|| self.rng.pick(&sieves).caught())
    }

    /// One of those that talk.
    fn somebody(&mut self) -> Talk {
        self.rng.pick(&self.talks)
    }

    fn server(&self, talk: Talk) -> Option<Place> {
        match talk.way {
            Way::Direct(place) => Some(place),
            Way::Published(number, _) => {
                let (bridge, index) = self.base.published[number].container;
                Some(Place::Container(bridge, index))
            }
            Way::Behind | Way::Host => None,
        }
    }

    /// A container that talks, if one does.
    pub(super) fn involved(&mut self) -> Place {
        let talk = self.somebody();
        let ends = [Some(talk.client), self.server(talk)];
        let containers = ends
            .into_iter()
            .flatten()
            .filter(|place| matches!(place, Place::Container(..)));
        let containers: Vec<Place> = containers.collect();
        if containers.is_empty() {
            return self.container();
        }
        self.rng.pick(&containers)
    }

    /// An interface of the host, mostly a container's.
    fn device(&mut self) -> Device {
        let place = self.involved();
        let bridge = self.rng.below(self.shape.bridges.len());
        let uplink = self.rng.weighted(&[(3, 0), (1, 1)]);
        self.rng.weighted(&[
            (5, Device::Veth(place)),
            (2, Device::Bridge(bridge)),
            (2, Device::Uplink(uplink)),
        ])
    }

    fn foreign(&mut self) -> Foreign {
        let device = self.device();
        let inside = Spot::Inside(self.involved());
        let spot = self.rng.weighted(&[(7, Spot::Host(device)), (3, inside)]);
        let (family, has_mark, is_taken) = (self.somebody().family, self.has_mark, self.shape.xdp);
        let rng = &mut self.rng;
        let (egress, first) = (rng.chance(50), rng.chance(50));
        let hook = match spot {
            Spot::Host(_) => rng.weighted(&[
                (11, Hook::Tcx { egress, first }),
                (4, Hook::Filter { egress }),
                (4, Hook::Block { egress }),
                (2, Hook::XdpNative),
                (2, Hook::XdpGeneric),
                (4, Hook::Netdev { egress }),
            ]),
            Spot::Inside(_) => rng.weighted(&[
                (4, Hook::XdpNative),
                (2, Hook::XdpGeneric),
                (2, Hook::Tcx { egress, first }),
            ]),
        };
        // A bridge has no driver that could run it.
        let hook = match (hook, spot) {
            (Hook::XdpNative, Spot::Host(Device::Bridge(_))) => Hook::XdpGeneric,
            // An interface has a place for one, which is netfast's then (docs/xdp.md): others are refused.
            (Hook::XdpNative | Hook::XdpGeneric, Spot::Host(Device::Uplink(_))) if is_taken => {
                Hook::Tcx { egress, first }
            }
            (hook, _) => hook,
        };
        let prey = rng.weighted(&[
            (25, Prey::All),
            (55, Prey::Long),
            (20, if has_mark { Prey::Marked } else { Prey::Long }),
        ]);
        Foreign {
            family,
            spot,
            hook,
            prey,
        }
    }

    /// Long packets of all conversations, and packets of sockets, which alone see what happens inside containers.
    fn after(&mut self, foreign: Foreign) -> Vec<Step> {
        let mut steps = Vec::new();
        let talks: Vec<usize> = (0..self.talks.len()).collect();
        for talk in &talks {
            let by = self.by();
            if foreign.prey != Prey::All {
                steps.push(Step::Send(*talk, by, LONG));
            }
        }
        if let (Spot::Inside(_), Hook::Tcx { .. }) = (foreign.spot, foreign.hook) {
            let talk = self.rng.pick(&talks);
            steps.push(Step::Datagrams(talk, self.datagrams()));
        }
        steps
    }

    /// Something that judges from now on, and packets that it may catch.
    pub(super) fn judge(&mut self) -> Vec<Step> {
        let place = self.involved();
        let neighbour = self.on_bridge(place, true);
        let bridge = Device::Bridge(self.rng.below(self.shape.bridges.len()));
        let veth = Device::Veth(place);
        let device = self.device();
        let uplink = Device::Uplink(self.rng.below(2));
        let family = self.family();
        let shaped = if self.rng.chance(60) { veth } else { uplink };
        // Whoever asks again soon need not hear of it otherwise.
        let is_forgetful = self.shape.revalidate_ms < 100;
        let talks: Vec<usize> = (0..self.talks.len()).collect();
        let all = |step: fn(usize) -> Step| talks.iter().copied().map(step);
        match self.rng.weighted(&[
            (18, 0),
            (3, 1),
            (2, 2),
            (2, 3),
            (2, 4),
            (2, 5),
            (2, 6),
            (2, 7),
            (2, 8),
            (6, 9),
            (4, 10),
            (if is_forgetful { 8 } else { 0 }, 11),
            (2, 12),
            (1, 13),
        ]) {
            1 => {
                let mut steps = vec![Step::Qdisc(shaped, Shaper::Bucket)];
                steps.extend(all(|talk| Step::Send(talk, By::Client, LONG)));
                steps.extend(all(|talk| Step::Send(talk, By::Server, LONG)));
                steps
            }
            2 => vec![Step::Port(place, PortFlag::Locked)],
            3 => vec![Step::Port(place, PortFlag::Blocked)],
            4 => match neighbour {
                Some(neighbour) => vec![Step::Hole(Hole::Station(place, neighbour))],
                None => vec![Step::Port(place, PortFlag::Blocked)],
            },
            5 => vec![Step::Hole(Hole::Route(place, family))],
            6 => vec![Step::Hole(Hole::Rule(place, family))],
            7 => vec![Step::Hole(Hole::Xfrm(place, family))],
            8 => {
                let mut steps = vec![Step::Hole(Hole::Nexthop)];
                steps.extend(all(|talk| Step::Exchange(talk, 2)));
                steps.push(Step::Hole(Hole::NexthopGone));
                steps
            }
            9 => {
                let switch = self.rng.pick(&[
                    Switch::ReversePath,
                    Switch::Forwarding,
                    Switch::AcceptLocal,
                    Switch::RouteLocalnet,
                ]);
                let device = if switch == Switch::ReversePath { uplink } else { device };
                let mut steps = vec![Step::Switch(device, switch)];
                if switch == Switch::ReversePath && self.rng.chance(60) {
                    steps.push(Step::Route(1, Family::V4));
                }
                steps
            }
            10 => {
                let device = if self.rng.chance(70) { veth } else { bridge };
                let mut steps = vec![Step::Down(device)];
                steps.extend(all(|talk| Step::Exchange(talk, 1)));
                steps.push(Step::Up(device));
                steps
            }
            11 => {
                let whose = self.rng.chance(50).then_some((place, family));
                vec![Step::Forget(whose), Step::Pause(80)]
            }
            12 => {
                let mut steps = vec![Step::Inner(place)];
                for talk in talks {
                    if self.server(self.talks[talk]) == Some(place) {
                        steps.push(Step::Datagrams(talk, self.datagrams()));
                    }
                }
                steps
            }
            13 => vec![Step::Qdisc(shaped, Shaper::Fifo)],
            _ => {
                let foreign = self.foreign();
                let mut steps = vec![Step::Attach(foreign)];
                steps.extend(self.after(foreign));
                steps
            }
        }
    }

    /// Where there is a helper for FTP, somebody speaks FTP by way of a translation: the first conversation.
    pub(super) fn speak_ftp(&mut self) {
        let client = self.container();
        let uplink = self.rng.below(2);
        let way = self.rng.pick(&[Way::Behind, Way::Direct(Place::Outside(uplink))]);
        let talk = &mut self.talks[0];
        *talk = Talk {
            family: Family::V4,
            protocol: Protocol::Tcp,
            client,
            way,
            to_port: FTP,
            ..*talk
        };
    }

    /// Commands of FTP. The helper knows a command only behind a line's end, so it takes two.
    pub(super) fn ftp(&self) -> Vec<Step> {
        let command = Step::Send(0, By::Client, Odd::Ftp(self.talks[0].client, FTP_DATA));
        vec![command.clone(), command]
    }
}
