//! Every odd packet, one at a time.

use netfast_tests::packet::odd;

use super::*;
use crate::{
    scene::talks,
    script::{Edit, Mangle, Odds, Place, Step, Which},
};

/// Each edit that a script can have, with values at its edges; see [`odd`] for why this is another list.
fn edits() -> Vec<Edit> {
    let mut edits = Vec::new();
    edits.extend([0, 1, 2, 63, 255].map(Edit::Ttl));
    edits.extend([1, 3, 4, 0xb8].map(Edit::Tos));
    edits.extend([0, 0x2000, 1, 0x1fff, 0x8000, 0x6000].map(Edit::Fragment));
    edits.extend([0, 1, 2, 4, 8, 0x11, 0x12, 0x14, 0x30, 0x50, 0xff].map(Edit::BareFlags));
    edits.extend([0, 1, 3, 4, 15, 16, 534, 535, 1400].map(Edit::Payload));
    edits.extend([1, 10].map(Edit::IpOptions));
    edits.extend([1, 3, 10].map(Edit::TcpOptions));
    edits.extend([0, 19, 20, 60, 1500, 0xffff].map(|length| Edit::Lengths(Some(length), None, None)));
    edits.extend([0, 7, 8, 60, 0xffff].map(|length| Edit::Lengths(None, Some(length), None)));
    edits.extend([0, 4, 15].map(|words| Edit::Lengths(None, None, Some(words))));
    edits.extend([0, 1, 0xffff].map(|sum| Edit::Checksums(Some(sum), None)));
    edits.extend([0, 1, 0xffff].map(|sum| Edit::Checksums(None, Some(sum))));
    edits.extend([0x44, 0x46, 0x65].map(Edit::Version));
    edits.extend([0, 1, 6, 17, 47, 132].map(Edit::Protocol));
    edits.extend([0x0806, 0x8100, 0x86dd, 60].map(Edit::EtherType));
    edits.extend([true, false].map(Edit::Group));
    for place in Dev::ALL.map(Place::of) {
        edits.extend([Edit::FromMac(place), Edit::ToMac(place), Edit::Source(place)]);
    }
    edits.extend([[0; 4], [255; 4], [224, 0, 0, 1], [127, 0, 0, 1]].map(Edit::AnySource));
    edits.extend([[0; 4], [255; 4], [224, 0, 0, 1], [172, 17, 255, 255]].map(Edit::AnyDestination));
    edits.extend([
        Edit::Port(0),
        Edit::Trailer(1),
        Edit::Trailer(40),
        Edit::Sequence(7),
        Edit::Id(0),
    ]);
    edits
}

/// What else the kernel may do on the way.
fn mangles() -> Vec<Mangle> {
    let mut mangles = vec![
        Mangle::Waits(30),
        Mangle::OtherStack,
        Mangle::SentByProgram,
        Mangle::Queued,
    ];
    mangles.extend([0, 1, 62, 63, 64, 65].map(Mangle::Ttl));
    mangles.extend([1, 0xb8].map(Mangle::Tos));
    mangles.extend((12..60).step_by(3).map(|place| Mangle::Byte(place, 0x5a)));
    for place in Dev::ALL.map(Place::of) {
        mangles.extend([Mangle::Leaves(place), Mangle::ToMac(place)]);
    }
    mangles
}

fn all() -> impl Iterator<Item = Which> {
    let both = |which: fn(u8, bool) -> Which, talk| [false, true].map(|is_back| which(talk, is_back));
    let kinds: [fn(u8, bool) -> Which; 3] = [
        |talk, is_back| Which::new(talk, false, is_back),
        |talk, is_back| Which::new(talk, true, is_back),
        Which::echo,
    ];
    let talks = 0..u8::try_from(talks().len()).expect("few");
    talks.flat_map(move |talk| kinds.into_iter().flat_map(move |which| both(which, talk)))
}

/// Every odd packet on a flow in use, and ordinary ones after it.
#[test]
fn odd_packets() {
    let mut fast = 0;
    // There; back is the same code.
    for which in all().step_by(2) {
        for edit in edits() {
            let odd = Step::Pass(which, vec![edit], Odds::default());
            let steps = vec![Step::Talk(which, 0), odd, Step::Talk(which, 0)];
            fast += play(&Script { steps })[FAST as usize].packets;
        }
    }
    assert!(fast > 0);
}

/// Every way in which the kernel may do more than a conversation says, before there is a flow.
#[test]
fn mangled_packets() {
    for which in all() {
        for mangle in mangles() {
            let mangled = |which| Step::Mangled(which, vec![], Odds::default(), mangle);
            let steps = vec![mangled(which), mangled(which.turned()), Step::Talk(which, 0)];
            play(&Script { steps });
        }
    }
}

/// What the packet ring sends on the real kernel has the same reasons here.
#[test]
fn the_table_of_odd_packets() {
    let (tcp, udp) = (Which::new(0, false, false), Which::new(0, true, false));
    let of = |which: Which, rows: &'static [odd::Row]| {
        rows.iter()
            .map(move |(what, reason, change)| (which, *what, *reason, which.packet().with(change)))
    };
    let ends = odd::ENDS.iter().map(|(what, reason, flags)| {
        let packet = tcp.packet().with(|packet| packet.flags = *flags);
        (tcp, *what, *reason, packet)
    });
    let echo = of(Which::echo(0, false), odd::ICMP);
    let odd = of(tcp, odd::TCP).chain(of(udp, odd::UDP)).chain(echo);
    for (which, what, reason, packet) in odd.chain(ends) {
        let from = Place::of(which.way().enters);
        let odd = Step::Frame(Hook::EndpointIn, from, from, packet.bytes(), Odds::default());
        let before = play(&Script {
            steps: vec![Step::Talk(which, 1)],
        });
        assert!(before[FAST as usize].packets > 0, "a flow is in use");
        let after = play(&Script {
            steps: vec![Step::Talk(which, 1), odd],
        });
        let place = reason.number() as usize;
        assert_eq!(after[place].packets, before[place].packets + 1, "{what}: {reason:?}");
    }
}
