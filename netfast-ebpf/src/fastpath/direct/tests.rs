//! What test runs of the kernel cannot show: where packets are sent, VLAN tags, places in tables that are given to others.

use netfast_common::{control::Control, direct::Pace};

use super::*;
use crate::ctx::fake::{self, FakeSkb, Sent};

const A: [u8; 6] = [2, 0, 0, 0, 0, 1];
const B: [u8; 6] = [2, 0, 0, 0, 0, 2];
const PORT_A: u32 = 11;
const PORT_B: u32 = 12;
const BRIDGE: u32 = 3;
const SECOND: u64 = 1_000_000_000;

/// Two ports of a bridge where nobody judges, at this time; `edit` changes what is said of B.
fn world(now: u64, edit: impl Fn(&mut Port)) {
    fake::reset();
    fake::set_ns(now);
    let control = maps::CONTROL.get_ptr_mut(0).expect("an element");
    // SAFETY: an element of this thread's, and no program runs.
    unsafe {
        *control = Control {
            switches: Control::USE,
            direct_until_ns: now + 1,
            ..Control::default()
        };
    }
    for (ifindex, mac, slot) in [(PORT_A, A, 1), (PORT_B, B, 2)] {
        for at in [ifindex, BRIDGE] {
            let key = PortKey::new(NetnsNumber::SERVED, at, mac);
            let mut port = Port {
                tag: key.tag(),
                bridge: BRIDGE,
                ifindex,
                generation: 0,
                max_length: 1500,
                slot,
                exit: Exit::Peer as u8,
                reserved: 0,
                tag_end: key.tag(),
            };
            if mac == B {
                edit(&mut port);
            }
            maps::PORTS.insert(key, port, 0).expect("room");
        }
    }
}

/// A frame from A to B.
fn frame() -> FakeSkb {
    let mut bytes = [B.as_slice(), &A, &[0x86, 0xdd]].concat();
    bytes.resize(100, 0x60);
    let mut skb = FakeSkb::new(&bytes);
    skb.ifindex = PORT_A;
    skb
}

fn pace() -> &'static mut Pace {
    let place = maps::PACES.get_ptr_mut(pair(1, 2)).expect("an element");
    // SAFETY: an element of this thread's, and no program runs.
    unsafe { &mut *place }
}

#[test]
fn a_packet_goes_to_the_peer_and_its_outcome_says_so() {
    world(SECOND, |_| ());
    let skb = frame();
    let outcome = Outcome::from_number(skb.forward());
    assert_eq!(skb.sent.get(), Some(Sent::ToPeer(PORT_B)));
    assert_eq!(
        (outcome.verdict(), outcome.reason(), outcome.out_ifindex()),
        (Some(fake::TC_ACT_REDIRECT), None, PORT_B)
    );
    let none = Outcome::BY_FLOW;
    assert_eq!((none.verdict(), none.reason()), (None, None));
    let slow = Outcome::slow(Reason::PortDue);
    assert_eq!((slow.verdict(), slow.reason()), (None, Some(Reason::PortDue)));
}

#[test]
fn where_the_peer_cannot_be_reached_it_goes_by_the_device() {
    world(SECOND, |port| port.exit = Exit::Device as u8);
    let skb = frame();
    forward(&skb);
    assert_eq!(skb.sent.get(), Some(Sent::To(PORT_B, 0)));
}

/// Where a frame is sent, so many milliseconds after a second, while the lease lasts.
fn way(gso_size: u32, at_ms: u64) -> Option<Sent> {
    fake::set_ns(SECOND + at_ms * 1_000_000);
    let control = maps::CONTROL.get_ptr_mut(0).expect("an element");
    // SAFETY: an element of this thread's, and no program runs.
    unsafe { (*control).direct_until_ns = u64::MAX };
    let mut skb = frame();
    skb.gso_size = gso_size;
    forward(&skb);
    skb.sent.get()
}

#[test]
fn bulk_keeps_to_the_queue_until_a_pause() {
    world(SECOND, |_| ());
    assert_eq!(way(0, 0), Some(Sent::ToPeer(PORT_B)));
    assert_eq!(way(1000, 1), Some(Sent::To(PORT_B, 0)));
    assert_eq!(way(0, 2), Some(Sent::To(PORT_B, 0)));
    assert_eq!(way(0, 30), Some(Sent::ToPeer(PORT_B)));
}

/// Found: the packet after a long pause is the bridge's, and the queue was kept to for ever.
#[test]
fn a_pause_ends_bulk_and_bulk_begins_with_a_packet_of_the_bridges() {
    world(SECOND, |_| ());
    assert_eq!(way(1000, 0), Some(Sent::To(PORT_B, 0)));
    assert_eq!(way(0, 700), None, "it is the bridge's turn");
    assert_eq!(way(0, 701), Some(Sent::ToPeer(PORT_B)));
    assert_eq!(way(1000, 1400), None, "it is the bridge's turn");
    assert_eq!(way(0, 1401), Some(Sent::To(PORT_B, 0)), "it may wait in the queue");
}

#[test]
fn a_tag_that_was_taken_off_is_the_kernels() {
    world(SECOND, |_| ());
    let mut skb = frame();
    skb.vlan = true;
    assert_eq!(forward(&skb), Outcome::slow(Reason::Vlan));
    assert_eq!(skb.sent.get(), None);
}

#[test]
fn a_place_that_is_given_to_another_port_sends_nobody_anywhere() {
    for edit in [|port: &mut Port| port.tag ^= 2, |port: &mut Port| port.tag_end ^= 2] {
        world(SECOND, edit);
        let skb = frame();
        assert_eq!(forward(&skb), Outcome::BY_FLOW);
        assert_eq!(skb.sent.get(), None);
    }
}

#[test]
fn a_header_that_cannot_be_read_directly_is_left_to_the_flows() {
    world(SECOND, |_| ());
    let mut skb = FakeSkb::new(&frame().bytes()).with_linear(11);
    skb.ifindex = PORT_A;
    assert_eq!(forward(&skb), Outcome::BY_FLOW);
}

#[test]
fn the_first_packet_starts_the_clock() {
    world(5 * SECOND, |_| ());
    forward(&frame());
    let pace = pace();
    assert_eq!(
        (pace.slow, pace.used, pace.bulk),
        (step(5 * SECOND), step(5 * SECOND), 0)
    );
}
