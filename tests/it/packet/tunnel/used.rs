//! What must ask the kernel although an outer header is known.

use super::*;

/// What it is, and what changes.
type Case<T> = (&'static str, fn(&mut T));

/// What is no candidate's does not leave that of an earlier packet behind.
#[test]
fn what_is_refused_takes_the_candidate_away() {
    run(|world| {
        let outer = around(&datagram(), 700);
        for refused in [
            datagram().with(|p| p.fragment = MF),
            datagram().with(|p| p.to_mac = [0xff; 6]),
        ] {
            world.reset();
            assert_eq!(world.gives(&datagram()).0, NEXT);
            assert_eq!(world.gives(&refused).0, NEXT);
            assert_eq!(world.leaves(&outer), None);
        }
    });
}

#[test]
fn what_must_ask_the_kernel_does() {
    run(|world| {
        let inner = datagram();
        let edits: &[Case<Encap>] = &[
            ("another epoch", |encap| encap.epoch ^= 1),
            ("another generation of the device", |encap| encap.in_generation ^= 1),
            ("another generation of the uplink", |encap| encap.out_generation ^= 1),
            ("it is older than a second", |encap| {
                encap.learned_ns = now_ns() - 1100 * MS;
            }),
            ("another DSCP", |encap| encap.dscp ^= 4),
            ("another mark", |encap| encap.in_mark = 1),
            ("it is longer", |encap| encap.max_length = 50),
            ("another source MAC inside", |encap| encap.header[30] ^= 1),
            ("another destination MAC inside", |encap| encap.header[25] ^= 1),
            ("its place was given away at the end", |encap| encap.tag_end ^= 2),
            ("its place was given away at the start", |encap| encap.tag ^= 2),
        ];
        for (what, edit) in edits {
            world.reset();
            world.learns(&inner, &around(&inner, 700));
            world.lab.reset_counts();
            world.edit(edit);
            world.declines(what, &inner);
            // And it is learned anew.
            world.learns(&inner, &around(&inner, 900));
            world.repeats(
                &inner,
                &around(
                    &inner,
                    if what.contains("MAC") || what.contains("at the start") {
                        901
                    } else {
                        701
                    },
                ),
            );
        }
        let uses: &[Case<World<'_>>] = &[
            ("flows are not used", |world| {
                let mut control = world.lab.control.get(&0, 0).expect("control");
                control.switches = Control::LEARN;
                world.lab.set_control(control);
            }),
            ("a new epoch", |world| {
                let mut control = world.lab.control.get(&0, 0).expect("control");
                control.epoch = EPOCH + 1;
                world.lab.set_control(control);
            }),
            ("the device is another", |world| {
                let slot = u32::from(Dev::Uplink2.slot());
                world.lab.generations.set(slot, 1, 0).expect("a generation");
            }),
            ("the uplink is another", |world| {
                let slot = u32::from(Dev::Uplink.slot());
                world.lab.generations.set(slot, 1, 0).expect("a generation");
            }),
            ("the tunnel is not said any more", |world| {
                let device = world.device();
                world.lab.tunnels.remove(&device).expect("it is there");
            }),
            ("a packet with a mark", |world| world.mark = 5),
        ];
        for (what, change) in uses {
            world.reset();
            world.mark = 0;
            world.learns(&inner, &around(&inner, 700));
            world.lab.reset_counts();
            change(world);
            world.declines(what, &inner);
        }
    });
}

/// No longer than what the kernel has let through, but for what every link carries; one that was longer raises it.
#[test]
fn a_longer_packet_asks_first() {
    run(|world| {
        world.reset();
        let of = |length: usize| datagram().with(|packet| packet.payload = vec![1; length - 28]);
        world.learns(&of(100), &around(&of(100), 700));
        world.lab.reset_counts();
        world.repeats(&of(526), &around(&of(526), 701));
        world.learns(&of(527), &around(&of(527), 720));
        world.repeats(&of(527), &around(&of(527), 702));
        world.learns(&of(1400), &around(&of(1400), 720));
        world.repeats(&of(1400), &around(&of(1400), 703));
        // A short one soon afterwards says nothing of long ones; one that asks says all.
        world.learns(&of(1401), &around(&of(1401), 720));
        world.repeats(&of(1400), &around(&of(1400), 704));
        world.edit(|encap| encap.learned_ns = now_ns() - 1100 * MS);
        world.learns(&of(100), &around(&of(100), 800));
        world.lab.reset_counts();
        world.declines("after a question", &of(1400));
        // No more than the uplink takes, whatever leaves.
        world.reset();
        let long = of(1450);
        world.learns(&long, &around(&long, 700));
        let (_, encap) = world.entry(UDP);
        assert_eq!(encap.max_length, 1450);
    });
}

/// A test run has no kind of GSO, so the kernel refuses to put it into a tunnel; how segments are counted is tested in
/// netfast-ebpf/src/tunnel/tests.rs.
#[test]
fn segments_that_the_kernel_refuses_are_left_as_they_are() {
    run(|world| {
        world.reset();
        let of = |length: usize| segment().with(|packet| packet.payload = vec![1; length]);
        world.learns(&of(1000), &around(&of(1000), 700));
        world.lab.reset_counts();
        let bulk = of(3500);
        assert_eq!(world.gives_gso(&bulk, 1000), (NEXT, bulk.bytes()));
        assert_eq!(world.encapsulated(), 0);
        world.repeats(&of(1000), &around(&of(1000), 701));
    });
}
