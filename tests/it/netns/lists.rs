//! Packets that a network card with GRO hands over in lists: the kernel takes each step for all of a list before the next, so
//! several have entered before the first leaves.

use std::net::UdpSocket;

use netfast::sys::ethtool;
use netfast_common::reason::Reason;
use netfast_tests::{
    cmd,
    netns::NsHandle,
    require::{Need, needs},
    site::HOST_IP,
};
use nix::sys::socket::{setsockopt, sockopt::UdpGsoSegment};

use super::{
    lab::{Lab, TIMEOUT, at, topology, udp},
    one_way::sink_at,
};

/// Bytes of a datagram.
const LENGTH: usize = 200;
/// Datagrams of a burst: what one socket may cut one into (`UDP_MAX_SEGMENTS` of older kernels).
const BURST: usize = 64;

/// Makes the veth of the uplink as a network card with GRO is: what its other end sends at once is received in lists of eight
/// (`gro_normal_batch`). A veth receives so only what comes from one without TSO (`veth_skb_is_eligible_for_gro`).
fn receive_in_lists(lab: &Lab) {
    let set = |ns: &NsHandle, set: fn() -> std::io::Result<()>| ns.run(set).expect("entered").expect("a setting");
    set(lab.topo.host(), || ethtool::set_gro("eth0", true));
    let lan = lab.topo.lan();
    set(lan, || ethtool::set_tso("eth0", false));
    // Cuts what is sent at once into packets before it leaves.
    lan.ip("link set eth0 gso_max_segs 1").expect("a setting");
}

/// Sends a burst at once; how many of it came, and how many of these were fast.
fn burst(lab: &Lab, from: &UdpSocket, to: &UdpSocket) -> (usize, u64) {
    let before = lab.fast();
    assert_eq!(from.send(&[b'm'; LENGTH * BURST]).expect("sent"), LENGTH * BURST);
    let mut data = [0; 2048];
    let came = (0..BURST).take_while(|_| to.recv(&mut data).is_ok()).count();
    (came, lab.fast() - before)
}

/// A flood that begins at full rate and in one direction, without a packet that comes alone, is learned from its first list.
#[test]
fn a_flood_that_begins_at_full_rate_is_fast() {
    if !needs(&[Need::Root, Need::Program("iptables")]) {
        return;
    }
    let lab = Lab::with(&topology(), None);
    receive_in_lists(&lab);
    let sink = sink_at(&lab.topo.container(0, 0).ns, at(std::net::Ipv4Addr::UNSPECIFIED, 7001));
    let from = udp(lab.topo.lan(), 0, at(HOST_IP, 7000));
    setsockopt(&from, UdpGsoSegment, &LENGTH.try_into().expect("a short one")).expect("an option");
    let before = lab.count(Reason::Learned);
    let (came, _) = burst(&lab, &from, &sink);
    assert_eq!(came, BURST, "{}", lab.told());
    let learned = lab.count(Reason::Learned) - before;
    let other = lab.count(Reason::OtherPacket);
    assert!(
        learned > 0,
        "none of {came} was learned, {other} were not what had entered last; {}",
        lab.told()
    );
    let fast = cmd::poll("the flood is fast", TIMEOUT, || {
        (burst(&lab, &from, &sink) == (BURST, BURST as u64)).then_some(())
    });
    assert!(fast.is_ok(), "{:?}; {}", burst(&lab, &from, &sink), lab.told());
}
