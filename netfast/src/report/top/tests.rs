#![expect(clippy::float_cmp, reason = "whole numbers, and halves of them, are exact")]

use std::time::Duration;

use ratatui::{Terminal, backend::TestBackend};

use super::{
    draw::{Page, Screen},
    *,
};
use crate::report::{flows::Side, golden::assert_golden, status::tests::example};

fn side(device: &str, container: Option<&str>, source: &str, destination: &str) -> Side {
    Side {
        ifindex: u32::try_from(device.len()).expect("short"),
        device: device.into(),
        container: container.map(Into::into),
        host: false,
        source: source.parse().expect("an address"),
        destination: destination.parse().expect("an address"),
    }
}

fn flow(number: u16, packets: u64) -> FlowReport {
    let source = format!("172.17.0.2:{}", 40_000 + number);
    FlowReport {
        protocol: "tcp".into(),
        enters: side("veth-web", Some("web"), &source, "203.0.113.109:443"),
        leaves: side("eth0", None, "192.0.2.7:40000", "203.0.113.109:443"),
        exit: "device",
        usable: true,
        packets,
        bytes: packets * 1448,
        age_ms: 1_000,
        idle_ms: 1,
        asked_ms: 500,
    }
}

/// Two looks, two seconds apart.
fn looks() -> (Look, Look) {
    let before = Look {
        at: Duration::from_secs(100),
        status: example(),
        flows: Flows {
            total: 214,
            flows: vec![flow(0, 1_000), flow(1, 50), flow(2, 9_000)],
        },
    };
    let mut after = before.clone();
    after.at += Duration::from_secs(2);
    let totals = &mut after.status.totals;
    totals.fast_packets += 1_624_690;
    totals.fast_bytes += 1_624_690 * 1_448;
    totals.slow_packets += 12;
    totals.slow_bytes += 12 * 80;
    for (endpoint, packets) in after.status.networks[0].endpoints.iter_mut().zip([1_000_000, 600_000]) {
        let traffic = endpoint.traffic.as_mut().expect("it is attached");
        traffic.in_fast_packets += packets;
        traffic.in_fast_bytes += packets * 1_448;
        traffic.in_slow_packets += 6;
        traffic.out_fast_packets += packets / 2;
    }
    for reason in &mut after.status.reasons {
        if ["no-flow", "revalidate"].contains(&reason.name) {
            reason.packets += 6;
        }
    }
    after.flows.flows = vec![flow(0, 801_000), flow(1, 50), flow(2, 400), flow(3, 2_000)];
    (before, after)
}

fn top() -> Top {
    let (before, after) = looks();
    Top::between(&before, &after)
}

fn drawn(top: &Top, screen: Screen, width: u16, height: u16) -> String {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).expect("a screen in memory");
    terminal.draw(|frame| screen.draw(frame, top)).expect("it draws");
    let buffer = terminal.backend().buffer();
    let mut text = String::new();
    for line in buffer.content.chunks(usize::from(width)) {
        let line: String = line.iter().map(ratatui::buffer::Cell::symbol).collect();
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

#[test]
fn rates_are_differences_by_time() {
    let top = top();
    assert_eq!((top.fast.packets, top.slow.packets), (812_345.0, 6.0));
    assert_eq!(top.slow.bits, 12.0 * 80.0 * 8.0 / 2.0);
    let names: Vec<_> = top.endpoints.iter().map(|endpoint| endpoint.name.as_str()).collect();
    assert_eq!(names[..2], ["web", "database"]);
    assert_eq!(top.endpoints[0].sent_fast.packets, 500_000.0);
    assert_eq!(top.endpoints[0].received_fast.packets, 250_000.0);
    let reasons: Vec<_> = top
        .reasons
        .iter()
        .map(|(reason, rate)| (reason.name, rate.packets))
        .collect();
    assert_eq!(reasons, [("no-flow", 3.0), ("revalidate", 3.0)]);
}

#[test]
fn flows_that_began_anew_are_counted_from_zero_and_idle_ones_left_out() {
    let ports: Vec<_> = top()
        .flows
        .iter()
        .map(|(flow, rate)| (flow.enters.source.port(), rate.packets))
        .collect();
    assert_eq!(ports, [(40_000, 400_000.0), (40_003, 1_000.0), (40_002, 200.0)]);
}

#[test]
fn looks_at_one_moment_have_no_rates() {
    let (before, _) = looks();
    let top = Top::between(&before, &before);
    assert_eq!((top.fast, top.slow), (Rate::default(), Rate::default()));
    assert!(top.flows.is_empty() && top.reasons.is_empty());
}

#[test]
fn counters_that_went_back_have_no_rates() {
    let (before, mut after) = looks();
    after.status.totals = Totals::default();
    after.status.networks[0].endpoints[0].traffic = Some(Traffic::default());
    let top = Top::between(&before, &after);
    assert_eq!(top.fast, Rate::default());
    let web = top
        .endpoints
        .iter()
        .find(|endpoint| endpoint.name == "web")
        .expect("it is there");
    assert_eq!(web.sent_fast, Rate::default());
}

#[test]
fn it_fits_80_by_24() {
    let top = top();
    let mut text = String::new();
    for page in [Page::Overview, Page::Endpoints, Page::Flows, Page::Reasons] {
        let screen = Screen {
            page,
            ..Screen::default()
        };
        text.push_str(&drawn(&top, screen, 80, 24));
        text.push_str(&"-".repeat(80));
        text.push('\n');
    }
    assert_golden("top-80x24.txt", &text);
}

/// Whose they are is the last thing to go.
#[test]
fn a_narrow_screen_keeps_the_names() {
    let top = top();
    let page = |page, width| {
        let screen = Screen {
            page,
            ..Screen::default()
        };
        drawn(&top, screen, width, 24)
    };
    let endpoints = page(Page::Endpoints, 40);
    assert!(
        endpoints.contains("CONTAINER") && endpoints.contains("\ndatabase ") && endpoints.contains("5.79Gb"),
        "{endpoints}"
    );
    let flows = page(Page::Flows, 40);
    assert!(
        flows.contains("\ntcp  web > eth0 ") && flows.contains("4.63Gb"),
        "{flows}"
    );
    assert!(page(Page::Endpoints, 12).contains("\ndatabase"));
    assert!(page(Page::Flows, 12).contains("\nweb > eth0"));
}

#[test]
fn more_room_shows_more() {
    assert_golden("top-120x40.txt", &drawn(&top(), Screen::default(), 120, 40));
}

#[test]
fn states_are_told() {
    let mut top = top();
    let said = |top: &Top| {
        let text = drawn(top, Screen::default(), 80, 24);
        text.lines().next().expect("a line").to_owned()
    };
    assert!(said(&top).contains("  in sync  "), "{}", said(&top));
    top.daemon.in_sync = false;
    assert!(said(&top).contains("  catching up  "));
    top.daemon.learning_off = Some("NFQUEUE 0".into());
    assert!(said(&top).contains("  learns nothing: NFQUEUE 0  "));
    top.daemon.learning_off = None;
    top.daemon.running = false;
    assert!(said(&top).contains("does not run"));
    top.daemon.running = true;
    top.daemon.using = false;
    assert!(said(&top).contains("everything is slow"));
    top.problem = Some("cannot read the counters".into());
    assert!(said(&top).contains("cannot read the counters"));
}

#[test]
fn nothing_at_all_is_said_so() {
    let screen = Screen {
        paused: true,
        ..Screen::default()
    };
    assert_golden("top-idle.txt", &drawn(&Top::default(), screen, 80, 24));
}

#[test]
fn any_size_draws() {
    let top = top();
    for (width, height) in [(1, 1), (10, 3), (40, 10), (300, 100)] {
        for page in [Page::Overview, Page::Endpoints, Page::Flows, Page::Reasons] {
            let screen = Screen {
                page,
                offset: 500,
                paused: true,
                color: true,
            };
            drawn(&top, screen, width, height);
        }
    }
}
