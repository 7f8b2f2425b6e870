//! Netlink with a real kernel: what is changed is there, refusals are told apart, lost notifications are noticed.

use std::net::IpAddr;

use netfast::sys::netlink::{
    NetlinkError, Watcher,
    write::{IpRoute, Writer, write},
};
use netfast_tests::{
    netns::NetNs,
    require::{Need, needs},
};
use tokio::{runtime::Builder, time::timeout};

use super::QUIET;

/// What a client's way to virtual addresses is made of.
struct Family {
    /// The option of `ip`.
    option: &'static str,
    /// A block.
    block: (&'static str, u8),
    /// Its next hop.
    next_hop: &'static str,
    /// The pool that it is of.
    pool: (&'static str, u8),
}

const FAMILIES: [Family; 2] = [
    Family {
        option: "-4",
        block: ("198.19.7.0", 24),
        next_hop: "198.19.7.1",
        pool: ("198.19.0.0", 16),
    },
    Family {
        option: "-6",
        block: ("fd6e:6574:6661:7374::700", 120),
        next_hop: "fd6e:6574:6661:7374::701",
        pool: ("fd6e:6574:6661:7374::", 112),
    },
];
const PROTOCOL: u8 = 110;
/// Where there is no interface.
const NOWHERE: u32 = 0x7fff_fff0;

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

/// A namespace with an interface, and its index.
fn namespace() -> (NetNs, u32) {
    let ns = NetNs::new("netlink").expect("a namespace");
    let script = "ip link add d0 type bridge && ip link set d0 up";
    ns.sh(script).expect("an interface");
    let index = ns
        .ip("-o link show d0")
        .expect("a link")
        .split(':')
        .next()
        .and_then(|index| index.trim().parse().ok());
    (ns, index.expect("an index"))
}

/// What the kernel answers to a change in a namespace: an errno, or 0.
fn errno(ns: &NetNs, change: impl FnOnce(&Writer) -> Result<(), NetlinkError> + Send) -> i32 {
    let done = ns.handle().run(|| write(change)).expect("a namespace");
    match done {
        Ok(()) => 0,
        Err(error) => error.refused().unwrap_or_else(|| panic!("{error}")),
    }
}

#[test]
fn routes_are_made_and_removed_and_refusals_told_apart() {
    if !needs(&[Need::Root]) {
        return;
    }
    for Family {
        option,
        block: (block, prefix),
        next_hop,
        pool,
    } in FAMILIES
    {
        let (ns, ifindex) = namespace();
        let route = IpRoute {
            destination: (ip(block), prefix),
            protocol: PROTOCOL,
            via: Some((ip(next_hop), ifindex)),
        };
        let prohibited = IpRoute {
            destination: (ip(pool.0), pool.1),
            via: None,
            ..route
        };
        let nowhere = IpRoute {
            via: Some((ip(next_hop), NOWHERE)),
            ..route
        };
        assert_eq!(errno(&ns, |writer| writer.add_route(&route)), 0);
        assert_eq!(errno(&ns, |writer| writer.add_route(&prohibited)), 0);
        let show = || ns.ip(&format!("{option} route show")).expect("routes");
        let shown = show();
        let wanted = format!("{block}/{prefix} via {next_hop} dev d0 proto 110 ");
        assert!(shown.contains(&wanted) && shown.contains("onlink"), "{shown}");
        let wanted = format!("prohibit {}/{} ", pool.0, pool.1);
        assert!(shown.contains(&wanted), "{shown}");
        assert_eq!(errno(&ns, |writer| writer.add_route(&route)), libc::EEXIST);
        assert_eq!(errno(&ns, |writer| writer.add_route(&nowhere)), libc::ENODEV);
        for made in [route, prohibited] {
            assert_eq!(errno(&ns, |writer| writer.remove_route(&made)), 0);
            assert_eq!(errno(&ns, |writer| writer.remove_route(&made)), libc::ESRCH);
        }
        // Somebody else's to the same addresses stays.
        ns.ip(&format!("{option} route add {block}/{prefix} dev d0 proto 123"))
            .expect("a route");
        assert_eq!(errno(&ns, |writer| writer.add_route(&route)), libc::EEXIST);
        assert_eq!(errno(&ns, |writer| writer.remove_route(&route)), libc::ESRCH);
        assert!(show().contains("proto 123"));
    }
}

#[test]
fn neighbours_are_made_changed_and_removed() {
    if !needs(&[Need::Root]) {
        return;
    }
    for Family { option, next_hop, .. } in FAMILIES {
        let (ns, ifindex) = namespace();
        let show = || ns.ip(&format!("{option} neigh show")).expect("neighbours");
        let hop = ip(next_hop);
        for last in [1, 2] {
            let mac = [2, 0, 0, 0, 0, last];
            assert_eq!(errno(&ns, |writer| writer.set_neighbour(ifindex, hop, mac)), 0);
            let shown = show();
            let wanted = format!("{next_hop} dev d0 lladdr 02:00:00:00:00:0{last} PERMANENT");
            assert!(shown.contains(&wanted), "{shown}");
        }
        assert_eq!(errno(&ns, |writer| writer.remove_neighbour(ifindex, hop)), 0);
        assert_eq!(errno(&ns, |writer| writer.remove_neighbour(ifindex, hop)), libc::ENOENT);
        assert_eq!(show().trim(), "");
    }
}

#[test]
fn clsact_is_added_once_and_removed() {
    if !needs(&[Need::Root]) {
        return;
    }
    let (ns, ifindex) = namespace();
    assert_eq!(errno(&ns, |writer| writer.add_clsact(ifindex)), 0);
    assert!(
        ns.sh("tc qdisc show dev d0")
            .expect("qdiscs")
            .contains("qdisc clsact ffff:")
    );
    assert_eq!(errno(&ns, |writer| writer.add_clsact(ifindex)), libc::EEXIST);
    assert_eq!(errno(&ns, |writer| writer.remove_clsact(ifindex)), 0);
    assert!(!ns.sh("tc qdisc show dev d0").expect("qdiscs").contains("clsact"));
    assert_eq!(errno(&ns, |writer| writer.add_clsact(NOWHERE)), libc::ENODEV);
}

/// More notifications than the socket's queue holds: that some are lost is an error, and what comes after is heard.
#[test]
fn lost_notifications_are_an_overflow_and_the_socket_goes_on() {
    /// `RTNLGRP_IPV4_ROUTE`.
    const ROUTES: u32 = 7;
    /// Some 24,000 notifications of at least half a kilobyte each; the queue holds 8 MiB.
    const CHANGES: usize = 12_000;
    if !needs(&[Need::Root]) {
        return;
    }
    let (ns, ifindex) = namespace();
    let route = |last: u8| IpRoute {
        destination: (IpAddr::from([198, 18, 0, last]), 32),
        protocol: PROTOCOL,
        via: Some((ip("198.19.7.1"), ifindex)),
    };
    let flood = |writer: &Writer| {
        for _ in 0..CHANGES {
            writer.add_route(&route(1))?;
            writer.remove_route(&route(1))?;
        }
        Ok::<_, NetlinkError>(())
    };
    let body = || {
        let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let mut watcher = Watcher::route(1 << (ROUTES - 1)).expect("a socket");
            write(flood).expect("changes");
            let mut heard = 0;
            let error = loop {
                let received = watcher.receive(|_| {
                    heard += 1;
                    Ok(())
                });
                if let Err(error) = received.await {
                    break error;
                }
            };
            assert!(matches!(error, NetlinkError::Overflow), "{error}");
            assert!(heard < 2 * CHANGES);
            // The kernel drops what comes until the queue has been read.
            while timeout(QUIET, watcher.receive(|_| Ok(()))).await.is_ok() {}
            write(|writer| writer.add_route(&route(2))).expect("a change");
            let mut is_it = false;
            let received = watcher.receive(|message| {
                is_it = message.payload.windows(4).any(|bytes| bytes == [198, 18, 0, 2]);
                Ok(())
            });
            received.await.expect("a notification");
            assert!(is_it, "another route");
        });
    };
    ns.handle().run(body).expect("a namespace");
}
