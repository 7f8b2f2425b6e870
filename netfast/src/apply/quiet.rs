//! Gives quiet TCP connections the time that conntrack gives them without netfast.
//!
//! conntrack keeps an established connection for five days after its last packet, but only for five minutes while it believes
//! that data is not acknowledged (`nf_conntrack_tcp_timeout_unacknowledged`, `IP_CT_TCP_FLAG_DATA_UNACKNOWLEDGED`), and takes for
//! an acknowledgement only what ends exactly where the data did (`tcp_in_window`, `net/netfilter/nf_conntrack_proto_tcp.c`). Of a
//! connection on the fast path it sees a segment a second, so it believes that most of the time. So a connection that has
//! become quiet gets the time that it would have. The kernel's own flow table does the same when a flow leaves it
//! (`flow_offload_fixup_ct`, `net/netfilter/nf_flow_table_core.c`).
//!
//! A daemon that ends does it for all, and so do the next one and `netfast detach`. While none runs nobody does.

use std::{
    collections::HashMap,
    fs, io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use netfast_common::flow::{Flow, FlowKey};
use tracing::{debug, warn};

use crate::{
    apply::{
        conntrack::{self, Lasting, Tuple},
        flows::FlowTables,
        lease::now_ns,
        pinned::ReadError,
        pins::Pins,
    },
    observe::NetlinkError,
    sys::netlink::NetlinkSocket,
};

const TCP: u8 = 6;
const SECOND_NS: u64 = 1_000_000_000;
/// A connection is quiet when nothing has passed for this long, or for a tenth of what conntrack gives data that is not
/// acknowledged, in seconds.
const QUIET_S: u64 = 30;
/// The thread looks this often whether it shall end.
const LOOK: Duration = Duration::from_millis(500);
/// After so many connections without a pause the thread rests for this long.
const BATCH: usize = 64;
const REST: Duration = Duration::from_millis(2);
/// An acknowledgement follows data within this time, delayed ones included, in nanoseconds.
const ANSWER_NS: u64 = 3 * SECOND_NS;
/// By this much the time of the last packet that conntrack saw may be wrong, in seconds.
const BLUR_S: u64 = 3;

/// What follows if they are not looked after.
pub const LOST: &str = "conntrack may forget TCP connections that are quiet for minutes";

/// Why connections cannot be looked after.
#[derive(Debug, thiserror::Error)]
pub enum QuietError {
    /// conntrack cannot be asked.
    #[error(transparent)]
    Netlink(#[from] NetlinkError),
    /// The tables cannot be read.
    #[error("cannot read the flows")]
    Flows(#[from] ReadError),
    /// They cannot be walked.
    #[error("cannot walk the flows")]
    Walk(#[source] io::Error),
    /// No thread.
    #[error("no thread")]
    Thread(#[source] io::Error),
}

/// Looks after quiet connections until it is dropped.
#[derive(Debug)]
pub struct Keeper {
    end: Arc<AtomicBool>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Keeper {
    /// Begins, in the network namespace of the calling thread, with these pinned tables.
    pub fn start(pins: &Pins) -> Result<Self, QuietError> {
        let work = Work {
            tables: FlowTables::of(pins)?,
            socket: NetlinkSocket::netfilter()?,
            has_failed: false,
        };
        let end = Arc::new(AtomicBool::new(false));
        let is_over = Arc::clone(&end);
        let named = thread::Builder::new().name("netfast-quiet".into());
        let thread = named.spawn(move || work.run(&is_over)).map_err(QuietError::Thread)?;
        Ok(Self {
            end,
            thread: Some(thread),
        })
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.end.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // A thread that panicked has said so.
            let _ = thread.join();
        }
    }
}

struct Work {
    tables: FlowTables,
    socket: NetlinkSocket,
    /// It was said.
    has_failed: bool,
}

impl Work {
    fn run(mut self, is_over: &AtomicBool) {
        let mut before = 0;
        while !is_over.load(Ordering::Relaxed) {
            thread::sleep(LOOK);
            let limits = Limits::read();
            let (now, quiet) = (now_ns(), limits.quiet_ns());
            if now.saturating_sub(before) >= quiet {
                // Each that has become quiet since the last look, and at the first look all that are.
                let which = before.saturating_sub(quiet)..now.saturating_sub(quiet);
                before = now;
                self.look(&limits, now, |last| which.contains(&last));
            }
        }
        self.look(&Limits::read(), now_ns(), |_| true);
    }

    fn look(&mut self, limits: &Limits, now: u64, is_wanted: impl Fn(u64) -> bool) {
        match settle(&mut self.socket, &self.tables, limits, now, is_wanted) {
            Ok(0) => {}
            Ok(settled) => debug!("{settled} quiet connections have got the time that they have without netfast"),
            Err(error) if !self.has_failed => {
                self.has_failed = true;
                warn!("{LOST}: {:#}", anyhow::Error::new(error));
            }
            Err(_) => {}
        }
    }
}

/// The same at once for every connection, quiet or not, of these pinned tables, in the network namespace of the calling thread;
/// returns how many there were. For when flows are no longer used.
pub fn settle_all(pins: &Pins) -> Result<usize, QuietError> {
    let tables = FlowTables::of(pins)?;
    let mut socket = NetlinkSocket::netfilter()?;
    settle(&mut socket, &tables, &Limits::read(), now_ns(), |_| true)
}

/// What conntrack gives established connections in this namespace, in seconds; 0 where it does not say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Limits {
    established: u64,
    /// Of which data is not acknowledged, or of which the same segment was seen again and again.
    shorter: [u64; 2],
}

impl Limits {
    fn read() -> Self {
        let of = |name: &str| {
            let path = format!("/proc/sys/net/netfilter/nf_conntrack_tcp_timeout_{name}");
            let text = fs::read_to_string(path).unwrap_or_default();
            text.trim().parse().unwrap_or_default()
        };
        Self {
            established: of("established"),
            shorter: [of("unacknowledged"), of("max_retrans")],
        }
    }

    fn quiet_ns(&self) -> u64 {
        let shortest = self.shorter.into_iter().min().unwrap_or_default();
        (shortest / 10).clamp(1, QUIET_S) * SECOND_NS
    }
}

/// When packets of one direction passed last, nanoseconds of `CLOCK_MONOTONIC`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Last {
    /// Any.
    used: u64,
    /// One that conntrack saw.
    judged: u64,
}

/// A direction as conntrack keys it, and the interface where it comes in.
type Name = (Tuple, u32);

/// A connection: its directions, and when they were used last.
struct Pair {
    tuples: [Tuple; 2],
    lasts: [Last; 2],
}

fn settle(
    socket: &mut NetlinkSocket,
    tables: &FlowTables,
    limits: &Limits,
    now: u64,
    is_wanted: impl Fn(u64) -> bool,
) -> Result<usize, QuietError> {
    let mut settled = 0;
    for (number, pair) in pairs(tables, is_wanted).map_err(QuietError::Walk)?.iter().enumerate() {
        if number % BATCH == BATCH - 1 {
            thread::sleep(REST);
        }
        // Where netfast itself translates, conntrack knows only one of the directions.
        for tuple in &pair.tuples {
            let Some(entry) = conntrack::lasting(socket, tuple)? else {
                continue;
            };
            if let Some(seconds) = due(entry, pair.lasts, limits, now)
                && conntrack::extend(socket, tuple, seconds)?
            {
                settled += 1;
            }
            break;
        }
    }
    Ok(settled)
}

/// The connections in use whose last packet passed when it is wanted, each once.
fn pairs(tables: &FlowTables, is_wanted: impl Fn(u64) -> bool) -> io::Result<Vec<Pair>> {
    let mut waiting: HashMap<Name, Last> = HashMap::new();
    let mut found = Vec::new();
    tables.for_each(|key, flow, _| {
        if key.protocol != TCP || flow.flags & Flow::<std::net::IpAddr>::VETTED == 0 {
            return;
        }
        let last = Last {
            used: flow.used_ns.max(flow.learned_ns),
            judged: flow.learned_ns,
        };
        let (name, other) = ((Tuple::of(key), key.ifindex), reverse(key, flow));
        match waiting.remove(&other) {
            Some(before) => found.push(Pair {
                tuples: [other.0, name.0],
                lasts: [before, last],
            }),
            None => {
                waiting.insert(name, last);
            }
        }
    })?;
    found.retain(|pair| is_wanted(pair.lasts[0].used.max(pair.lasts[1].used)));
    Ok(found)
}

/// The other direction ([`Flow::write_reverse_key`]).
fn reverse(key: &FlowKey<std::net::IpAddr>, flow: &Flow<std::net::IpAddr>) -> Name {
    let tuple = Tuple {
        source: (flow.destination, flow.destination_port.number()),
        destination: (flow.source, flow.source_port.number()),
        protocol: key.protocol,
    };
    (tuple, flow.out_ifindex)
}

/// The seconds that conntrack is to keep a connection from now on, if it gives it less than it would have seen all of it.
fn due(entry: Lasting, lasts: [Last; 2], limits: &Limits, now: u64) -> Option<u32> {
    if !entry.is_established {
        return None;
    }
    let [a, b] = lasts;
    // Without an acknowledgement the other end may be gone, and then conntrack is right.
    if a.used.abs_diff(b.used) > ANSWER_NS {
        return None;
    }
    let since = |then: u64| now.saturating_sub(then) / SECOND_NS;
    // What it was given by the last packet that conntrack saw. Another time than one of these was given by somebody's wish (a
    // rule's `ct timeout`), or is not too short.
    let given = u64::from(entry.seconds) + since(a.judged.max(b.judged));
    let is_shortened = |limit: u64| limit != 0 && limit < limits.established && given.abs_diff(limit) <= BLUR_S;
    if !limits.shorter.into_iter().any(is_shortened) {
        return None;
    }
    let left = limits.established.saturating_sub(since(a.used.max(b.used)));
    u32::try_from(left).ok().filter(|left| *left > entry.seconds)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits {
        established: 432_000,
        shorter: [300, 300],
    };

    fn ask(seconds: u32, is_established: bool, lasts: [(u64, u64); 2]) -> Option<u32> {
        let entry = Lasting {
            seconds,
            is_established,
        };
        let at = |(used, judged): (u64, u64)| Last {
            used: used * SECOND_NS,
            judged: judged * SECOND_NS,
        };
        due(entry, lasts.map(at), &LIMITS, 1000 * SECOND_NS)
    }

    #[test]
    fn only_what_conntrack_gives_too_little_gets_more() {
        // 40 s ago, and conntrack saw one a second before that.
        assert_eq!(ask(260, true, [(960, 959), (960, 959)]), Some(431_960));
        assert_eq!(ask(259, true, [(960, 959), (960, 950)]), Some(431_960));
        // It has what it should have.
        assert_eq!(ask(431_960, true, [(960, 959), (960, 959)]), None);
        // A rule gave it a minute, or an hour.
        assert_eq!(ask(20, true, [(960, 959), (960, 959)]), None);
        assert_eq!(ask(3_560, true, [(960, 959), (960, 959)]), None);
        // It is being closed.
        assert_eq!(ask(260, false, [(960, 959), (960, 959)]), None);
        // One end has not answered.
        assert_eq!(ask(260, true, [(960, 959), (900, 900)]), None);
    }

    #[test]
    fn limits_that_are_shorter_are_looked_after_more_often() {
        assert_eq!(LIMITS.quiet_ns(), 30 * SECOND_NS);
        let short = |seconds| Limits {
            shorter: [seconds, 300],
            ..LIMITS
        };
        assert_eq!(short(50).quiet_ns(), 5 * SECOND_NS);
        assert_eq!(short(3).quiet_ns(), SECOND_NS);
        assert_eq!(Limits::default().quiet_ns(), SECOND_NS);
    }
}
