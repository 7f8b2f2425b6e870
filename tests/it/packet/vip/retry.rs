//! A member that refuses a connection, or does not answer it, and the next one that gets it.
//!
//! A test run's skb never has its checksum left to the device (`net/bpf/test_run.c`), as a client's SYN has it; that is tested in
//! netfast-ebpf/src/lb/tests.rs, and with real veths in the docker ring.

use netfast_common::vip::Syn;

use super::*;

/// A SYN with all that a client may say in it.
fn rich(port: u16) -> Packet {
    syn(port).with(|packet| {
        packet.tos = 0x28;
        packet.ttl = 61;
        packet.id = 0xbeef;
        packet.window = 0xfaf0;
        packet.sequence = 0xffff_ffff;
        packet.tcp_options = (0..40_u8).map(|byte| byte.wrapping_mul(7)).collect();
    })
}

/// How a member refuses a SYN.
fn refusal(number: u8, syn: &Packet) -> Packet {
    from_member(TCP, number, syn.source.1).with(|packet| {
        packet.flags = flag::RST | flag::ACK;
        packet.sequence = 0;
        packet.acknowledgement = syn.sequence.wrapping_add(1);
        packet.window = 0;
        packet.id = 0;
        packet.payload.clear();
    })
}

/// A refusal that the client does not get: it is its own SYN again, which goes to another member.
#[track_caller]
fn goes_on(lab: &mut Lab, syn: &Packet, from: u8, to: u8) {
    let (outcome, counted) = pass(lab, Hook::VipOut, Dev::A, &refusal(from, syn).bytes());
    assert_eq!(counted, Some(Verdict::Retried));
    same(&outcome, REDIRECT, syn);
    sends(lab, syn, Verdict::SynAgain, &at_member(syn, to));
}

/// A refusal that the client gets.
#[track_caller]
fn stands(lab: &mut Lab, syn: &Packet, from: u8) {
    let refusal = refusal(from, syn);
    gets(lab, &refusal, &at_client(&refusal));
}

#[test]
fn a_refused_connection_goes_to_the_next_and_the_client_does_not_know() {
    run(&[1, 2, 3], |lab| {
        for (port, syn) in [(4000, rich(4000)), (4001, syn(4001))] {
            lab.turns.insert(ID, 0, 0).expect("a turn");
            sends(lab, &syn, Verdict::Chosen, &at_member(&syn, 1));
            goes_on(lab, &syn, 1, 2);
            // What the first one says once more is not the virtual address's.
            gets(lab, &refusal(1, &syn), &refusal(1, &syn));
            let answer = from_member(TCP, 2, port).with(|packet| packet.flags = flag::SYN | flag::ACK);
            gets(lab, &answer, &at_client(&answer));
            let data = to_vip(TCP, port);
            sends(lab, &data, Verdict::Kept, &at_member(&data, 2));
        }
        assert_eq!([1, 2, 3].map(|number| given(lab, number)), [2, 2, 0]);
        assert_eq!([1, 2, 3].map(|number| retried(lab, number)), [2, 0, 0]);
    });
}

#[test]
fn three_members_are_tried_each_once() {
    run(&[1, 2, 1, 3, 4], |lab| {
        let syn = rich(4000);
        sends(lab, &syn, Verdict::Chosen, &at_member(&syn, 1));
        goes_on(lab, &syn, 1, 2);
        // The first one's second slot is passed over.
        goes_on(lab, &syn, 2, 3);
        stands(lab, &syn, 3);
        assert_eq!([1, 2, 3, 4].map(|number| given(lab, number)), [1, 1, 1, 0]);
        assert_eq!([1, 2, 3, 4].map(|number| retried(lab, number)), [1, 1, 0, 0]);
        // The next connection by the same ports is another one.
        sends(lab, &syn, Verdict::Chosen, &at_member(&syn, 3));
        goes_on(lab, &syn, 3, 4);
    });
}

#[test]
fn who_is_alone_refuses() {
    for slots in [&[1][..], &[1, 1, 1]] {
        run(slots, |lab| {
            sends(lab, &syn(4000), Verdict::Chosen, &at_member(&syn(4000), 1));
            stands(lab, &syn(4000), 1);
        });
    }
    // Two that refuse, and one that became ineligible meanwhile.
    run(&[1, 2, 3], |lab| {
        sends(lab, &syn(4000), Verdict::Chosen, &at_member(&syn(4000), 1));
        goes_on(lab, &syn(4000), 1, 2);
        set_service(lab, &[1, 2], 2, 0);
        stands(lab, &syn(4000), 2);
    });
}

#[test]
fn a_small_share_is_found() {
    let slots: Vec<u8> = [vec![1; 12], vec![2]].concat();
    run(&slots, |lab| {
        sends(lab, &syn(4000), Verdict::Chosen, &at_member(&syn(4000), 1));
        goes_on(lab, &syn(4000), 1, 2);
    });
}

#[test]
fn what_does_not_refuse_the_syn_is_the_client_s() {
    run(&[1, 2], |lab| {
        let edits: [fn(&mut Packet); 4] = [
            |packet| packet.acknowledgement += 1,
            |packet| packet.acknowledgement = 0,
            |packet| packet.flags = flag::RST,
            |packet| packet.flags = flag::RST | flag::ACK | flag::FIN,
        ];
        for (port, edit) in (4000..).zip(edits) {
            lab.turns.insert(ID, 0, 0).expect("a turn");
            sends(lab, &syn(port), Verdict::Chosen, &at_member(&syn(port), 1));
            let reset = refusal(1, &syn(port)).with(edit);
            gets(lab, &reset, &at_client(&reset));
        }
        // After an answer.
        lab.turns.insert(ID, 0, 0).expect("a turn");
        sends(lab, &syn(5000), Verdict::Chosen, &at_member(&syn(5000), 1));
        let answer = from_member(TCP, 1, 5000).with(|packet| packet.flags = flag::SYN | flag::ACK);
        gets(lab, &answer, &at_client(&answer));
        stands(lab, &syn(5000), 1);
        // A SYN with data is not remembered.
        let fast_open = syn(5001).with(|packet| packet.payload = vec![1]);
        sends(lab, &fast_open, Verdict::Chosen, &at_member(&fast_open, 2));
        stands(lab, &fast_open, 2);
        // Nor is what another client's member says.
        gets(lab, &refusal(1, &syn(5002)), &refusal(1, &syn(5002)));
    });
}

#[test]
fn affinity_gives_the_next_of_its_table() {
    run(&[1, 2], |lab| {
        set_service(lab, &[1, 2, 1, 2, 1], 2, Service::AFFINITY);
        let first = went_to(lab, &syn(4000));
        goes_on(lab, &syn(4000), first, 3 - first);
        stands(lab, &syn(4000), 3 - first);
        assert_eq!(went_to(lab, &syn(4001)), first);
    });
}

#[test]
fn a_member_that_refuses_itself_is_given_another_one() {
    run(&[0, 1], |lab| {
        let there = syn(4000);
        let (_, counted) = pass(lab, Hook::VipIn, Dev::A, &there.bytes());
        assert_eq!(counted, Some(Verdict::Hairpin));
        let reset = refusal(0, &there).with(|packet| packet.destination = (VIP, 4000));
        let reset = reset.macs(BRIDGE_MAC, Dev::A.mac());
        let (outcome, counted) = pass(lab, Hook::VipIn, Dev::A, &reset.bytes());
        assert_eq!(counted, Some(Verdict::Retried));
        same(&outcome, REDIRECT, &there);
        sends(lab, &there, Verdict::SynAgain, &at_member(&there, 1));
        // The other way round it is given itself, and if that refuses as well it is told so.
        let there = syn(4001);
        lab.turns.insert(ID, 1, 0).expect("a turn");
        sends(lab, &there, Verdict::Chosen, &at_member(&there, 1));
        let (outcome, _) = pass(lab, Hook::VipOut, Dev::A, &refusal(1, &there).bytes());
        same(&outcome, REDIRECT, &there);
        let (_, counted) = pass(lab, Hook::VipIn, Dev::A, &there.bytes());
        assert_eq!(counted, Some(Verdict::Hairpin));
        let reset = refusal(0, &there).with(|packet| packet.destination = (VIP, 4001));
        let reset = reset.macs(BRIDGE_MAC, Dev::A.mac());
        let (outcome, counted) = pass(lab, Hook::VipIn, Dev::A, &reset.bytes());
        assert_eq!(counted, Some(Verdict::Hairpin));
        assert_eq!((outcome.verdict, outcome.packet[47]), (REDIRECT, flag::RST | flag::ACK));
        assert_eq!([0, 1].map(|number| given(lab, number)), [2, 2]);
        assert_eq!([0, 1].map(|number| retried(lab, number)), [1, 1]);
    });
}

#[test]
fn a_syn_that_nobody_answers_goes_on_when_it_comes_again() {
    run(&[1, 2, 3, 4], |lab| {
        let syn = rich(4000);
        sends(lab, &syn, Verdict::Chosen, &at_member(&syn, 1));
        for (from, to) in [(1, 2), (2, 3)] {
            sends(lab, &syn, Verdict::SynAgain, &at_member(&syn, from));
            wait(lab, Syn::SILENT_NS);
            sends(lab, &syn, Verdict::Retried, &at_member(&syn, to));
            // Too late: the client's stack knows nothing of this and says so.
            let answer = from_member(TCP, from, 4000).with(|packet| packet.flags = flag::SYN | flag::ACK);
            gets(lab, &answer, &answer);
        }
        wait(lab, Syn::SILENT_NS);
        sends(lab, &syn, Verdict::SynAgain, &at_member(&syn, 3));
        assert_eq!([1, 2, 3, 4].map(|number| given(lab, number)), [1, 1, 1, 0]);
        assert_eq!([1, 2, 3, 4].map(|number| retried(lab, number)), [1, 1, 0, 0]);
        // Who has answered keeps it, however long a client does not hear.
        let answer = from_member(TCP, 3, 4000).with(|packet| packet.flags = flag::SYN | flag::ACK);
        gets(lab, &answer, &at_client(&answer));
        wait(lab, Syn::SILENT_NS);
        sends(lab, &syn, Verdict::SynAgain, &at_member(&syn, 3));
    });
}

#[test]
fn who_is_not_given_any_more_has_not_got_it() {
    run(&[1, 2], |lab| {
        sends(lab, &syn(4000), Verdict::Chosen, &at_member(&syn(4000), 1));
        set_service(lab, &[2], 2, 0);
        set_eligible(lab, 1, false);
        sends(lab, &syn(4000), Verdict::Chosen, &at_member(&syn(4000), 2));
        assert_eq!([1, 2].map(|number| given(lab, number)), [1, 1]);
        assert_eq!([1, 2].map(|number| retried(lab, number)), [1, 0]);
    });
}
