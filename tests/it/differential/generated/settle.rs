//! When netfast has heard of what happened.
//!
//! netfast learns of a change from the kernel's notifications, microseconds to milliseconds after the change; of
//! switches that nobody announces, within a second. In that time the old verdict may still be used: that is inherent.
//! So after each event a script waits until netfast has done something about it. If it does nothing, the script goes on
//! after a while all the same: then the packets tell whether something had to be done.

use std::{
    collections::BTreeMap,
    thread,
    time::{Duration, Instant},
};

use netfast_common::device::Device;
use netfast_tests::seeds::family::Family;

use super::arena::Arena;

/// How long to wait for what.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// Nothing changed for so long: it is over.
    pub quiet: Duration,
    /// For changes that are announced.
    pub announced: Duration,
    /// For changes that are polled once a second.
    pub polled: Duration,
    /// What is polled has been found by then, whatever else was noted.
    pub found: Duration,
    /// For changes that need not matter to netfast.
    pub perhaps: Duration,
    /// For real sockets.
    pub sockets: Duration,
}

/// On an idle machine this is long enough nearly always.
pub const HASTY: Patience = Patience {
    quiet: Duration::from_millis(12),
    announced: Duration::from_millis(700),
    polled: Duration::from_millis(2500),
    found: Duration::ZERO,
    perhaps: Duration::from_millis(400),
    sockets: Duration::from_millis(400),
};

/// On any machine this is long enough: what still differs then is a difference. But shorter than half of the longest
/// `revalidate_ms`, after which a flow that has paused asks the kernel by itself: that would hide each change that netfast has
/// not heard of.
pub const PATIENT: Patience = Patience {
    quiet: Duration::from_millis(400),
    announced: Duration::from_secs(3),
    polled: Duration::from_secs(3),
    found: Duration::from_millis(1500),
    perhaps: Duration::from_millis(1500),
    sockets: Duration::from_secs(5),
};

/// What an event should make netfast do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expect {
    /// Nothing.
    Nothing,
    /// A new epoch, or a device's new generation, at once.
    Announced,
    /// The same, within a second.
    Polled,
    /// Perhaps the same.
    Perhaps,
    /// As announced, and the plan is made anew: devices come or go a little later.
    Planned,
    /// As planned, and some devices are off the fast path then with packets of this family.
    Judged(Family),
    /// As planned, but what is polled once a second has to be found first.
    Found,
    /// As judged, but what is polled once a second has to be found first.
    JudgedLater(Family),
}

/// The passes of the daemon are up to so far apart, and one takes a while.
const PLANNING: Duration = Duration::from_millis(200);

/// What is polled once a second has been looked at by then.
const POLLING: Duration = Duration::from_millis(1300);

/// How often netfast's notes are looked at.
const GLANCE: Duration = Duration::from_micros(1500);

/// What netfast has noted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Noted {
    epoch: u32,
    switches: u32,
    devices: BTreeMap<u32, (Device, u32)>,
}

impl Noted {
    /// Reads it; `None` with netfast off.
    pub fn read(arena: &Arena) -> Option<Self> {
        let maps = arena.maps.as_ref()?;
        let control = maps.control().expect("the switches");
        let devices = maps.devices().expect("the devices");
        let devices = devices.into_iter().map(|(key, device)| {
            let generation = maps.generation(device.slot).expect("a generation");
            (key.ifindex, (device, generation))
        });
        Some(Self {
            epoch: control.epoch,
            switches: control.switches,
            devices: devices.collect(),
        })
    }

    /// How many devices are on the fast path with packets of a family: with IPv6 those of IPv4, or fewer.
    pub fn devices(&self, family: Family) -> usize {
        let devices = self.devices.values();
        devices
            .filter(|(device, _)| family == Family::V4 || device.has(Device::IPV6))
            .count()
    }
}

/// Waits until netfast has noted something else than `before`, and then until it notes nothing more.
pub fn settle(arena: &Arena, before: Option<&Noted>, expect: Expect, patience: &Patience) {
    let Some(before) = before else { return };
    let (limit, quiet) = match expect {
        Expect::Nothing => return,
        Expect::Announced => (patience.announced, patience.quiet),
        Expect::Polled => (patience.polled, patience.quiet),
        Expect::Perhaps => (patience.perhaps, patience.quiet),
        Expect::Planned | Expect::Judged(_) => (patience.announced, patience.quiet.max(PLANNING)),
        Expect::Found | Expect::JudgedLater(_) => (patience.announced.max(POLLING), patience.quiet.max(PLANNING)),
    };
    let start = Instant::now();
    let mut last = before.clone();
    let mut since = start;
    let mut has_changed = false;
    loop {
        let now = Noted::read(arena).expect("netfast runs");
        if now != last {
            (last, since, has_changed) = (now, Instant::now(), true);
        }
        let is_over = if has_changed {
            since.elapsed() >= quiet
        } else {
            start.elapsed() >= limit
        };
        let is_planned = match expect {
            Expect::Judged(family) | Expect::JudgedLater(family) => last.devices(family) < arena.devices(),
            Expect::Nothing
            | Expect::Announced
            | Expect::Polled
            | Expect::Perhaps
            | Expect::Planned
            | Expect::Found => true,
        };
        // Something else may have happened before it was found.
        let is_found = expect != Expect::Found || start.elapsed() >= patience.found;
        if is_over && (is_planned && is_found || start.elapsed() >= limit) {
            return;
        }
        // To look costs CPU time, which others who play at the same time want to have.
        thread::sleep(if has_changed { quiet / 4 } else { GLANCE });
    }
}
