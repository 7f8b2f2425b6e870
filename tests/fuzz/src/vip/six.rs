//! The same scripts in IPv6: the programs' packets and maps have IPv6 addresses, and what comes of them is told in IPv4.

use std::net::{IpAddr, Ipv4Addr};

use netfast_common::{
    alias::{MemberKey, address},
    device::Device,
    net::{AnyIp, Ip4},
    vip::{Backend, BackendStats, Member, Service, SlotKey},
};
use netfast_tests::{packet::six, scene::Dev};

use super::{
    Machine,
    script::{Hook, Odds},
};
use crate::machine::NEXT;

/// A machine whose programs see IPv6. It plays only scripts [for the kernel](super::script::Script::for_kernel): what stands in a
/// checksum field that is left to the device cannot be told from a checksum.
#[derive(Debug)]
pub struct Six<M>(pub M);

fn ip(ip: AnyIp) -> AnyIp {
    match IpAddr::from(ip) {
        IpAddr::V4(four) => six::address(four).map_or(ip, |six| IpAddr::from(six).into()),
        IpAddr::V6(_) => ip,
    }
}

fn member(key: MemberKey) -> MemberKey {
    let [number, _] = key.address;
    let four = Ipv4Addr::from(u32::try_from(number).expect("of IPv4"));
    MemberKey {
        address: address(&ip(AnyIp::v4(Ip4::from_bytes(four.octets())))),
        ..key
    }
}

impl<M: Machine> Machine for Six<M> {
    fn ifindex(&self, dev: Dev) -> u32 {
        self.0.ifindex(dev)
    }

    fn set_device(&mut self, dev: Dev, device: Option<Device>) {
        self.0.set_device(dev, device);
    }

    fn set_service(&mut self, vip: AnyIp, service: Option<Service>) {
        self.0.set_service(ip(vip), service);
    }

    fn set_slot(&mut self, key: SlotKey, backend: Option<Backend>) {
        let backend = backend.map(|backend| Backend {
            address: ip(backend.address),
            ..backend
        });
        self.0.set_slot(key, backend);
    }

    fn set_member(&mut self, key: MemberKey, value: Option<Member>) {
        self.0.set_member(member(key), value);
    }

    fn set_turn(&mut self, id: u64, turn: Option<u64>) {
        self.0.set_turn(id, turn);
    }

    fn count(&mut self, key: MemberKey) {
        self.0.count(member(key));
    }

    /// In bytes of IPv4, whose header is shorter.
    fn stats(&self, key: MemberKey) -> Option<BackendStats> {
        let stats = self.0.stats(member(key))?;
        Some(BackendStats {
            bytes: stats.bytes - stats.packets * six::MORE as u64,
            ..stats
        })
    }

    /// What has no like in IPv6 passes without being seen.
    fn run(&mut self, hook: Hook, dev: Dev, frame: &[u8], odds: Odds) -> (i32, Vec<u8>) {
        // And what does not come back as it was, such as a wrong ICMP checksum.
        let like = six::frame(frame).filter(|like| six::four(like).as_deref() == Some(frame));
        let Some(like) = like else {
            return (NEXT, frame.to_vec());
        };
        let (verdict, after) = self.0.run(hook, dev, &like, odds);
        (verdict, six::four(&after).expect("a packet of IPv6"))
    }

    fn verdicts(&self) -> Vec<u64> {
        self.0.verdicts()
    }

    fn pass(&mut self, ns: u64) {
        self.0.pass(ns);
    }
}
