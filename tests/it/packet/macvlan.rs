//! macvlan: frames at the egress of a parent, by the kernel itself. Who gets which one: `netfast-ebpf/src/macvlan`.

use netfast_common::{
    device::DeviceKey,
    macvlan::{AddressKey, AddressOwner, Station, StationKey},
    net::{AnyIp, Ip4},
};
use netfast_tests::{packet::Mac, scene::Dev};

use super::harness::{Context, Hook, Lab, Outcome};

const HOST: Mac = [2, 0, 0, 0, 0, 1];
const CONTAINER: Mac = [2, 0, 0, 0, 0, 2];
const STRANGER: Mac = [2, 0, 0, 0, 0, 9];
const ADDRESS: [u8; 4] = [192, 168, 1, 200];
/// Verdicts of tc programs: on to the next one, and sent elsewhere.
const NEXT: i32 = -1;
const REDIRECT: i32 = 7;

/// The host and a container behind the uplink.
fn run(body: impl FnOnce(&mut Lab) + Send) {
    Lab::run(|lab| {
        lab.reset();
        let parent = DeviceKey::served(lab.ifindex(Dev::Uplink));
        for (mac, who) in [(HOST, Station::HOST), (CONTAINER, Station::CONTAINER)] {
            let station = Station { who, host: HOST };
            lab.macvlans
                .insert(StationKey::new(parent, mac), station, 0)
                .expect("a station");
        }
        let address = AnyIp::v4(Ip4::from_bytes(ADDRESS));
        let key = AddressKey { parent, address };
        let owner = AddressOwner {
            mac: CONTAINER,
            reserved: [0; 2],
        };
        lab.macvlan_addresses.insert(key, owner, 0).expect("an address");
        body(lab);
    });
}

fn pass(lab: &mut Lab, dev: Dev, frame: &[u8]) -> Outcome {
    let context = Context {
        ifindex: lab.ifindex(dev),
        mark: 7,
        ..Context::default()
    };
    lab.test_run(Hook::Macvlan, context, frame)
}

fn frame(from: Mac, to: Mac) -> Vec<u8> {
    let mut frame = [to.as_slice(), &from, &[8, 0]].concat();
    frame.resize(100, 0x45);
    frame
}

#[test]
fn frames_between_the_host_and_a_container_are_turned_around_without_their_mark() {
    run(|lab| {
        for (from, to) in [(HOST, CONTAINER), (CONTAINER, HOST)] {
            let frame = frame(from, to);
            let done = pass(lab, Dev::Uplink, &frame);
            assert_eq!((done.verdict, done.mark), (REDIRECT, 0));
            assert_eq!(done.packet, frame);
        }
    });
}

#[test]
fn other_frames_are_as_they_were() {
    run(|lab| {
        for (dev, from, to) in [
            (Dev::Uplink, HOST, STRANGER),
            (Dev::Uplink, STRANGER, CONTAINER),
            (Dev::Uplink, CONTAINER, CONTAINER),
            (Dev::Uplink, HOST, [0xff; 6]),
            (Dev::Uplink2, HOST, CONTAINER),
        ] {
            let frame = frame(from, to);
            let done = pass(lab, dev, &frame);
            assert_eq!((done.verdict, done.mark), (NEXT, 7));
            assert_eq!(done.packet, frame);
        }
    });
}

/// The copy is another packet of the kernel's, and its bytes are others.
#[test]
fn what_asks_for_an_address_leaves_as_it_was() {
    run(|lab| {
        let mut arp = [&[0xff; 6][..], &HOST, &[8, 6, 0, 1, 8, 0, 6, 4, 0, 1], &HOST].concat();
        arp.extend([192, 168, 1, 10, 0, 0, 0, 0, 0, 0]);
        arp.extend(ADDRESS);
        let done = pass(lab, Dev::Uplink, &arp);
        assert_eq!((done.verdict, done.mark), (NEXT, 7));
        assert_eq!(done.packet, arp);
    });
}
