//! Sends frames and knows when all that they cause has happened, without sleeping.
//!
//! Every hop over a veth goes through the backlog queue of the CPU that the packet is on, first in, first out. So
//! frames that are sent from one CPU, followed by a frame over a veth pair of our own on the same CPU, have made a hop
//! when that frame arrives.

use std::{
    io, thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use netfast_tests::netns::{NetNs, veth_pair};
use nix::{
    sched::{CpuSet, sched_getcpu, sched_setaffinity},
    unistd::Pid,
};

use super::station::Tap;

/// More hops than a packet and its answer make in any topology.
const HOPS: usize = 12;
/// A frame takes microseconds; a machine that is busy with other things may take longer.
const LIMIT: Duration = Duration::from_secs(20);
/// An `EtherType` for local experiments (IEEE 802).
const ETHERTYPE: [u8; 2] = [0x88, 0xb5];

/// The veth pair.
#[derive(Debug)]
pub struct Fence {
    _ns: NetNs,
    near: Tap,
    far: Tap,
}

impl Fence {
    /// Makes it.
    pub fn new() -> Result<Self> {
        let ns = NetNs::new("fence")?;
        veth_pair((&ns, "near"), (&ns, "far"))?;
        for device in ["near", "far"] {
            ns.ip(&format!("link set {device} up"))?;
        }
        Ok(Self {
            near: Tap::open(&ns, "near")?,
            far: Tap::open(&ns, "far")?,
            _ns: ns,
        })
    }

    /// Sends the frames in their order, each from its tap, and returns when they and what they caused have arrived.
    /// What the kernel says to the sending of each is returned.
    pub fn send(&self, frames: &[(&Tap, Vec<u8>)]) -> Result<Vec<io::Result<()>>> {
        let send = || {
            pin(sched_getcpu()?)?;
            self.send_pinned(frames)
        };
        // A thread of its own, which ends with its affinity.
        thread::scope(|scope| scope.spawn(send).join().expect("the sender panicked"))
    }

    /// The same on the caller's thread, which must be pinned to a CPU.
    pub fn send_pinned(&self, frames: &[(&Tap, Vec<u8>)]) -> Result<Vec<io::Result<()>>> {
        let sent = frames.iter().map(|(tap, frame)| tap.send(frame)).collect();
        self.wait()?;
        Ok(sent)
    }

    /// Returns when what the caller's thread, pinned to a CPU, has sent and what that caused has arrived.
    pub fn wait(&self) -> Result<()> {
        (0..HOPS).try_for_each(|_| self.pass())
    }

    fn pass(&self) -> Result<()> {
        let mut frame = vec![0xff; 12];
        frame.extend(ETHERTYPE);
        frame.resize(60, 0);
        self.near.send(&frame).context("the fence is broken")?;
        let deadline = Instant::now() + LIMIT;
        loop {
            match self.far.receive() {
                Some(got) if got.bytes[12..14] == ETHERTYPE => return Ok(()),
                // The kernel's own, about IPv6.
                Some(_) => {}
                None => {
                    ensure!(Instant::now() < deadline, "a frame is stuck");
                    thread::sleep(Duration::from_micros(50));
                }
            }
        }
    }
}

/// Keeps the calling thread on one CPU.
pub fn pin(cpu: usize) -> Result<()> {
    let mut only = CpuSet::new();
    only.set(cpu)?;
    sched_setaffinity(Pid::from_raw(0), &only)?;
    Ok(())
}

/// Lets the calling thread run on any CPU again, and so what it starts.
pub fn unpin() -> Result<()> {
    let mut all = CpuSet::new();
    for cpu in 0..CpuSet::count() {
        all.set(cpu)?;
    }
    sched_setaffinity(Pid::from_raw(0), &all)?;
    Ok(())
}
