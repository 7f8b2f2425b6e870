//! `IPsec`: policies may stop a packet that is forwarded, or send it another way (`linux/xfrm.h`).

use std::time::Duration;

use crate::observe::change::{Change, Hints};
use crate::sys::netlink::{NetlinkError, Watcher};

/// `XFRMNLGRP_EXPIRE`, `XFRMNLGRP_SA`, `XFRMNLGRP_POLICY`. Not `ACQUIRE`: anybody's packet can make the kernel ask for an
/// association, and that changes nothing yet.
const GROUPS: [u32; 3] = [2, 3, 4];

/// Opens the socket; `None` on a kernel without `IPsec`.
pub fn open() -> Option<Watcher> {
    Watcher::xfrm(GROUPS.iter().fold(0, |mask, group| mask | 1 << (group - 1))).ok()
}

/// Leaves a hint for each change, for ever.
pub async fn run(mut watcher: Watcher, hints: Hints) {
    loop {
        let received = watcher.receive(|_| {
            hints.send(Change::Ipsec);
            Ok(())
        });
        if let Err(error) = received.await {
            hints.send(Change::Ipsec);
            if !matches!(error, NetlinkError::Overflow) {
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        }
    }
}
