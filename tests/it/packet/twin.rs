//! The programs on the kernel beside the same sources built for the host: scripts of packets and events through both,
//! with the same verdict, bytes, counts, traffic, flows and candidate after each of them.
//!
//! The scripts are those that the fuzzer has kept (tests/corpus), and some made from seeds; `cargo xtask test
//! packet --cases N` plays more. [`dns`] and [`vip`] do the same with the programs of aliases.

use std::{collections::BTreeMap, env, fmt::Write as _, ops::Range};

use netfast_common::{
    control::Control,
    device::{Device, DeviceKey, Traffic},
    flow::{Flow, FlowKey},
    net::Ip4,
    reason::Count,
    trace::Filter,
};
use netfast_ebpf::ctx::fake;
use netfast_fuzz::{
    machine::{Machine, Outcome, Player, Run, Watch},
    programs::{self, Host},
    script::{Hook as Place, Script},
};
use netfast_tests::{
    corpus,
    packet::{self, ICMP, difference},
    scene::{Dev, Way},
    seeds::rng::Rng,
};

use super::{
    harness::{Context, Hook, Lab, Table, now_ns},
    six,
    state::{self, NOW},
};

mod dns;
mod vip;

/// Scripts of seeds that every run plays.
const CASES: u64 = 250;
/// Which, `FROM+COUNT`, instead: set by `cargo xtask test packet --cases`.
const VARIABLE: &str = "NETFAST_CASES";
/// The clock goes on while a script is played, and two machines are never asked at the same moment: what differs only
/// sometimes is that.
const ATTEMPTS: u32 = 30;

/// Both machines; the script's words go to both.
struct Twins<'a> {
    lab: &'a mut Lab,
    host: Host,
    /// What has a like in IPv6 is sent as that.
    six: bool,
    /// Counts are compared after each packet, and not only in the end: thousands of questions to the kernel.
    is_careful: bool,
    /// What differs first.
    difference: Option<String>,
    runs: u64,
    /// Flows of IPv6 in the end, and those of ICMP echo in use.
    flows6: usize,
    echoes: usize,
}

fn hook(place: Place) -> Hook {
    match place {
        Place::EndpointIn => Hook::EndpointIn,
        Place::EndpointOut => Hook::EndpointOut,
        Place::BridgeIn => Hook::BridgeIn,
        Place::BridgeOut => Hook::BridgeOut,
        Place::UplinkIn => Hook::UplinkIn,
        Place::UplinkOut => Hook::UplinkOut,
    }
}

impl Machine for Twins<'_> {
    fn run(&mut self, run: &Run) -> Outcome {
        self.runs += 1;
        let mut run = run.clone();
        if let Some(frame) = packet::six::frame(&run.frame).filter(|_| self.six) {
            run.frame = frame;
        }
        let run = &run;
        let context = Context {
            mark: run.odds.mark(),
            priority: run.odds.priority(),
            ingress_ifindex: run.from.map_or(0, |from| self.lab.ifindex(from)),
            ifindex: self.lab.ifindex(run.dev),
            gso_size: run.odds.gso(),
            ..Context::default()
        };
        self.host.set_now(now_ns());
        let on_host = self.host.run(run);
        let done = self.lab.test_run(hook(run.hook), context, &run.frame);
        let on_kernel = Outcome {
            verdict: done.verdict,
            frame: done.packet,
            mark: done.mark,
            priority: done.priority,
        };
        if on_host != on_kernel {
            self.differs(
                run,
                &format!(
                    "verdict, mark, priority: {:?} on the host, {:?} on the kernel\n{}",
                    (on_host.verdict, on_host.mark, on_host.priority),
                    (on_kernel.verdict, on_kernel.mark, on_kernel.priority),
                    difference(&on_host.frame, &on_kernel.frame)
                ),
            );
        }
        if self.is_careful {
            let text = compare_counts(&self.host.counts(), &self.lab.counts());
            if !text.is_empty() {
                self.differs(run, &text);
            }
        }
        on_kernel
    }

    fn set_control(&mut self, control: Control, _: bool) {
        self.host.set_control(control, false);
        self.lab.set_control(control);
    }

    fn set_filter(&mut self, _: Filter) {}

    fn set_device(&mut self, which: Dev, device: Option<Device>) {
        self.host.set_device(which, device);
        let index = self.lab.ifindex(which);
        match device {
            Some(device) => self
                .lab
                .devices
                .insert(DeviceKey::served(index), device, 0)
                .expect("a device"),
            // It may be gone already.
            None => drop(self.lab.devices.remove(&DeviceKey::served(index))),
        }
    }

    fn set_generation(&mut self, slot: u16, generation: u32) {
        self.host.set_generation(slot, generation);
        self.lab
            .generations
            .set(slot.into(), generation, 0)
            .expect("a generation");
    }

    /// On the kernel all that is stored is made older.
    fn pass(&mut self, ns: u64) {
        self.host.grow_older(ns);
        for table in [&mut self.lab.flows, &mut self.lab.unreplied] {
            for (key, mut flow) in elements(table) {
                programs::grow_older(&mut flow, ns);
                table.insert(key, flow, 0).expect("it is there");
            }
        }
        for table in &mut self.lab.tables6 {
            let flows: Vec<_> = table
                .iter()
                .map(|element| element.expect("nothing is evicted"))
                .collect();
            for (key, mut flow) in flows {
                programs::grow_older(&mut flow, ns);
                table.insert(key, flow, 0).expect("it is there");
            }
        }
        self.lab.edit_candidates(|all| all.grow_older(ns));
    }

    fn edit_flow(&mut self, way: &Way, edit: fn(&mut Flow<Ip4>)) {
        self.host.edit_flow(way, edit);
        let key = way.key_at(self.lab.ifindex(way.enters));
        if let Ok(mut flow) = self.lab.flows.get(&key, 0) {
            edit(&mut flow);
            self.lab.flows.insert(key, flow, 0).expect("it is there");
        }
    }

    fn queued(&mut self) {
        self.host.queued();
        self.lab.edit_candidates(|all| all.waiting = 0);
    }

    fn counts(&mut self) -> Vec<Count> {
        self.lab.counts()
    }

    fn traffic(&mut self) -> Vec<Traffic> {
        self.lab.traffic_of_slots()
    }
}

impl Twins<'_> {
    fn differs(&mut self, run: &Run, what: &str) {
        self.difference.get_or_insert_with(|| format!("{run:?}\n{what}"));
    }

    /// What is stored at the end.
    fn judge_end(&mut self) {
        let mut text = compare_counts(&self.host.counts(), &self.lab.counts());
        let [in_use, unreplied] = self.host.flows();
        self.echoes += in_use.iter().filter(|(key, _)| key.protocol == ICMP).count();
        for (name, host, kernel) in [
            ("flows", in_use, &self.lab.flows),
            ("unreplied", unreplied, &self.lab.unreplied),
        ] {
            let (host, kernel) = (told(host), told(elements(kernel)));
            if host != kernel {
                let _ = writeln!(text, "{name}: {host:#?} on the host, {kernel:#?} on the kernel");
            }
        }
        for (host, kernel) in self.host.flows6().into_iter().zip(&self.lab.tables6) {
            let kernel = kernel.iter().map(|element| element.expect("nothing is evicted"));
            let (host, kernel) = (
                told(host.iter().map(|(key, flow)| six::back(key, flow))),
                told(kernel.map(|(key, flow)| six::back(&key, &flow))),
            );
            if host != kernel {
                let _ = writeln!(text, "IPv6: {host:#?} on the host, {kernel:#?} on the kernel");
            }
            self.flows6 += host.len();
        }
        let slots = Dev::ALL.len();
        let [host, kernel] = [self.host.traffic(), self.lab.traffic_of_slots()];
        for slot in 0..=slots {
            if host[slot] != kernel[slot] {
                let _ = writeln!(text, "traffic of slot {slot}: {:?} and {:?}", host[slot], kernel[slot]);
            }
        }
        let candidates = self.lab.candidates.get(&0, 0).expect("a candidate");
        let waits = candidates.iter().any(|all| all.0.any());
        if waits != self.host.has_candidate() {
            let _ = writeln!(text, "a candidate waits on the kernel: {waits}");
        }
        if !text.is_empty() {
            self.difference.get_or_insert(text);
        }
    }
}

/// Nothing to watch: the machine compares.
struct Nothing;

impl Watch<Twins<'_>> for Nothing {
    fn ran(&mut self, _: &mut Twins<'_>, _: &Run, _: &Outcome, _: Option<(&Way, &packet::Packet)>) {}
}

fn compare_counts(host: &[Count], kernel: &[Count]) -> String {
    let mut text = String::new();
    for (number, (host, kernel)) in host.iter().zip(kernel).enumerate() {
        if host != kernel {
            let _ = writeln!(
                text,
                "{}: {host:?} on the host, {kernel:?} on the kernel",
                state::reason_name(number)
            );
        }
    }
    text
}

fn elements(table: &Table) -> Vec<(FlowKey<Ip4>, Flow<Ip4>)> {
    table
        .iter()
        .map(|element| element.expect("nothing is evicted"))
        .collect()
}

/// Flows by key, without times.
fn told(flows: impl IntoIterator<Item = (FlowKey<Ip4>, Flow<Ip4>)>) -> BTreeMap<String, Vec<String>> {
    flows
        .into_iter()
        .map(|(key, mut flow)| {
            for time in [&mut flow.learned_ns, &mut flow.used_ns, &mut flow.created_ns] {
                *time = NOW;
            }
            (state::name(&key), state::fields(&flow))
        })
        .collect()
}

/// What differs, if anything does each time.
fn play(lab: &mut Lab, script: &Script, six: bool) -> Result<(u64, usize, usize), String> {
    let mut last = String::new();
    for attempt in 0..ATTEMPTS {
        lab.reset();
        lab.reset_counts();
        let indexes = Dev::ALL.map(|dev| lab.ifindex(dev));
        let mut twins = Twins {
            lab,
            host: Host::new(indexes),
            is_careful: attempt > 0,
            difference: None,
            runs: 0,
            flows6: 0,
            echoes: 0,
            six,
        };
        Player::new(&mut twins, &mut Nothing).play(script);
        twins.judge_end();
        let (runs, seen) = ((twins.runs, twins.flows6, twins.echoes), twins.host.seen());
        let difference = twins.difference;
        lab.forget_seen_at(&seen);
        match difference {
            None => return Ok(runs),
            Some(text) => last = text,
        }
    }
    fake::reset();
    Err(last)
}

/// Which seeds.
fn seeds(count: u64) -> Range<u64> {
    let (from, count) = env::var(VARIABLE).map_or((0, count), |text| {
        let (from, count) = text.split_once('+').expect("FROM+COUNT");
        (from.parse().expect("a seed"), count.parse().expect("a number"))
    });
    from..from + count
}

/// What a seed's script is made of.
fn bytes_of_seed(seed: u64) -> Vec<u8> {
    let mut rng = Rng::new(seed ^ 0x7_71e5);
    let words = 20 + rng.below(100);
    (0..words).flat_map(|_| rng.bits().to_le_bytes()).collect()
}

/// What the fuzzer has kept of a target.
fn kept_bytes(target: &str) -> Vec<(String, Vec<u8>)> {
    let kept = corpus::read(target).expect("the corpus");
    assert!(!kept.is_empty(), "no input of {target}");
    kept.into_iter()
        .map(|(name, input)| (format!("{target} {name}"), input.bytes))
        .collect()
}

#[test]
fn the_kernel_and_the_host_build_agree() {
    let of_seeds = seeds(CASES).map(|seed| (format!("seed {seed}"), bytes_of_seed(seed)));
    Lab::run(|lab| {
        let (mut scripts, mut runs, mut failures) = (0, 0, Vec::new());
        let (mut flows6, mut echoes) = (0, 0);
        for (name, bytes) in kept_bytes("programs").into_iter().chain(of_seeds) {
            let script = Script::of(&bytes).for_kernel();
            scripts += 1;
            for six in [false, true] {
                match play(lab, &script, six) {
                    Ok((count, of_ipv6, of_echo)) => {
                        runs += count;
                        flows6 += of_ipv6;
                        echoes += of_echo;
                    }
                    Err(text) => failures.push(format!("{name}, IPv6 {six}: {script:?}\n{text}")),
                }
            }
            if failures.len() > 4 {
                break;
            }
        }
        println!(
            "{scripts} scripts by either family, {runs} packets on both, {flows6} flows of IPv6, {echoes} of echo"
        );
        assert!(
            runs > 0 && flows6 > 0 && echoes > 0 && failures.is_empty(),
            "{} differ:\n{}",
            failures.len(),
            failures.join("\n")
        );
    });
}
