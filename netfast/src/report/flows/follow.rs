//! `netfast flows --follow`: flows that open, carry packets and close, as lines of JSON, for programs.
//!
//! The tables are walked again and again, and what is there is compared with what was there before. So a flow that
//! comes and goes between two walks is not seen; connections that short are rarely learned at all. A walk may miss a flow
//! while the table changes: one is closed when two walks in a row have not seen it.

use std::{collections::HashMap, net::IpAddr};

use netfast_common::flow::{Flow, FlowKey};
use serde::Serialize;

use super::{DeviceName, FlowReport};

/// What became of a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum What {
    /// It was there already when following began.
    Found,
    /// It is new.
    Open,
    /// It has carried packets since it was told of last.
    Bytes,
    /// It is gone; its numbers are those of its last sight.
    Close,
}

/// One line.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Event {
    /// What became of it.
    pub event: What,
    /// When that was seen, in milliseconds since 1970.
    pub time_ms: u64,
    /// The flow.
    #[serde(flatten)]
    pub flow: FlowReport,
}

/// A flow as it was seen last.
#[derive(Debug)]
struct Seen {
    key: FlowKey<IpAddr>,
    flow: Flow<IpAddr>,
    usable: bool,
    /// The walk that saw it.
    walk: u64,
}

/// Remembers the flows of one walk for the next.
#[derive(Debug, Default)]
pub struct Follower {
    seen: HashMap<Identity, Seen>,
    walk: u64,
}

/// What no two flows share: two with the same key are told apart by when they were learned first.
type Identity = ((IpAddr, u16), (IpAddr, u16), (u32, u8, u8, u16), u64);

fn identity(key: &FlowKey<IpAddr>, flow: &Flow<IpAddr>) -> Identity {
    (
        (key.source, key.source_port.number()),
        (key.destination, key.destination_port.number()),
        (key.ifindex, key.protocol, key.origin, key.netns),
        flow.created_ns,
    )
}

/// The clocks at the time of a walk.
#[derive(Clone, Copy, Debug)]
pub struct Now {
    /// Milliseconds since 1970.
    pub unix_ms: u64,
    /// The clock of the flows' times, in nanoseconds.
    pub monotonic_ns: u64,
}

impl Follower {
    /// Begins a walk.
    pub fn begin(&mut self) {
        self.walk += 1;
    }

    /// Takes a flow of this walk in; tells if there is news of it.
    pub fn see(
        &mut self,
        key: FlowKey<IpAddr>,
        flow: Flow<IpAddr>,
        usable: bool,
        now: Now,
        names: impl Fn(u32) -> Option<DeviceName>,
    ) -> Option<Event> {
        let walk = self.walk;
        let seen = Seen {
            key,
            flow,
            usable,
            walk,
        };
        let before = self.seen.insert(identity(&key, &flow), seen);
        let event = match before {
            None if walk <= 1 => What::Found,
            None => What::Open,
            Some(before) if before.flow.packets != flow.packets => What::Bytes,
            Some(_) => return None,
        };
        Some(Event::new(event, &key, &flow, usable, now, names))
    }

    /// Ends a walk; tells of the flows that are gone.
    pub fn end(&mut self, now: Now, names: impl Fn(u32) -> Option<DeviceName>) -> Vec<Event> {
        let gone = self.walk.saturating_sub(2);
        let left = self.seen.extract_if(|_, seen| seen.walk <= gone);
        left.map(|(_, seen)| Event::new(What::Close, &seen.key, &seen.flow, seen.usable, now, &names))
            .collect()
    }
}

impl Event {
    fn new(
        event: What,
        key: &FlowKey<IpAddr>,
        flow: &Flow<IpAddr>,
        usable: bool,
        now: Now,
        names: impl Fn(u32) -> Option<DeviceName>,
    ) -> Self {
        Self {
            event,
            time_ms: now.unix_ms,
            flow: FlowReport::new(key, flow, usable, now.monotonic_ns, names),
        }
    }
}

#[cfg(test)]
mod tests {
    use netfast_common::net::{Ip4, Port};

    use super::*;

    const NOW: Now = Now {
        unix_ms: 1_000,
        monotonic_ns: 2_000_000,
    };

    fn flow(number: u32, created_ns: u64, packets: u64) -> (FlowKey<IpAddr>, Flow<IpAddr>) {
        let ip = |_: Ip4| IpAddr::from(number.to_be_bytes());
        let key = FlowKey {
            destination_port: Port::new(80),
            ifindex: 3,
            protocol: 6,
            ..FlowKey::<Ip4>::default()
        };
        let flow = Flow {
            created_ns,
            packets,
            ..Flow::<Ip4>::default()
        };
        (key.with_addresses(ip), flow.with_addresses(ip))
    }

    /// One walk over these flows: what is told of which, by number of packets.
    fn walk(follower: &mut Follower, flows: &[(FlowKey<IpAddr>, Flow<IpAddr>)]) -> Vec<(What, u64)> {
        follower.begin();
        let mut told: Vec<Event> = flows
            .iter()
            .filter_map(|(key, flow)| follower.see(*key, *flow, true, NOW, |_| None))
            .collect();
        told.extend(follower.end(NOW, |_| None));
        told.iter().map(|event| (event.event, event.flow.packets)).collect()
    }

    #[test]
    fn flows_open_carry_and_close() {
        let mut follower = Follower::default();
        assert_eq!(walk(&mut follower, &[flow(1, 5, 7)]), [(What::Found, 7)]);
        assert_eq!(walk(&mut follower, &[flow(1, 5, 7)]), [], "no news");
        let both = [flow(1, 5, 9), flow(2, 6, 0)];
        assert_eq!(walk(&mut follower, &both), [(What::Bytes, 9), (What::Open, 0)]);
        // A walk that misses one is not its end; two are.
        assert_eq!(walk(&mut follower, &both[1..]), []);
        assert_eq!(walk(&mut follower, &both), []);
        assert_eq!(walk(&mut follower, &both[1..]), []);
        assert_eq!(walk(&mut follower, &both[1..]), [(What::Close, 9)]);
        assert_eq!(walk(&mut follower, &both[1..]), [], "told once");
        // The same addresses and ports again are another flow.
        assert_eq!(walk(&mut follower, &[flow(2, 8, 1)]), [(What::Open, 1)]);
        assert_eq!(walk(&mut follower, &[flow(2, 8, 1)]), [(What::Close, 0)]);
    }

    #[test]
    fn a_line_has_what_the_list_has() {
        let mut follower = Follower::default();
        follower.begin();
        let (key, flow) = flow(1, 5, 7);
        let event = follower.see(key, flow, true, NOW, |_| None).expect("it is told of");
        let line = serde_json::to_value(&event).expect("JSON");
        assert_eq!((&line["event"], &line["time_ms"]), (&"found".into(), &1000.into()));
        assert_eq!((&line["protocol"], &line["packets"]), (&"tcp".into(), &7.into()));
        assert_eq!(line["enters"]["destination"], "0.0.0.1:80");
    }

    /// What is kept of a hundred thousand flows, and that a walk without news tells nothing.
    #[test]
    fn a_hundred_thousand_flows_are_remembered() {
        let flows: Vec<_> = (0..100_000).map(|number| flow(number, 1, 0)).collect();
        let mut follower = Follower::default();
        assert_eq!(walk(&mut follower, &flows).len(), flows.len());
        assert_eq!(walk(&mut follower, &flows), []);
        assert!(size_of::<(Identity, Seen)>() * flows.len() < 64 << 20, "below 64 MiB");
        assert_eq!(follower.seen.len(), flows.len());
    }
}
