//! The programs of virtual addresses.

use netfast_common::{
    alias::MemberKey,
    device::{Device, DeviceKey},
    net::AnyIp,
    vip::{Backend, BackendStats, Member, Service, SlotKey, VERDICTS},
};
use netfast_fuzz::vip::{
    self, Host, Machine, Six,
    script::{Hook as Place, Odds, Script},
};
use netfast_tests::{packet::difference, scene::Dev};

use super::{ATTEMPTS, CASES, bytes_of_seed, kept_bytes, seeds};
use crate::packet::harness::{Context, Hook, Lab, now_ns};

/// Both machines; the script's words go to both.
struct Twins<'a> {
    lab: &'a mut Lab,
    host: Host,
    runs: u64,
    /// What differs first.
    difference: Option<String>,
    /// The kernel's counts in the beginning.
    begin: Vec<u64>,
}

fn counts(lab: &Lab) -> Vec<u64> {
    (0..VERDICTS)
        .map(|number| lab.vip_verdicts.get(&number, 0).expect("a count").iter().sum())
        .collect()
}

/// Writes an element, or removes it: it may be gone already.
macro_rules! set {
    ($map:expr, $key:expr, $value:expr) => {
        match $value {
            Some(value) => $map.insert($key, value, 0).expect("room"),
            None => drop($map.remove(&$key)),
        }
    };
}

impl Machine for Twins<'_> {
    fn ifindex(&self, which: Dev) -> u32 {
        self.lab.ifindex(which)
    }

    fn set_device(&mut self, which: Dev, device: Option<Device>) {
        self.host.set_device(which, device);
        set!(self.lab.devices, DeviceKey::served(self.lab.ifindex(which)), device);
    }

    fn set_service(&mut self, vip: AnyIp, service: Option<Service>) {
        self.host.set_service(vip, service);
        set!(self.lab.vips, vip, service);
    }

    fn set_slot(&mut self, key: SlotKey, backend: Option<Backend>) {
        self.host.set_slot(key, backend);
        set!(self.lab.vip_slots, key, backend);
    }

    fn set_member(&mut self, key: MemberKey, member: Option<Member>) {
        self.host.set_member(key, member);
        set!(self.lab.vip_members, key, member);
    }

    fn set_turn(&mut self, id: u64, turn: Option<u64>) {
        self.host.set_turn(id, turn);
        set!(self.lab.turns, id, turn);
    }

    fn count(&mut self, key: MemberKey) {
        self.host.count(key);
        self.lab
            .vip_stats
            .insert(key, BackendStats::default(), 0)
            .expect("a count");
    }

    fn stats(&self, key: MemberKey) -> Option<BackendStats> {
        self.host.stats(key)
    }

    fn run(&mut self, place: Place, who: Dev, frame: &[u8], odds: Odds) -> (i32, Vec<u8>) {
        self.runs += 1;
        let hook = match place {
            Place::In => Hook::VipIn,
            Place::Out => Hook::VipOut,
        };
        let context = Context {
            ifindex: self.lab.ifindex(who),
            ingress_ifindex: self.lab.ifindex(who),
            ..Context::default()
        };
        self.host.set_now(now_ns());
        let on_host = self.host.run(place, who, frame, odds);
        let done = self.lab.test_run(hook, context, frame);
        if on_host != (done.verdict, done.packet.clone()) {
            let text = difference(&on_host.1, &done.packet);
            let verdicts = (on_host.0, done.verdict);
            self.difference
                .get_or_insert_with(|| format!("{place:?} {who:?}: {verdicts:?}\n{text}"));
        }
        on_host
    }

    fn verdicts(&self) -> Vec<u64> {
        self.host.verdicts()
    }

    fn pass(&mut self, ns: u64) {
        self.host.grow_older(ns);
        for table in &mut self.lab.vip_connections {
            let elements: Vec<_> = table
                .iter()
                .map(|element| element.expect("nothing is evicted"))
                .collect();
            for (key, mut conn) in elements {
                conn.used_ns = conn.used_ns.wrapping_sub(ns);
                table.insert(key, conn, 0).expect("it is there");
            }
        }
    }
}

impl Twins<'_> {
    /// What was counted.
    fn judge_end(&mut self) {
        let kernel: Vec<u64> = counts(self.lab)
            .iter()
            .zip(&self.begin)
            .map(|(now, then)| now - then)
            .collect();
        let host = self.host.verdicts();
        let mut text = String::new();
        if kernel != host {
            text = format!("verdicts: {host:?} on the host, {kernel:?} on the kernel");
        }
        for element in &self.lab.vip_stats {
            let (key, given) = element.expect("nobody changes it");
            if self.host.stats(key) != Some(given) {
                text = format!(
                    "{key:?}: {:?} on the host, {given:?} on the kernel",
                    self.host.stats(key)
                );
            }
        }
        if !text.is_empty() {
            self.difference.get_or_insert(text);
        }
    }
}

/// What differs, if anything does each time: the clock goes on while a script is played.
fn play(lab: &mut Lab, script: &Script, is_six: bool) -> Result<u64, String> {
    let mut last = String::new();
    for _ in 0..ATTEMPTS {
        lab.reset();
        lab.reset_vips();
        let indexes = Dev::ALL.map(|dev| lab.ifindex(dev));
        let begin = counts(lab);
        let mut twins = Twins {
            lab,
            host: Host::with(indexes),
            runs: 0,
            difference: None,
            begin,
        };
        if is_six {
            let mut six = Six(twins);
            vip::play(&mut six, script);
            twins = six.0;
        } else {
            vip::play(&mut twins, script);
        }
        twins.judge_end();
        match twins.difference {
            None => return Ok(twins.runs),
            Some(text) => last = text,
        }
    }
    Err(last)
}

#[test]
fn the_kernel_and_the_host_build_translate_alike() {
    Lab::run(|lab| {
        let of_seeds = seeds(CASES).map(|seed| (format!("seed {seed}"), bytes_of_seed(seed)));
        let (mut scripts, mut runs) = (0, 0);
        for (name, bytes) in kept_bytes("vip").into_iter().chain(of_seeds) {
            // Told if it fails.
            println!("{name}");
            let script = Script::of(&bytes).for_kernel();
            for is_six in [false, true] {
                match play(lab, &script, is_six) {
                    Ok(count) => (scripts, runs) = (scripts + 1, runs + count),
                    Err(text) => panic!("IPv6 {is_six}: {script:?}\n{text}"),
                }
            }
        }
        assert!(runs > 0);
        println!("{scripts} scripts, {runs} packets on both");
    });
}
