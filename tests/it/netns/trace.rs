//! `netfast trace`: packets of both paths as they enter, a capture that others can read, and nothing left behind.

use std::{fs, time::Duration};

use netfast::apply::read::Tables;
use netfast_common::trace::step;
use netfast_tests::{
    cmd::{self, Background, Finished},
    require::{Need, needs},
};
use nix::{
    sys::signal::Signal,
    time::{ClockId, clock_gettime},
};
use pcap_file::pcapng::{Block, PcapNgReader};
use serde_json::Value;

use super::lab::{Lab, TIMEOUT, talk};

/// Until when the programs show packets, in steps of the lease's clock.
fn lease(lab: &Lab) -> u32 {
    let tables = Tables::open(lab.netfast.pin_dir()).expect("the maps are pinned");
    tables.control().expect("the switches").traced_until
}

fn now() -> u32 {
    let now = Duration::from(clock_gettime(ClockId::CLOCK_MONOTONIC).expect("a clock"));
    step(now.as_nanos().try_into().expect("five centuries"))
}

fn start(lab: &Lab, args: &[&str]) -> Background {
    let tracer = Background::start(&mut lab.netfast.command(&[&["trace"], args].concat())).expect("it starts");
    cmd::poll("the tracer has its lease", TIMEOUT, || {
        (lease(lab) > now()).then_some(())
    })
    .expect("it traces");
    tracer
}

fn stop(tracer: Background) -> Finished {
    let done = tracer.stop().expect("it ends");
    assert!(done.status.success(), "{}", done.stderr);
    done
}

#[test]
fn both_paths_are_shown() {
    if !needs(&[Need::Root, Need::Kernel(6, 6)]) {
        return;
    }
    let lab = Lab::start();
    let (a, b) = (&lab.topo.bridges[0].containers[0], &lab.topo.bridges[0].containers[1]);
    let pcap = lab.netfast.run_dir().join("trace.pcapng");
    let tracer = start(
        &lab,
        &[
            "--container",
            &a.veth,
            "--json",
            "--print",
            "--limit",
            "100000",
            "--pcap",
            &pcap.display().to_string(),
            "tcp",
            "port",
            "7777",
        ],
    );
    // There is one ring buffer.
    let second = lab.netfast.try_verb(&["trace"]).expect("it ends");
    assert_eq!(second.status.code(), Some(1));
    assert!(second.stderr.contains("another `netfast trace`"), "{}", second.stderr);
    talk(&lab, 7777);
    talk(&lab, 7778);
    let done = stop(tracer);
    assert_eq!(lease(&lab), 0);

    let packets: Vec<Value> = done
        .stdout
        .lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}")))
        .collect();
    let port = |packet: &Value, end: &str| packet[end].as_str().is_some_and(|end| end.ends_with(":7777"));
    for packet in &packets {
        assert!(port(packet, "source") || port(packet, "destination"), "{packet}");
        assert_eq!(packet["protocol"], "tcp");
    }
    // Of the first packets those that enter by the container itself; the answers' slow path is named by the other one.
    let slow: Vec<&Value> = packets.iter().filter(|packet| packet["path"] == "slow").collect();
    assert!(slow.iter().any(|packet| packet["reason"] == "tcp-syn"), "{slow:?}");
    let fast: Vec<&Value> = packets.iter().filter(|packet| packet["path"] == "fast").collect();
    for (from, to) in [(a, b), (b, a)] {
        let is_it = |packet: &&&Value| {
            packet["enters"]["device"] == from.veth.as_str() && packet["leaves"]["device"] == to.veth.as_str()
        };
        assert!(
            fast.iter().filter(is_it).count() >= 5,
            "{} > {}: {fast:?}",
            from.veth,
            to.veth
        );
    }
    let said = format!("{} packets shown", packets.len());
    assert!(done.stderr.contains(&said) || packets.len() > 999, "{}", done.stderr);

    // The capture has the same packets.
    let file = fs::read(&pcap).expect("the capture");
    let mut reader = PcapNgReader::new(file.as_slice()).expect("a capture");
    let mut comments = Vec::new();
    while let Some(block) = reader.next_block() {
        if let Block::EnhancedPacket(packet) = block.expect("a block") {
            comments.push(format!("{:?}", packet.options));
        }
    }
    assert_eq!(comments.len(), packets.len());
    assert!(
        comments
            .iter()
            .any(|comment| comment.contains("slow: ") && comment.contains("tcp-syn"))
    );
    assert!(comments.iter().any(|comment| comment.contains("fast: ")));
}

#[test]
fn a_count_is_of_what_is_printed_and_a_capture_is_quiet() {
    if !needs(&[Need::Root, Need::Kernel(6, 6)]) {
        return;
    }
    let lab = Lab::start();
    let (a, b) = (&lab.topo.bridges[0].containers[0], &lab.topo.bridges[0].containers[1]);
    // More comes in one look than is asked for.
    let tracer = start(&lab, &["-c", "6", "tcp", "port", "7777"]);
    talk(&lab, 7777);
    let done = tracer.wait(TIMEOUT).expect("it ends by itself");
    assert_eq!(done.stdout.lines().count(), 6, "{}", done.stdout);
    assert!(done.stderr.contains("6 packets shown\n"), "{}", done.stderr);

    let pcap = lab.netfast.run_dir().join("quiet.pcapng");
    let tracer = start(&lab, &["-c", "6", "-w", &pcap.display().to_string(), "port", "7778"]);
    talk(&lab, 7778);
    let done = tracer.wait(TIMEOUT).expect("it ends by itself");
    assert_eq!(done.stdout, "");
    assert!(done.stderr.contains("6 packets shown\n"), "{}", done.stderr);
    assert!(fs::metadata(&pcap).is_ok_and(|file| file.len() > 6 * 60));

    // What the programs cannot compare is judged after them: one direction, two hosts, names, a network, and not.
    let words = format!(
        "src host {} and dst {} and net {}/24 and not port 7778",
        a.veth, b.ip, a.ip
    );
    let tracer = start(&lab, &["--json", "--limit", "100000", &words]);
    talk(&lab, 7778);
    talk(&lab, 7779);
    let done = stop(tracer);
    let packets: Vec<Value> = done
        .stdout
        .lines()
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect();
    assert!(packets.len() >= 10, "{}", done.stdout);
    let (from, to) = (format!("{}:", a.ip), format!("{}:7779", b.ip));
    for packet in &packets {
        assert!(
            packet["source"].as_str().is_some_and(|end| end.starts_with(&from)),
            "{packet}"
        );
        assert_eq!(packet["destination"], to.as_str(), "{packet}");
    }
}

#[test]
fn a_tracer_that_is_killed_leaves_nothing_switched_on() {
    if !needs(&[Need::Root, Need::Kernel(6, 6)]) {
        return;
    }
    let lab = Lab::start();
    let tracer = start(&lab, &["udp"]);
    tracer.signal(Signal::SIGKILL).expect("it is there");
    drop(tracer);
    cmd::poll("the lease ends", TIMEOUT, || (lease(&lab) <= now()).then_some(())).expect("by itself");

    // The daemon's own changes of the switches leave a lease alone.
    let tracer = start(&lab, &["udp"]);
    lab.topo
        .host()
        .sh("ip route add 198.51.100.0/24 dev lo")
        .expect("a route");
    let before = lease(&lab);
    cmd::poll("the tracer goes on", TIMEOUT, || {
        (lease(&lab) > before && lease(&lab) > now()).then_some(())
    })
    .expect("it renews its lease");
    stop(tracer);
}

#[test]
fn a_wrong_filter_is_2_and_says_what_would_be_right() {
    if !needs(&[Need::Root, Need::Kernel(6, 6)]) {
        return;
    }
    let lab = Lab::start();
    let done = lab.netfast.try_verb(&["trace", "prot", "6"]).expect("it ends");
    assert_eq!(done.status.code(), Some(2));
    assert!(
        done.stderr.contains("\"prot\" is no word of a filter") && done.stderr.contains("host ADDRESS"),
        "{}",
        done.stderr
    );
    let done = lab
        .netfast
        .try_verb(&["trace", "--container", "nobody"])
        .expect("it ends");
    assert_eq!(done.status.code(), Some(1));
    assert_eq!(lease(&lab), 0);
}
