//! A program of the host's on the way: it gets packets by a socket, and sends the very same packets on by another. To the
//! kernel that is two ways, and no verdict covers both together.

use std::net::SocketAddr;

use netfast_tests::seeds::{
    family::Family,
    names,
    odd::Odd,
    scenario::{HOST_PORT, Place},
};

use super::{
    super::{station::Tap, wire::Packet},
    play::Play,
};

/// The port that the packets come from.
const PORT: u16 = 7300;
/// More than netfast only counts.
const TIMES: u8 = 5;

impl Play<'_> {
    /// From a container on one bridge to another on the same.
    pub fn relay(&mut self, from: Place, to: Place, family: Family) {
        let Place::Container(bridge, _) = from else {
            return;
        };
        let tap = match Tap::open(&self.arena.host, &names::veth(to)) {
            Ok(tap) => tap,
            Err(error) => return self.note(format!("no way on: {error}")),
        };
        // The host's own socket takes it and says nothing, so the kernel is done with it.
        let source = SocketAddr::new(names::ip(from, family), PORT);
        let destination = SocketAddr::new(names::gateway(bridge, family), HOST_PORT + 1);
        for count in 0..TIMES {
            let packet = Packet::udp(source, destination, &[b'r', b'0' + count]);
            self.say_all(from, vec![packet.clone()], Odd::Plain(0));
            let packet = packet.with(|packet| packet.id = self.last_id);
            let frame = packet.frame(names::bridge_mac(bridge), names::mac(to));
            if let Err(error) = tap.send(&frame) {
                self.note(format!("the program cannot send: {error}"));
            }
            self.hear();
        }
    }
}
