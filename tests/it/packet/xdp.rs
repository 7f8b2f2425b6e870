//! XDP at an uplink: what it sends is what the other programs would send, and all else is as it was, uncounted.

use netfast_common::{flow::Exit, reason::FAST};
use netfast_tests::{
    packet::{Packet, six},
    scene::{Dev, Way, published},
};

use super::{
    change::{Given, In, control, in_use, in_use_but},
    harness::{Context, EPOCH, Hook, Lab, now_ns},
    row::{Row, Step, check, frame_at, row},
};

const MS: u64 = 1_000_000;

/// Where datagrams of a published port enter.
fn way() -> Way {
    published().0.udp()
}

fn step(frame: Vec<u8>) -> Step {
    frame_at(Hook::UplinkXdp, Dev::Uplink, None, frame)
}

/// What goes on to the stack: without an expectation it must pass unseen.
fn passes(what: &str, given: Vec<Given>, frame: Vec<u8>) -> Row {
    row(what, given, vec![step(frame)])
}

fn sent() -> Vec<Row> {
    let way = way();
    let packet = way.packet();
    let none = packet.clone().with(|packet| packet.checksum = Some(0));
    let sends = |what: &str, packet: &Packet| {
        let out = way.leaving(packet);
        row(what, vec![in_use(&way)], vec![step(packet.bytes()).fast(&way, &out)])
    };
    vec![
        sends("a datagram of a flow in use", &packet),
        sends("two ECN bits", &packet.clone().with(|packet| packet.tos = 3)),
        sends("the last hop but one", &packet.clone().with(|packet| packet.ttl = 2)),
        sends("no checksum", &none),
        sends(
            "as long as may be",
            &packet.clone().with(|packet| packet.payload = vec![0x5a; 1472]),
        ),
        row(
            "unanswered, where that is enough",
            vec![Given::Flow(
                In::Unreplied,
                way,
                Box::new(|flow| flow.flags |= netfast_common::flow::Flow::<netfast_common::net::Ip4>::ONE_WAY),
            )],
            vec![step(packet.bytes()).fast_in(In::Unreplied, &way, &way.leaving(&packet))],
        ),
    ]
}

fn left() -> Vec<Row> {
    let way = way();
    let packet = way.packet();
    let bytes = packet.bytes();
    let used = || vec![in_use(&way)];
    let but = |edit: fn(&mut netfast_common::flow::Flow<netfast_common::net::Ip4>)| vec![in_use_but(&way, edit)];
    let tcp = published().0;
    let mut tagged = bytes.clone();
    tagged.splice(12..12, [0x81, 0, 0, 5]);
    let mut wrong = bytes.clone();
    *wrong.last_mut().expect("a payload") ^= 1;
    let partial = packet.clone().with(|packet| packet.checksum = Some(0x1234)).bytes();
    let to_c = way.with(|way| way.leaves = Dev::C);
    vec![
        passes("no flow", Vec::new(), bytes.clone()),
        passes("TCP of a flow in use", vec![in_use(&tcp)], tcp.packet().bytes()),
        passes("a wrong byte", used(), wrong),
        passes("a wrong checksum", used(), partial),
        passes("a VLAN tag", used(), tagged),
        passes(
            "a TTL of 1",
            used(),
            packet.clone().with(|packet| packet.ttl = 1).bytes(),
        ),
        passes(
            "another destination MAC",
            used(),
            packet.clone().with(|packet| packet.to_mac[5] ^= 2).bytes(),
        ),
        passes(
            "a source MAC that is not the flow's",
            used(),
            packet.clone().with(|packet| packet.from_mac[5] ^= 2).bytes(),
        ),
        passes(
            "another DSCP",
            used(),
            packet.clone().with(|packet| packet.tos = 4).bytes(),
        ),
        passes("an old epoch", but(|flow| flow.epoch = EPOCH - 1), bytes.clone()),
        passes(
            "another generation where it enters",
            vec![in_use(&way), Given::Generation(Dev::Uplink, 1)],
            bytes.clone(),
        ),
        passes(
            "another generation where it leaves",
            vec![in_use(&way), Given::Generation(way.leaves, 1)],
            bytes.clone(),
        ),
        passes(
            "due to ask the kernel",
            but(|flow| flow.learned_ns -= 1000 * MS),
            bytes.clone(),
        ),
        passes(
            "longer than what the kernel let through",
            but(|flow| flow.max_length = 20),
            bytes.clone(),
        ),
        passes(
            "it must pass the veth's egress",
            but(|flow| flow.exit = Exit::Device as u8),
            bytes.clone(),
        ),
        passes("it waits in a queue", but(|flow| flow.bulk = 1), bytes.clone()),
        passes("its end takes no frames", vec![in_use(&to_c)], bytes.clone()),
        passes(
            "switched off",
            vec![in_use(&way), control(|control| control.switches = 0)],
            bytes,
        ),
    ]
}

#[test]
fn datagrams_of_flows_are_sent_as_the_other_programs_send_them() {
    check(&sent());
}

#[test]
fn all_else_passes_unseen() {
    check(&left());
}

/// Until the daemon has looked again, nothing is sent.
#[test]
fn what_may_have_changed_is_looked_at_first() {
    Lab::run(|lab| {
        let way = way();
        let frame = way.packet().bytes();
        let context = Context {
            ifindex: lab.ifindex(Dev::Uplink),
            ..Context::default()
        };
        let (past, ever) = (now_ns() - 1, u64::MAX);
        for (state, is_sent) in [
            ((0, 0, ever), true),
            ((3, 2, ever), false),
            ((3, 3, past), false),
            ((3, 3, ever), true),
        ] {
            lab.reset();
            in_use(&way).make(lab);
            lab.xdp.set_state(state);
            let before = lab.xdp.sent();
            let done = lab.test_run(Hook::UplinkXdp, context, &frame);
            assert_eq!(done.packet != frame, is_sent, "{state:?}");
            assert_eq!(lab.xdp.sent() - before, u64::from(is_sent), "{state:?}");
        }
    });
}

/// Network cards pad short frames; the container gets them as the stack would have cut them.
#[test]
fn padding_is_cut_off() {
    Lab::run(|lab| {
        let way = way();
        let packet = way.packet().with(|packet| packet.payload = vec![1]);
        for is_six in [false, true] {
            lab.six = is_six;
            lab.reset();
            in_use(&way).make(lab);
            let like = |packet: &Packet| {
                let bytes = packet.bytes();
                if is_six {
                    six::frame(&bytes).expect("a like")
                } else {
                    bytes
                }
            };
            let mut frame = like(&packet);
            frame.resize(70, 0);
            let context = Context {
                ifindex: lab.ifindex(Dev::Uplink),
                ..Context::default()
            };
            let done = lab.test_run(Hook::UplinkXdp, context, &frame);
            assert_eq!(done.packet, like(&way.leaving(&packet)), "{is_six}");
            assert_eq!(lab.counts()[FAST as usize].packets, 1);
            lab.reset_counts();
        }
    });
}
