//! Ways out by interfaces that are no uplinks, and by bridges that are.

use super::*;
use crate::plan::NotUplink;

#[test]
fn an_interface_that_is_no_uplink_is_named_with_the_reason() {
    let mut state = state();
    state.not_uplinks = vec![NotUplink {
        ifindex: 9,
        name: "wg0".into(),
        why: "its packets have no Ethernet header".into(),
        ..NotUplink::default()
    }];
    let explanation = explain_in(&state, on(), "database", Some("10.1.2.3"));
    assert_eq!(
        (explanation.verdict, why(&explanation)),
        (Verdict::Slow, vec!["egress-unknown"])
    );
    let text = explanation.render(Style::default());
    assert!(
        text.contains("not attached to: its packets have no Ethernet header"),
        "{text}"
    );
}

/// By the operator's word a bridge may be an uplink that is listed as a network as well.
#[test]
fn a_bridge_that_is_an_uplink_is_one_whatever_network_it_is() {
    let mut state = state();
    let uplink = DeviceReport {
        name: "docker0".into(),
        kind: "uplink".into(),
        slot: Some(2),
        attached: true,
        error: None,
    };
    state.devices.insert(DeviceKey::served(5), uplink);
    let text = explain_in(&state, on(), "database", Some("172.17.3.3")).render(Style::default());
    assert!(
        text.contains("way out (docker0)") && text.contains("that netfast is attached to"),
        "{text}"
    );
}

/// Of an uplink it is said whether XDP is used there, from what the daemon has decided.
#[test]
fn a_way_out_says_whether_answers_come_by_xdp() {
    let mut state = state();
    let uplink = DeviceReport {
        name: "eth0".into(),
        kind: "uplink".into(),
        slot: Some(2),
        attached: true,
        error: None,
    };
    state.devices.insert(DeviceKey::served(9), uplink);
    let said = |state: &State| explain_in(state, on(), "database", Some("10.1.2.3")).render(Style::default());
    assert!(!said(&state).contains("XDP"), "nobody has asked for it");
    state.xdp = vec![crate::plan::XdpReport {
        ifindex: 9,
        name: "eth0".into(),
        why: None,
    }];
    assert!(
        said(&state).contains("UDP that comes in by it goes by XDP"),
        "{}",
        said(&state)
    );
    state.xdp[0].why = Some("its MTU is 9000".into());
    assert!(
        said(&state).contains("does not go by XDP: its MTU is 9000"),
        "{}",
        said(&state)
    );
}
