//! All that a program may change besides the packet: every count, the traffic of every slot, every flow in both tables,
//! and whether a candidate waits. A step says what changes, and everything else must be as it was.

use std::{collections::BTreeMap, fmt::Write as _};

use netfast_common::{
    abi::DEFAULT_REVALIDATE_NS,
    device::Traffic,
    flow::{Flow, FlowKey},
    net::Ip4,
    reason::{Count, FAST, Reason},
};

use super::{harness::Lab, six};

/// What stands for any time since the step began.
pub const NOW: u64 = u64::MAX;
/// As long ago as it takes for a flow to ask the kernel.
pub const DUE: u64 = NOW - 1;

/// The flows of a table, by key as bytes.
pub type Flows = BTreeMap<String, Flow<Ip4>>;

/// The maps as one value.
#[derive(Clone)]
pub struct State {
    /// Counts by reason number; 0 is the fast path.
    pub counts: Vec<Count>,
    /// Traffic by slot.
    pub traffic: Vec<Traffic>,
    /// Flows in use.
    pub flows: Flows,
    /// Flows that wait for their reverse.
    pub unreplied: Flows,
    /// Whether a candidate waits on any CPU.
    pub candidate: bool,
}

impl State {
    /// What is there.
    pub fn read(lab: &Lab) -> Self {
        let candidates = lab.candidates.get(&0, 0).expect("a candidate");
        Self {
            counts: lab
                .counts()
                .into_iter()
                .map(|of| if lab.six { six::count(of) } else { of })
                .collect(),
            traffic: lab
                .traffic_of_slots()
                .into_iter()
                .map(|of| if lab.six { six::traffic(of) } else { of })
                .collect(),
            flows: by_name(lab.flows_in(true)),
            unreplied: by_name(lab.flows_in(false)),
            candidate: candidates.iter().any(|all| all.0.any()),
        }
    }

    /// The same with [`NOW`] for every time from `since` on, and [`DUE`] for flows that were prompted since.
    pub fn since(mut self, since: u64) -> Self {
        for flow in self.flows.values_mut().chain(self.unreplied.values_mut()) {
            let due = since - DEFAULT_REVALIDATE_NS - 1;
            let is_prompted = flow.flags & Flow::<Ip4>::PROMPTED != 0;
            if is_prompted && (due..since - DEFAULT_REVALIDATE_NS / 2).contains(&flow.learned_ns) {
                flow.learned_ns = DUE;
            }
            for time in [&mut flow.learned_ns, &mut flow.used_ns, &mut flow.created_ns] {
                if *time >= since && *time != DUE {
                    *time = NOW;
                }
            }
        }
        self
    }

    /// What differs, line by line; empty if nothing does.
    pub fn difference(&self, got: &Self) -> String {
        let mut text = String::new();
        for (number, (wanted, got)) in self.counts.iter().zip(&got.counts).enumerate() {
            line(&mut text, &format!("count {}", reason_name(number)), wanted, got);
        }
        for (slot, (wanted, got)) in self.traffic.iter().zip(&got.traffic).enumerate() {
            line(&mut text, &format!("traffic of slot {slot}"), wanted, got);
        }
        for (name, wanted, got) in [
            ("flows", &self.flows, &got.flows),
            ("unreplied", &self.unreplied, &got.unreplied),
        ] {
            let wanted: BTreeMap<_, _> = wanted.iter().map(|(key, flow)| (key, fields(flow))).collect();
            let got: BTreeMap<_, _> = got.iter().map(|(key, flow)| (key, fields(flow))).collect();
            for key in wanted.keys().chain(got.keys().filter(|key| !wanted.contains_key(*key))) {
                match (wanted.get(key), got.get(key)) {
                    (Some(wanted), Some(got)) => {
                        for (wanted, got) in wanted.iter().zip(got) {
                            line(&mut text, &format!("{name} [{key}]"), wanted, got);
                        }
                    }
                    (Some(_), None) => writeln!(text, "  {name} [{key}]: missing").expect("a string"),
                    (None, Some(_)) => writeln!(text, "  {name} [{key}]: not wanted").expect("a string"),
                    (None, None) => {}
                }
            }
        }
        line(&mut text, "candidate", &self.candidate, &got.candidate);
        text
    }
}

/// A key as text.
pub fn name(key: &FlowKey<Ip4>) -> String {
    let [a, b] = [key.source, key.destination].map(|ip| std::net::Ipv4Addr::from(ip.bytes()));
    let origin = if key.origin == 0 { "" } else { " host" };
    format!(
        "{} {a}:{} -> {b}:{} if {}{origin}",
        key.protocol,
        key.source_port.number(),
        key.destination_port.number(),
        key.ifindex
    )
}

fn by_name(flows: Vec<(FlowKey<Ip4>, Flow<Ip4>)>) -> Flows {
    flows.into_iter().map(|(key, flow)| (name(&key), flow)).collect()
}

/// A flow's fields, one by one. Every field is here: the pattern does not compile otherwise.
pub fn fields(flow: &Flow<Ip4>) -> Vec<String> {
    let Flow {
        tag,
        epoch,
        learned_ns,
        used_ns,
        created_ns,
        packets,
        bytes,
        in_generation,
        out_generation,
        in_slot,
        out_slot,
        out_ifindex,
        source,
        destination,
        source_port,
        destination_port,
        address_difference,
        port_difference,
        in_macs,
        out_macs,
        mark,
        priority,
        max_length,
        exit,
        flags,
        dscp,
        bulk,
        reserved,
        tag_end,
    } = flow;
    let mut text = Vec::new();
    macro_rules! show {
        ($($field:ident)+) => { $(text.push(format!("{} {:?}", stringify!($field), $field));)+ };
    }
    show!(tag epoch learned_ns used_ns created_ns packets bytes in_generation out_generation in_slot out_slot
        out_ifindex source destination source_port destination_port address_difference port_difference in_macs out_macs
        mark priority max_length exit flags dscp bulk reserved tag_end);
    text
}

fn line<T: PartialEq + std::fmt::Debug>(text: &mut String, name: &str, wanted: &T, got: &T) {
    if wanted != got {
        writeln!(text, "  {name}: wanted {wanted:?}, got {got:?}").expect("a string takes all");
    }
}

/// A reason's name by number.
pub fn reason_name(number: usize) -> String {
    let known = Reason::ALL.iter().find(|reason| reason.number() as usize == number);
    match known {
        Some(reason) => reason.name().to_owned(),
        None if number == FAST as usize => "fast".to_owned(),
        None => format!("of unused number {number}"),
    }
}
