//! Conversations that have no end of their own are over after a pause.

use netfast_common::vip::{ICMP_IDLE_NS, UDP_IDLE_NS};

use super::{icmp::echo, *};

#[test]
fn a_pause_ends_a_conversation_and_less_does_not() {
    run(&[1, 2, 3], |lab| {
        for (idle, question, answer) in [
            (UDP_IDLE_NS, to_vip(UDP, 4000), from_member(UDP, 1, 4000)),
            (
                ICMP_IDLE_NS,
                echo(to_vip(UDP, 0), 8, 7),
                echo(from_member(UDP, 1, 0), 0, 7),
            ),
        ] {
            lab.turns.insert(ID, 0, 0).expect("a turn");
            sends(lab, &question, Verdict::Chosen, &at_member(&question, 1));
            gets(lab, &answer, &at_client(&answer));
            wait(lab, idle - 1_000_000_000);
            sends(lab, &question, Verdict::Kept, &at_member(&question, 1));
            // What the member says keeps it as well.
            wait(lab, idle - 1_000_000_000);
            gets(lab, &answer, &at_client(&answer));
            wait(lab, 2_000_000_000);
            sends(lab, &question, Verdict::Kept, &at_member(&question, 1));
            wait(lab, idle + 1);
            sends(lab, &question, Verdict::Chosen, &at_member(&question, 2));
            // The one before is not asked any more.
            gets(lab, &answer, &answer);
        }
    });
}

#[test]
fn a_tcp_connection_has_no_such_end() {
    run(&[1, 2], |lab| {
        sends(lab, &syn(4000), Verdict::Chosen, &at_member(&syn(4000), 1));
        let answer = from_member(TCP, 1, 4000).with(|packet| packet.flags = flag::SYN | flag::ACK);
        gets(lab, &answer, &at_client(&answer));
        wait(lab, 10 * UDP_IDLE_NS);
        let data = to_vip(TCP, 4000);
        sends(lab, &data, Verdict::Kept, &at_member(&data, 1));
    });
}
