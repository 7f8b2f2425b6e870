//! Packets that take the slow path for their own sake, each sent into a flow that is in use: so it would be fast, were
//! it not for the one thing that is odd about it. None of them may leave a candidate.

use netfast_common::{device::Device, reason::Reason};
use netfast_tests::{
    packet::{flag, odd as table},
    scene::{Dev, Way, bridged, masquerade},
};

use super::{
    change::{Change, Given, In, control, device, in_use},
    row::{Row, Step, check, enters, frame_enters, row},
};

fn both_in_use((there, back): (Way, Way)) -> Vec<Given> {
    vec![in_use(&there), in_use(&back)]
}

fn odd(what: &str, step: Step) -> Row {
    row(what, both_in_use(bridged()), vec![step])
}

pub(super) fn rows() -> Vec<Row> {
    let (there, back) = bridged();
    let packet = there.packet();
    let mut rows = Vec::new();
    for (what, reason, change) in table::TCP {
        let odd_one = packet.clone().with(change);
        let mut step = enters(&there, &odd_one).slow(*reason);
        // To other MAC addresses it leaves by another interface than the flow.
        if *reason == Reason::NotUnicast && (odd_one.source, odd_one.destination) == (packet.source, packet.destination)
        {
            step = step
                .and(Change::Gone(In::Flows, there))
                .and(Change::Gone(In::Flows, back));
        }
        rows.push(odd(what, step));
    }
    let frame = packet.bytes();
    // A test run refuses IPv4 frames without a whole IP header; those are in netfast-ebpf/src/packet/parse.rs.
    for length in 34..frame.len() {
        let step = frame_enters(&there, frame[..length].to_vec()).slow(Reason::Malformed);
        rows.push(odd(&format!("TCP cut to {length} bytes"), step));
    }
    for (what, reason, change) in table::UDP {
        let way = there.udp();
        let step = enters(&way, &way.packet().with(change)).slow(*reason);
        rows.push(row(*what, vec![in_use(&way)], vec![step]));
    }
    for (what, reason, flags) in table::ENDS {
        for (there, back) in [(there, back), (back, there), masquerade()] {
            let last = there.packet().with(|packet| packet.flags = *flags);
            let step = enters(&there, &last)
                .slow(*reason)
                .and(Change::Gone(In::Flows, there))
                .and(Change::Gone(In::Flows, back));
            let what = format!("{what} from {:?} ends both directions", there.enters);
            rows.push(row(what, both_in_use((there, back)), vec![step]));
        }
    }
    let fin = packet.clone().with(|packet| packet.flags = flag::FIN | flag::ACK);
    rows.push(row(
        "FIN of a connection that nothing is known of",
        vec![in_use(&masquerade().0)],
        vec![enters(&there, &fin).slow(Reason::TcpFin)],
    ));
    rows.push(odd(
        "a mark of other software",
        enters(&there, &packet).mark(1).slow(Reason::Marked),
    ));
    rows.extend(switched());
    rows.extend(spoofed());
    rows
}

/// What the daemon's switches do.
fn switched() -> Vec<Row> {
    let (there, back) = bridged();
    let packet = there.packet();
    let syn = packet.clone().with(|packet| packet.flags = flag::SYN);
    let off = || control(|control| control.switches = 0);
    let off_with_flows = || vec![off(), in_use(&there), in_use(&back)];
    vec![
        row(
            "all switched off",
            off_with_flows(),
            vec![enters(&there, &packet).slow(Reason::Disabled)],
        ),
        row(
            "all switched off: not even a SYN does anything",
            off_with_flows(),
            vec![enters(&there, &syn).slow(Reason::Disabled)],
        ),
        // Found by `cargo xtask fuzz programs`: it was kept, and what left next could have been taken for it.
        row(
            "all switched off: what entered before is no candidate any more",
            Vec::new(),
            vec![
                enters(&there, &packet).slow(Reason::NoFlow),
                enters(&back, &back.packet())
                    .slow(Reason::Disabled)
                    .candidate(false)
                    .after(off()),
                super::row::leaves(&there, &packet).ends(Reason::NoCandidate),
            ],
        ),
        row(
            "use switched off: flows are still learned, not used",
            vec![
                control(|control| control.switches = netfast_common::control::Control::LEARN),
                in_use(&there),
                in_use(&back),
            ],
            vec![
                enters(&there, &packet).slow(Reason::Disabled).candidate(true),
                super::row::leaves(&there, &packet).refreshed(&there),
            ],
        ),
        row(
            "learning switched off: a new flow is not remembered, a known one is used",
            vec![
                control(|control| control.switches = netfast_common::control::Control::USE),
                in_use(&there),
            ],
            vec![
                enters(&back, &back.packet()).slow(Reason::LearnOff),
                enters(&there, &packet).fast(&there, &packet),
            ],
        ),
        row(
            "an interface that the daemon has not told of",
            Vec::new(),
            vec![
                enters(
                    &there.with(|way| way.enters = Dev::Stranger),
                    &packet.clone().with(|packet| packet.to_mac = Dev::Stranger.mac()),
                )
                .slow(Reason::UnknownDevice),
            ],
        ),
        row(
            "an interface that is not to be accelerated",
            vec![device(Dev::A, |device| device.flags &= !Device::ACCELERATED)],
            vec![enters(&there, &packet).slow(Reason::UnknownDevice)],
        ),
        row(
            "an interface that is no longer to be accelerated: the daemon gives it another generation",
            vec![
                in_use(&there),
                device(Dev::A, |device| device.flags &= !Device::ACCELERATED),
                Given::Generation(Dev::A, 999),
            ],
            vec![enters(&there, &packet).slow(Reason::UnknownDevice)],
        ),
    ]
}

/// Containers that send with what is not theirs.
fn spoofed() -> Vec<Row> {
    let (there, _) = bridged();
    let packet = there.packet();
    let other_mac = packet.clone().with(|packet| packet.from_mac = Dev::B.mac());
    let other_address = packet.clone().with(|packet| packet.source.0 = Dev::B.address());
    let any_source = || device(Dev::A, |device| device.flags |= Device::ANY_SOURCE);
    let (_, from_outside) = masquerade();
    vec![
        row(
            "another's MAC as source, on a flow of its own",
            vec![in_use(&there)],
            vec![
                enters(&there, &other_mac)
                    .slow(Reason::Spoofed)
                    .and(Change::Gone(In::Flows, there)),
            ],
        ),
        row(
            "another's address as source",
            vec![in_use(&there)],
            vec![enters(&there, &other_address).slow(Reason::Spoofed)],
        ),
        row(
            "another's address as source, where it may forward",
            vec![any_source()],
            vec![enters(&there, &other_address).slow(Reason::NoFlow).honest()],
        ),
        row(
            "another's MAC as source, where it may forward",
            vec![any_source()],
            vec![enters(&there, &other_mac).slow(Reason::Spoofed)],
        ),
        row(
            "any MAC and address from outside",
            Vec::new(),
            vec![
                enters(
                    &from_outside,
                    &from_outside.packet().with(|packet| packet.from_mac[5] ^= 1),
                )
                .slow(Reason::NoFlow),
            ],
        ),
    ]
}

#[test]
fn odd_packets_take_the_slow_path() {
    check(&rows());
}
