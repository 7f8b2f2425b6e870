//! What an uplink is sent for somebody else's MAC address.

use netfast_common::device::DeviceKey;
use netfast_tests::{
    packet::{Mac, Packet},
    scene::{Dev, HOST},
};

use super::harness::{Context, Hook, Lab};

const NEXT: i32 = -1;
const ROUTER: Mac = [2, 0, 0, 0, 9, 9];

/// Whether a frame at the uplink is counted.
fn is_counted(lab: &mut Lab, to: Mac) -> bool {
    let before = lab.counts();
    let from = (Dev::Stranger.address(), 7000);
    let frame = Packet::udp(from, (HOST, 7001)).macs(to, ROUTER).bytes();
    let context = Context {
        ifindex: lab.ifindex(Dev::Uplink),
        ..Context::default()
    };
    let done = lab.test_run(Hook::UplinkIn, context, &frame);
    assert_eq!((done.verdict, done.packet), (NEXT, frame));
    lab.counts() != before
}

/// macvlan devices send each other's frames through their parent's ingress. Where the uplink is a port of a bridge, the bridge
/// takes such frames.
#[test]
fn frames_for_another_are_none_of_ours_unless_a_bridge_takes_them() {
    Lab::run(|lab| {
        lab.reset();
        let another = [2, 0, 0, 0, 9, 1];
        assert!(is_counted(lab, Dev::Uplink.mac()));
        assert!(!is_counted(lab, another));
        let mut device = Dev::Uplink.device().expect("known");
        device.bridge = lab.ifindex(Dev::Bridge);
        let key = DeviceKey::served(lab.ifindex(Dev::Uplink));
        lab.devices.insert(key, device, 0).expect("a device");
        assert!(is_counted(lab, another));
    });
}
