//! A packet test is a row: what is there, then packets in, one after the other, each with the verdict, the packet as it
//! comes out, and all that it changes. Rows are data, so that a test can tell which reasons they cover.

use std::{
    fmt::Write as _,
    time::{Duration, Instant},
};

use netfast_common::{
    device::{Kind, NetnsNumber},
    flow::Flow,
    net::Ip4,
    reason::{FAST, Reason},
};
use netfast_tests::{
    packet::{self, Packet},
    scene::{Dev, Way},
};

use super::{
    change::{Change, Given, In, changed, stored},
    harness::{Context, Hook, Lab, Outcome, now_ns},
    six,
    state::{DUE, NOW, State},
};

/// `TCX_NEXT`: the next program, then the stack.
const NEXT: i32 = -1;
/// `TC_ACT_REDIRECT`.
const REDIRECT: i32 = 7;
/// Bytes of an Ethernet header.
const ETHERNET: usize = 14;
/// Times in the programs go by steps of 4 ms, at HZ=250: a candidate is forgotten after 20, a pause counts from 8 on, and so
/// it may for two packets that are hardly more than 4 apart. A row that takes longer than this for a packet, on a machine
/// with much else to do, proves nothing when it fails, and starts again.
const IN_TIME: Duration = Duration::from_micros(1500);
/// The same for all packets of a row.
const IN_TIME_AT_MOST: Duration = Duration::from_millis(15);
/// How often a row may start again.
const ATTEMPTS: u32 = 200;

/// One packet.
pub struct Step {
    hook: Hook,
    dev: Dev,
    from: Option<Dev>,
    frame: Vec<u8>,
    mark: u32,
    priority: u32,
    gso_size: u32,
    address: u32,
    before: Vec<Given>,
    reason: Option<Reason>,
    verdict: i32,
    out: Vec<u8>,
    out_mark: Option<u32>,
    out_priority: Option<u32>,
    candidate: Option<bool>,
    changes: Vec<Change>,
}

/// A description, what is there, and packets.
pub struct Row {
    what: String,
    given: Vec<Given>,
    steps: Vec<Step>,
}

/// A row.
pub fn row(what: impl Into<String>, given: Vec<Given>, steps: Vec<Step>) -> Row {
    Row {
        what: what.into(),
        given,
        steps,
    }
}

/// Any frame at any hook. Without an expectation it must pass unseen.
pub fn frame_at(hook: Hook, dev: Dev, from: Option<Dev>, frame: Vec<u8>) -> Step {
    Step {
        hook,
        dev,
        from,
        out: frame.clone(),
        frame,
        mark: 0,
        priority: 0,
        gso_size: 0,
        address: 0,
        before: Vec::new(),
        reason: None,
        verdict: NEXT,
        out_mark: None,
        out_priority: None,
        candidate: None,
        changes: Vec::new(),
    }
}

/// Any frame where packets of this way enter.
pub fn frame_enters(way: &Way, frame: Vec<u8>) -> Step {
    let hook = match way.enters.kind() {
        Some(Kind::Endpoint) => Hook::EndpointIn,
        Some(Kind::Bridge) => Hook::BridgeOut,
        Some(Kind::Uplink) | None => Hook::UplinkIn,
    };
    frame_at(hook, way.enters, None, frame)
}

/// A packet where packets of this way enter.
pub fn enters(way: &Way, packet: &Packet) -> Step {
    frame_enters(way, packet.bytes())
}

/// A packet, as it leaves, where packets of this way leave.
pub fn leaves(way: &Way, packet: &Packet) -> Step {
    let hook = match way.leaves.kind() {
        Some(Kind::Endpoint) => Hook::EndpointOut,
        Some(Kind::Bridge) => Hook::BridgeIn,
        Some(Kind::Uplink) | None => Hook::UplinkOut,
    };
    // A bridge's own ingress names the bridge as the receiver.
    let from = if hook == Hook::BridgeIn {
        Some(way.leaves)
    } else {
        way.via
    };
    frame_at(hook, way.leaves, from, packet.bytes())
}

/// A packet of this way, slow where it enters, and what becomes of its candidate where it leaves.
pub fn through(way: &Way, reason: Reason, end: impl FnOnce(Step) -> Step) -> Vec<Step> {
    let packet = way.packet();
    vec![
        enters(way, &packet).slow(reason),
        end(leaves(way, &way.leaving(&packet))),
    ]
}

/// A packet that a bridge hands to the host on its way.
pub fn passes_to_host(packet: &Packet) -> Step {
    frame_at(Hook::BridgeIn, Dev::Bridge, Some(Dev::Bridge), packet.bytes())
}

/// A forwarded packet on its way into a bridge.
pub fn passes_into_bridge(from: Dev, packet: &Packet) -> Step {
    frame_at(Hook::BridgeOut, Dev::Bridge, Some(from), packet.bytes())
}

impl Step {
    /// It takes the slow path from here.
    pub fn slow(mut self, reason: Reason) -> Self {
        let bytes = self.frame.len() - ETHERNET;
        self.reason = Some(reason);
        self.changes.push(Change::Count(reason.number(), bytes));
        if self.dev.kind().is_some() {
            self.changes.push(Change::InSlow(self.dev, bytes));
            self.changes.extend(self.suspicions(reason));
        }
        self.candidate.get_or_insert(leaves_candidate(reason));
        self
    }

    /// Whatever its source address, it is not counted as spoofed.
    pub fn honest(mut self) -> Self {
        self.changes.retain(|change| !matches!(change, Change::Spoofed(_)));
        self
    }

    /// What an endpoint is counted for besides.
    fn suspicions(&self, reason: Reason) -> Vec<Change> {
        let mut changes = Vec::new();
        if self.dev.kind() != Some(Kind::Endpoint) {
            return changes;
        }
        let at = |range: std::ops::Range<usize>| self.frame.get(range).unwrap_or_default();
        let foreign =
            |address: &[u8]| address.len() == 4 && address != [0; 4] && address != self.dev.address().octets();
        let spoofed = match at(12..14) {
            [0x08, 0x00] => foreign(at(26..30)),
            [0x86, 0xdd] => self.is_foreign6(at(22..38)),
            [0x08, 0x06] => at(22..28) != self.dev.mac() || foreign(at(28..32)),
            _ => false,
        };
        if spoofed || at(6..12) != self.dev.mac() {
            changes.push(Change::Spoofed(self.dev));
        }
        if matches!(reason, Reason::Malformed | Reason::BadIpChecksum | Reason::BadChecksum) {
            changes.push(Change::Malformed(self.dev));
        }
        changes
    }

    /// Whether an IPv6 address is neither the endpoint's, nor of its link, nor none.
    fn is_foreign6(&self, address: &[u8]) -> bool {
        let Ok(address) = <[u8; 16]>::try_from(address).map(std::net::Ipv6Addr::from) else {
            return false;
        };
        !address.is_unspecified()
            && !address.is_unicast_link_local()
            && packet::six::address(self.dev.address()) != Some(address)
    }

    /// It takes the fast path of this way.
    pub fn fast(self, way: &Way, out: &Packet) -> Self {
        self.fast_in(In::Flows, way, out)
    }

    /// The same, with the flow in this table.
    pub fn fast_in(mut self, table: In, way: &Way, out: &Packet) -> Self {
        self.verdict = REDIRECT;
        // What follows the IP packet is cut off.
        self.out = out.clone().with(|out| out.trailer.clear()).bytes();
        let bytes = self.out.len() - ETHERNET;
        self.changes.extend([
            Change::Count(FAST, bytes),
            Change::InFast(way.enters, bytes),
            Change::OutFast(way.leaves, bytes),
            changed(table, way, move |flow| {
                flow.packets += 1;
                flow.bytes += bytes as u64;
                flow.used_ns = NOW;
            }),
        ]);
        self
    }

    /// It is forwarded directly, as it is.
    pub fn direct(mut self, from: Dev, to: Dev) -> Self {
        self.verdict = REDIRECT;
        let bytes = self.frame.len() - ETHERNET;
        self.changes.extend([
            Change::Count(FAST, bytes),
            Change::InFast(from, bytes),
            Change::OutFast(to, bytes),
        ]);
        self
    }

    /// What becomes of the candidate, at the end of its way: it is consumed.
    pub fn ends(mut self, reason: Reason) -> Self {
        self.reason = Some(reason);
        self.changes
            .push(Change::Count(reason.number(), self.frame.len() - ETHERNET));
        self.candidate.get_or_insert(false);
        self
    }

    /// What becomes of the candidate, in between: it is kept.
    pub fn passes(mut self, reason: Reason) -> Self {
        self.candidate = Some(true);
        self.ends(reason)
    }

    /// The packet's flow is learned, and waits.
    pub fn learned(self, way: &Way) -> Self {
        let length = self.frame.len() - ETHERNET;
        self.ends(Reason::Learned)
            .and(stored(In::Unreplied, way, length, |_| ()))
    }

    /// The packet's flow is learned; its reverse was waiting.
    pub fn paired(self, way: &Way, reverse: &Way) -> Self {
        let length = self.frame.len() - ETHERNET;
        self.ends(Reason::Paired)
            .and(stored(In::Flows, way, length, |_| ()))
            .and(Change::Moved(*reverse))
    }

    /// A flow in use is learned again.
    pub fn refreshed(self, way: &Way) -> Self {
        self.ends(Reason::Refreshed).and(changed(In::Flows, way, |flow| {
            flow.learned_ns = NOW;
            flow.flags &= !Flow::<Ip4>::PROMPTED;
        }))
    }

    /// The other direction asks the kernel next.
    pub fn prompts(self, reverse: &Way) -> Self {
        self.and(changed(In::Flows, reverse, |flow| {
            flow.learned_ns = DUE;
            flow.flags |= Flow::<Ip4>::PROMPTED;
        }))
    }

    /// It also changes this.
    pub fn and(mut self, change: Change) -> Self {
        self.changes.push(change);
        self
    }

    /// Whether a candidate waits afterwards, where it is not what the reason says.
    pub fn candidate(mut self, waits: bool) -> Self {
        self.candidate = Some(waits);
        self
    }

    /// It comes as a GSO packet.
    pub fn gso(mut self, size: u32) -> Self {
        self.gso_size = size;
        self
    }

    /// The kernel keeps it there.
    pub fn kept_at(mut self, address: u32) -> Self {
        self.address = address;
        self
    }

    /// It comes with a mark.
    pub fn mark(mut self, mark: u32) -> Self {
        self.mark = mark;
        self
    }

    /// It comes with a priority.
    pub fn priority(mut self, priority: u32) -> Self {
        self.priority = priority;
        self
    }

    /// It came in by another interface than usual.
    pub fn from(mut self, dev: Option<Dev>) -> Self {
        self.from = dev;
        self
    }

    /// It leaves with this mark and priority.
    pub fn leaves_with(mut self, mark: u32, priority: u32) -> Self {
        self.out_mark = Some(mark);
        self.out_priority = Some(priority);
        self
    }

    /// Something happens before it.
    pub fn after(mut self, given: Given) -> Self {
        self.before.push(given);
        self
    }
}

/// Whether a packet that takes the slow path for this reason leaves a candidate.
fn leaves_candidate(reason: Reason) -> bool {
    use Reason::{
        CtHelper, DscpChanged, MacChanged, NoFlow, Replaced, Revalidate, StaleEpoch, StaleGeneration, TooBig,
        Unreplied, Unvetted,
    };
    [
        NoFlow,
        Unreplied,
        StaleEpoch,
        StaleGeneration,
        MacChanged,
        DscpChanged,
        TooBig,
        Revalidate,
        Replaced,
        Unvetted,
        CtHelper,
    ]
    .contains(&reason)
}

impl Row {
    /// The reasons that its packets are counted under.
    pub fn reasons(&self) -> impl Iterator<Item = Reason> {
        self.steps.iter().filter_map(|step| step.reason)
    }

    /// Whether it says something of IPv6, too.
    fn has_like(&self) -> bool {
        let mut frames = self.steps.iter().flat_map(|step| [&step.frame, &step.out]);
        !six::FOUR_ONLY.contains(&self.what.as_str()) && frames.all(|frame| packet::six::frame(frame).is_some())
    }

    /// Runs it; what went wrong, if anything did.
    fn run(&self, lab: &mut Lab) -> Result<(), String> {
        let in_time = IN_TIME_AT_MOST.min(IN_TIME * u32::try_from(self.steps.len()).expect("few"));
        let mut last = String::new();
        if lab.six && !self.has_like() {
            return Ok(());
        }
        for _ in 0..ATTEMPTS {
            lab.reset();
            let start = Instant::now();
            let result = self.attempt(lab);
            match result {
                Ok(()) => return Ok(()),
                Err(text) if start.elapsed() < in_time => return Err(format!("{}\n{text}", self.what)),
                Err(text) => last = text,
            }
        }
        Err(format!(
            "{}\n  (too slow in all of {ATTEMPTS} attempts)\n{last}",
            self.what
        ))
    }

    fn attempt(&self, lab: &mut Lab) -> Result<(), String> {
        self.given.iter().for_each(|given| given.make(lab));
        let mut state = State::read(lab);
        for (number, step) in self.steps.iter().enumerate() {
            // What is given in between changes nothing that the state holds.
            step.before.iter().for_each(|given| given.make(lab));
            state = step
                .run(lab, state)
                .map_err(|text| format!(" packet {} at {:?} of {:?}:\n{text}", number + 1, step.hook, step.dev))?;
        }
        Ok(())
    }
}

impl Step {
    /// Runs it from this state; the state afterwards.
    fn run(&self, lab: &mut Lab, state: State) -> Result<State, String> {
        let since = now_ns();
        let mut wanted = state.since(since);
        if let Some(waits) = self.candidate {
            wanted.candidate = waits;
        }
        for change in &self.changes {
            change.make(lab, &mut wanted)?;
        }
        let context = Context {
            mark: self.mark,
            priority: self.priority,
            ingress_ifindex: self.from.map_or(0, |dev| lab.ifindex(dev)),
            ifindex: lab.ifindex(self.dev),
            gso_size: self.gso_size,
            address: self.address,
        };
        let like = |frame: &[u8]| {
            let like = lab.six.then(|| packet::six::frame(frame).expect("the row has a like"));
            like.unwrap_or_else(|| frame.to_vec())
        };
        let (frame, out) = (like(&self.frame), like(&self.out));
        let outcome = lab.test_run(self.hook, context, &frame);
        let mut text = self.judge(&out, &outcome);
        let got = State::read(lab);
        text += &wanted.difference(&got.clone().since(since));
        if text.is_empty() { Ok(got) } else { Err(text) }
    }

    fn judge(&self, out: &[u8], outcome: &Outcome) -> String {
        let mut text = packet::difference(out, &outcome.packet);
        for (name, wanted, got) in [
            ("verdict", i64::from(self.verdict), i64::from(outcome.verdict)),
            ("mark", self.out_mark.unwrap_or(self.mark).into(), outcome.mark.into()),
            (
                "priority",
                self.out_priority.unwrap_or(self.priority).into(),
                outcome.priority.into(),
            ),
        ] {
            if wanted != got {
                writeln!(text, "  {name}: wanted {wanted}, got {got}").expect("a string takes all");
            }
        }
        text
    }
}

/// Runs rows and tells of all that fail.
pub fn check(rows: &[Row]) {
    check_as(NetnsNumber::SERVED, rows);
}

/// The same, with programs that take their namespace for the one of this number.
pub fn check_as(netns: NetnsNumber, rows: &[Row]) {
    Lab::run_as(netns, |lab| {
        for six in [false, true] {
            lab.six = six;
            let failures: Vec<String> = rows.iter().filter_map(|row| row.run(lab).err()).collect();
            let family = if six { "IPv6" } else { "IPv4" };
            assert!(
                failures.is_empty(),
                "{} of {} rows failed by {family}:\n\n{}",
                failures.len(),
                rows.len(),
                failures.join("\n")
            );
        }
    });
}
