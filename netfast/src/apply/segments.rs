//! How big the segments are that an interface takes of TCP over IPv4.

use crate::{
    apply::{
        AttachError, Datapath,
        routes::{WayError, inside},
    },
    observe::netlink,
    plan::{BIGGER, SegmentEnd, USUAL},
    sys::netlink::write::write,
};

impl Datapath {
    /// The interfaces that take bigger ones by netfast's doing, as an earlier daemon wrote down.
    pub fn remember_segments(&mut self, ends: impl IntoIterator<Item = SegmentEnd>) {
        self.realized.segments = ends.into_iter().collect();
    }

    /// The interfaces that take bigger ones by netfast's doing.
    pub fn segments(&self) -> impl Iterator<Item = SegmentEnd> {
        self.realized.segments.iter().copied()
    }
}

/// Lets an interface take bigger segments, or the usual ones again. Only what is as the kernel made it is changed, and only what
/// is netfast's is put back: a size that somebody else has set stays.
pub fn set(end: SegmentEnd, bigger: bool) -> Result<(), WayError> {
    match end {
        SegmentEnd::Host(ifindex) => change(ifindex, bigger),
        SegmentEnd::Container(client) => inside(client, || change(client.ifindex, bigger)),
    }
}

/// Puts the usual size back; an interface that is gone has none.
pub fn restore(end: SegmentEnd) -> Result<(), WayError> {
    match set(end, false) {
        Err(WayError::Enter(AttachError::Gone)) => Ok(()),
        done => done,
    }
}

/// In the calling thread's network namespace.
fn change(ifindex: u32, bigger: bool) -> Result<(), WayError> {
    let (from, to) = if bigger { (USUAL, BIGGER) } else { (BIGGER, USUAL) };
    let Some(found) = netlink::offload(ifindex)? else {
        return Err(AttachError::Gone.into());
    };
    if found.gso_ipv4_max_size != Some(from) {
        return Ok(());
    }
    write(|writer| match writer.set_gso_ipv4_max_size(ifindex, to) {
        Err(error) if error.refused() == Some(libc::ENODEV) => Err(AttachError::Gone.into()),
        done => Ok(done?),
    })
}
