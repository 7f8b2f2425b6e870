//! The fast path learns the translation between its own two hooks, and repeats it without being told.

use super::*;

/// A packet by all the programs of its way: the veth it enters by, and the one it leaves by. What comes out of each.
fn through(lab: &mut Lab, from: Dev, to: Dev, packet: &Packet) -> (Outcome, Outcome) {
    let (index, out_index) = (lab.ifindex(from), lab.ifindex(to));
    let at = |ifindex| Context {
        ifindex,
        ingress_ifindex: index,
        ..Context::default()
    };
    let entered = run_frame(lab, Hook::EndpointIn, at(index), &packet.bytes());
    if entered.verdict == REDIRECT {
        return (entered.clone(), entered);
    }
    let translated = run_frame(lab, Hook::VipIn, at(index), &entered.packet);
    let returned = run_frame(lab, Hook::VipOut, at(out_index), &translated.packet);
    let left = run_frame(lab, Hook::EndpointOut, at(out_index), &returned.packet);
    (entered, left)
}

#[test]
fn both_directions_are_learned_with_the_virtual_address() {
    // The member is B.
    run(&[1], |lab| {
        let control = Control {
            revalidate_ns: 600_000_000_000,
            ..lab.control.get(&0, 0).expect("control")
        };
        lab.set_control(control);
        let there = to_vip(TCP, 4000);
        let back = from_member(TCP, 1, 4000);
        through(lab, Dev::A, Dev::B, &syn(4000));
        // A slow machine may take longer than a run may; then it is learned with one of the next packets.
        let mut fast = None;
        for _ in 0..200 {
            let (entered, left) = through(lab, Dev::A, Dev::B, &there);
            same(&left, left.verdict, &at_member(&there, 1));
            let (answered, given) = through(lab, Dev::B, Dev::A, &back);
            same(&given, given.verdict, &at_client(&back));
            if entered.verdict == REDIRECT && answered.verdict == REDIRECT {
                fast = Some((entered, answered));
                break;
            }
        }
        let (entered, answered) = fast.expect("both directions are fast in the end");
        same(&entered, REDIRECT, &at_member(&there, 1));
        same(&answered, REDIRECT, &at_client(&back));
        check_checksums(&entered.packet).expect("checksums");
        assert_eq!(given(lab, 1), 1);
    });
}
