//! What an outer header is made of, and who else looks at what it is put before: as without netfast.

use std::{collections::BTreeSet, net::UdpSocket};

use super::*;
use crate::netns::judges::program::{Judge, Place, UNWANTED};

/// Sends a datagram of these bytes and awaits its echo.
fn is_answered(socket: &UdpSocket, byte: u8) -> bool {
    let mut answer = [0; 64];
    socket.send(&[byte; 64]).is_ok() && matches!(socket.recv(&mut answer), Ok(64)) && answer[0] == byte
}

/// A program of others behind ours on the tunnel's device goes on judging by the packet, attached in the middle of a conversation.
#[test]
fn a_program_on_the_tunnels_device_judges_every_packet() {
    let Some((world, _echo, socket)) = conversation(Kind::Routed) else {
        return;
    };
    assert!(is_answered(&socket, UNWANTED));
    let judge = Judge::on(&world.host(0).ns, TUNNEL, Place::TcxEgress);
    let begin = Instant::now();
    cmd::poll("it judges", TIMEOUT, || {
        (!is_answered(&socket, UNWANTED) && is_answered(&socket, b'q')).then_some(())
    })
    .expect("it holds");
    assert!(begin.elapsed() < SOON, "{:?}", begin.elapsed());
    for _ in 0..20 {
        assert!(!is_answered(&socket, UNWANTED) && is_answered(&socket, b'q'));
    }
    let said = world.check();
    assert!(said.contains("each outer header: the program"), "{said}");
    drop(judge);
    cmd::poll("nobody judges", TIMEOUT, || {
        is_answered(&socket, UNWANTED).then_some(())
    })
    .expect("it is gone");
    world.warm(&socket);
}

/// Whatever else of the header the operator chooses is the kernel's to write, and repeated: data is exact.
#[test]
fn tunnels_of_other_settings_are_repeated() {
    if !needs(&[Need::Root, Need::Kernel(6, 6)]) {
        return;
    }
    for options in [
        "noudpcsum df set",
        "noudpcsum tos 0x10 ttl 7",
        "noudpcsum srcport 40000 40010",
    ] {
        let world = World::with(Kind::Routed, options);
        let before = world.sent(0);
        bulk(&world);
        world.check_share(0, before, 100);
    }
}

/// The source port is the entropy that networks spread flows by: each conversation has the one that the kernel gives it.
#[test]
fn each_conversation_has_the_source_port_that_the_kernel_gives_it() {
    let Some((world, _echo, first)) = conversation(Kind::Routed) else {
        return;
    };
    let to = at(world.host(1).container_ip, 7002);
    let mut sockets: Vec<UdpSocket> = (0..16).map(|_| udp(&world.host(0).container, 0, to)).collect();
    sockets.push(first);
    let far = &world.host(1).ns;
    far.sh(&format!(
        "nft add table ip seen && nft add set ip seen ports '{{ type inet_service; size 1024; flags dynamic; }}' && \
         nft add chain ip seen c '{{ type filter hook input priority 0; }}' && \
         nft add rule ip seen c udp dport {PORT} add @ports '{{ udp sport }}'"
    ))
    .expect("a rule that notes ports");
    for socket in &sockets {
        until_answered(socket, "an answer");
        world.warm(socket);
    }
    let seen = || -> BTreeSet<u16> {
        far.sh("nft flush set ip seen ports").expect("emptied");
        for socket in &sockets {
            assert_eq!((0..20).filter(|_| ask(socket)).count(), 20);
        }
        let listed = far.sh("nft list set ip seen ports").expect("the ports");
        let elements = listed.split("elements = {").nth(1).expect("some");
        let numbers = elements
            .split(|c: char| !c.is_ascii_digit())
            .filter(|text| !text.is_empty());
        numbers.map(|number| number.parse().expect("a port")).collect()
    };
    let before = world.count(0, Reason::Encapsulated);
    let repeated = seen();
    assert!(
        world.count(0, Reason::Encapsulated) >= before + 250,
        "they were repeated"
    );
    assert!(repeated.len() > 8, "{repeated:?}");
    world.netfast[0].detach().expect("detached");
    assert_eq!(seen(), repeated);
}
