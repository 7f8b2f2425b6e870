//! Plays a scenario in an arena, and notes what can be seen.

use std::{
    collections::BTreeSet,
    net::SocketAddr,
    thread,
    time::{Duration, Instant},
};

use netfast_common::reason::{FAST, Reason};
use netfast_tests::seeds::{
    coverage::Coverage,
    family::Family,
    keep::Part,
    odd::Odd,
    rule::Rule,
    scenario::Place,
    step::{By, Step},
};

use super::{
    super::{
        wire::{FIRST_ID, Packet},
        world::{self, CONNTRACK, Step as Noted},
    },
    arena::{Arena, Got, Sockets},
    packets, rules,
    settle::{Expect, Noted as Seen, Patience, settle},
    talks::{Live, next_hop},
};

/// Ports that mean something in every scenario.
const FIXED_PORTS: [u16; 18] = [
    21, 53, 7000, 7001, 7100, 7101, 7200, 7300, 8000, 8001, 8002, 8080, 8081, 8082, 9, 80, 47_000, 48_000,
];

/// Reasons that no traffic can cause, why, and where they are tested instead.
const BEYOND: [(Reason, &str); 3] = [
    (
        Reason::OvsActions,
        "there is no datapath of Open vSwitch; netns::openvswitch, emulated",
    ),
    (
        Reason::RewriteFailed,
        "only if the kernel has no memory to copy the headers of one packet; host tests: rewrite::tests of netfast-ebpf",
    ),
    (
        Reason::TableFull,
        "an LRU table gives another flow's place away, unless all its places are being written to in this very moment, \
         and it has 1024 at least; host tests: pairs::tests of netfast-ebpf",
    ),
];

/// What came of a scenario.
#[derive(Clone, Debug, Default)]
pub struct Record {
    pub steps: Vec<Noted>,
    /// Client ports of connections that were reset.
    pub resets: BTreeSet<u16>,
    /// Client ports of TCP connections of which conntrack has not seen the handshake.
    pub loose: BTreeSet<u16>,
    /// Sequence numbers that SYNPROXY has chosen.
    pub cookies: BTreeSet<u32>,
    /// Ports that the script has chosen.
    pub ports: BTreeSet<u16>,
    pub coverage: Coverage,
}

/// A scenario that is being played.
pub struct Play<'a> {
    pub arena: &'a mut Arena,
    pub part: &'a Part,
    pub live: Vec<Live>,
    pub patience: &'a Patience,
    /// Who has said something to the host's listener last.
    pub heard_by_host: Option<SocketAddr>,
    record: Record,
    lines: Vec<String>,
    ids: BTreeSet<u16>,
    first_id: usize,
    /// Identification of the packet that was sent last.
    pub last_id: u16,
}

/// Plays it, in an arena that may have seen others before.
pub fn play(arena: &mut Arena, part: &Part, patience: &Patience) -> Record {
    begin(arena, part, patience);
    let (counted, by_xdp) = (reasons(arena), by_xdp(arena));
    let mut play = Play {
        live: (0..part.scenario.talks.len())
            .map(|number| Live::new(&part.scenario, number))
            .collect(),
        arena,
        part,
        patience,
        heard_by_host: None,
        record: Record::default(),
        lines: Vec::new(),
        ids: BTreeSet::new(),
        first_id: 0,
        last_id: FIRST_ID,
    };
    for number in &part.steps {
        let step = &part.scenario.steps[*number];
        // Numbers of a step's own, so that what differs in one step does not differ in all that follow.
        play.ids.clear();
        play.first_id = number * 16;
        play.step(*number, step);
        play.close(format!("{number}: {step:?}"));
    }
    play.record.ports.extend(FIXED_PORTS);
    let talks = part.scenario.talks.iter();
    play.record
        .ports
        .extend(talks.flat_map(|talk| [talk.port, talk.lone_port()]));
    play.lines = conntrack(play.arena);
    play.close(CONNTRACK.to_owned());
    let mut record = play.record;
    record.coverage.note(part);
    for (number, (after, before)) in reasons(arena).into_iter().zip(counted).enumerate() {
        let count = after - before;
        let reason = Reason::ALL.iter().find(|reason| reason.number() as usize == number);
        match reason {
            Some(reason) => *record.coverage.reasons.entry(reason.name().to_owned()).or_default() += count,
            None if number == FAST as usize => record.coverage.fast_packets += count,
            None => {}
        }
    }
    record.coverage.xdp_packets += self::by_xdp(arena) - by_xdp;
    for (reason, why) in BEYOND {
        record.coverage.beyond.insert(reason.name().to_owned(), why.to_owned());
    }
    record
}

/// Makes the host what the scenario begins with.
fn begin(arena: &mut Arena, part: &Part, patience: &Patience) {
    let before = Seen::read(arena);
    let is_dirty = !arena.undo.is_empty();
    let was_legacy = arena.has_legacy;
    arena.undo_all().expect("the host as it was");
    rules::load(arena, part).expect("rules that the kernel takes");
    let steps = part.steps.iter().map(|number| &part.scenario.steps[*number]);
    let added = steps.filter_map(|step| {
        if let Step::AddRule(rule) = step {
            Some(rule)
        } else {
            None
        }
    });
    let initial = part.rules.iter().map(|number| &part.scenario.rules[*number]);
    let queues = initial.clone().chain(added).any(|rule| matches!(rule, Rule::Queue(_)));
    arena.listen_to_queue(queues).expect("a queue");
    let judges_new = initial.clone().any(Rule::judges_each_new_packet);
    let mut judging = initial.filter(|rule| rule.judges_each_packet()).map(Rule::family);
    let judged = judging
        .clone()
        .find(|family| *family == Family::V4)
        .or_else(|| judging.next());
    let is_judged = judged.is_some();
    let all = arena.devices();
    let is_whole = |seen: &Seen| seen.devices(Family::V6) >= all;
    let is_partly_slow = before.as_ref().is_some_and(|seen| !is_whole(seen));
    let expect = if let (Some(family), true) = (judged, arena.has_legacy) {
        Expect::JudgedLater(family)
    } else if was_legacy != arena.has_legacy {
        Expect::Found
    } else if let Some(family) = judged {
        Expect::Judged(family)
    } else if is_dirty || is_partly_slow || judges_new {
        Expect::Planned
    } else {
        Expect::Announced
    };
    settle(arena, before.as_ref(), expect, patience);
    // What an earlier scenario has put on the slow path comes back; that is about coverage only.
    let deadline = Instant::now() + Duration::from_millis(1500);
    while !is_judged && Instant::now() < deadline && Seen::read(arena).is_some_and(|seen| !is_whole(&seen)) {
        thread::sleep(Duration::from_millis(5));
    }
    arena.drain();
}

fn reasons(arena: &Arena) -> Vec<u64> {
    let Some(maps) = &arena.maps else {
        return Vec::new();
    };
    let counts = maps.reasons().expect("the counts");
    counts.iter().map(|count| count.packets).collect()
}

/// Datagrams that XDP has sent to containers.
fn by_xdp(arena: &Arena) -> u64 {
    let counted = arena.maps.as_ref().map(|maps| maps.xdp().expect("the count"));
    counted.map_or(0, |count| count.packets)
}

/// What conntrack knows, without what counts.
fn conntrack(arena: &Arena) -> Vec<String> {
    let lines = world::conntrack(&arena.host, arena.shape.families());
    let words = lines.iter().map(|line| {
        // Entries count packets once a rule with connbytes was there, in whichever namespace; by design only those on
        // the slow path.
        let kept = line
            .split(' ')
            .filter(|word| !word.starts_with("packets=") && !word.starts_with("bytes="));
        kept.collect::<Vec<_>>().join(" ")
    });
    words.collect()
}

impl Play<'_> {
    fn step(&mut self, number: usize, step: &Step) {
        match *step {
            Step::Open(talk) => {
                self.open(talk);
                self.record.coverage.opened += u64::from(self.live[talk].is_open);
                self.record.coverage.refused += u64::from(!self.live[talk].is_open);
            }
            Step::Knock(talk, times) => self.knock(talk, times),
            Step::Exchange(talk, times) => self.exchange(talk, times),
            Step::OneWay(talk, by, times) => self.one_way(talk, by, times),
            Step::Send(talk, by, odd) => self.odd(talk, by, odd),
            Step::Finish(talk, by) => self.finish(talk, by),
            Step::Acknowledge(talk, by) => self.acknowledge(talk, by),
            Step::Reset(talk, by) => self.reset(talk, by),
            Step::Reopen(talk) => self.reopen(talk),
            Step::Error(talk, by, kind) => self.error(talk, by, kind),
            Step::Echo(talk, times) => self.echo(talk, times),
            Step::Transfer(talk, kib, close) => self.transfer(talk, kib, close),
            Step::Datagrams(talk, plan) => self.datagrams(talk, plan),
            Step::Lone(talk, times) => self.lone(talk, times),
            Step::LateAnswer(talk) => self.late_answer(talk),
            Step::HostTalk(place, times, family) => self.host_talk(place, times, family),
            Step::Relayed(from, to, family) => self.relay(from, to, family),
            Step::SwitchedOff(talk, part) => self.switched_off(talk, part),
            Step::Torn(talk) => self.torn(talk),
            Step::Pause(ms) => thread::sleep(Duration::from_millis(ms.into())),
            Step::AddRule(_)
            | Step::RemoveRule(_)
            | Step::Stop(_)
            | Step::Replace(..)
            | Step::Rename(_)
            | Step::Route(..)
            | Step::PolicyRule(..)
            | Step::Neighbour(..)
            | Step::Mtu(..)
            | Step::CallIptables(..)
            | Step::CallIptablesAll(..)
            | Step::Forwarding(..)
            | Step::Address(..)
            | Step::Qdisc(..)
            | Step::Port(..)
            | Step::Vlans(_)
            | Step::Attach(_)
            | Step::Hole(_)
            | Step::Switch(..)
            | Step::Down(_)
            | Step::Up(_)
            | Step::Inner(_) => self.event(number, step),
            Step::Forget(_) => {
                self.note_all_loose(None);
                self.event(number, step);
            }
        }
    }

    /// Of no connection (of a family) conntrack has seen the beginning any more.
    pub fn note_all_loose(&mut self, of: Option<Family>) {
        let talks = self.live.iter().map(|live| live.talk);
        let of_family = talks.filter(|talk| of.is_none_or(|family| talk.family == family));
        self.record.loose.extend(of_family.map(|talk| talk.port));
    }

    /// A packet with another's MAC address moves a station from one port of the bridge to another, which is a change
    /// that netfast has to hear of.
    fn odd(&mut self, talk: usize, by: By, odd: Odd) {
        if !matches!(odd, Odd::SpoofedMac(_)) {
            return self.send_odd(talk, by, odd);
        }
        let before = Seen::read(self.arena);
        self.arena.is_confused = true;
        self.send_odd(talk, by, odd);
        settle(self.arena, before.as_ref(), Expect::Perhaps, self.patience);
    }

    /// Sends packets from a place and notes what everybody gets.
    pub fn say_all(&mut self, place: Place, packets: Vec<Packet>, odd: Odd) -> Got {
        let is_one = matches!(odd, Odd::Fragments { .. });
        let mut sent = Vec::new();
        for (at, packet) in packets.into_iter().enumerate() {
            let id = if is_one && at > 0 { self.last_id } else { self.next_id() };
            let packet = packet.with(|packet| packet.id = id);
            let Some(station) = self.arena.stations.get(&place) else {
                self.note(format!("{} is gone", place.name()));
                return Got::new();
            };
            let hop = next_hop(self.arena, place, packet.destination.ip());
            let mut frame = station.frame(&packet, hop);
            packets::spoil(&mut frame, odd);
            sent.push(match packets::offload(&mut frame, odd) {
                Some(offload) => station.tap().send_offloaded(&frame, &offload),
                None => station.tap().send(&frame),
            });
        }
        for error in sent.into_iter().filter_map(Result::err) {
            self.note(format!("{} cannot send: {error}", place.name()));
        }
        // By design a slow packet may be overtaken by the fast ones right behind it.
        let at = self.lines.len();
        let got = self.hear();
        if matches!(odd, Odd::Burst(_)) {
            self.lines[at..].sort();
        }
        got
    }

    /// Waits for all that was sent, and notes what everybody gets.
    pub fn hear(&mut self) -> Got {
        self.arena.wait().expect("packets arrive");
        let got = self.arena.receive();
        for (place, frames) in &got {
            for frame in frames {
                if let Some(line) = frame.describe(&self.arena.names, &self.ids) {
                    self.lines.push(format!("{}: {line}", place.name()));
                }
            }
        }
        for family in self.arena.shape.families() {
            self.hear_sockets(*family);
        }
        got
    }

    /// Notes what the host's own sockets of a family get.
    fn hear_sockets(&mut self, family: Family) {
        let mut buffer = [0; 1 << 11];
        for is_listener in [true, false] {
            loop {
                let Sockets { listener, caller } = &self.arena.sockets[&family];
                let socket = if is_listener { listener } else { caller };
                let (length, from) = match socket.recv_from(&mut buffer) {
                    Ok(got) => got,
                    Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => break,
                    Err(error) => {
                        self.note(format!("host: {error}"));
                        continue;
                    }
                };
                if is_listener {
                    self.heard_by_host = Some(from);
                }
                let text = buffer[..length].escape_ascii().to_string();
                self.note(format!("host: {length} bytes from {from}: {text}"));
            }
        }
    }

    /// One more line of this step.
    pub fn note(&mut self, line: String) {
        let line = self.arena.without_namespaces(line);
        self.lines.push(line);
    }

    /// A port that conntrack did not choose.
    pub fn note_port(&mut self, port: u16) {
        self.record.ports.insert(port);
    }

    /// A connection goes on that was not opened, as far as conntrack knows.
    pub fn note_loose(&mut self, port: u16) {
        self.record.loose.insert(port);
    }

    /// Somebody on the way has answered for the server.
    pub fn note_cookie(&mut self, number: u32) {
        self.record.cookies.insert(number);
    }

    /// A connection was reset: conntrack forgets it, and may find it again in the middle.
    pub fn note_reset(&mut self, port: u16) {
        self.record.resets.insert(port);
        self.record.loose.insert(port);
    }

    /// The kernel has refused an event.
    pub fn note_vain(&mut self, step: &Step) {
        let count = &mut self.record.coverage.in_vain;
        *count.entry(step.kind().to_owned()).or_default() += 1;
    }

    fn close(&mut self, title: String) {
        let lines = std::mem::take(&mut self.lines);
        self.record.steps.push(Noted { title, lines });
    }

    fn next_id(&mut self) -> u16 {
        let count = (self.first_id + self.ids.len()) % 0x100;
        self.last_id = FIRST_ID + u16::try_from(count).expect("a byte");
        self.ids.insert(self.last_id);
        self.last_id
    }
}
