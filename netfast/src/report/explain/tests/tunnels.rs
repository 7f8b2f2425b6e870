//! Ways out through tunnels.

use super::*;
use crate::plan::TunnelReport;

/// 10/8 is routed to a tunnel, and what is heard at 172.17.0.77 is behind another, a port of docker0.
fn with(ifindex: u32, why: Option<&str>) -> State {
    let mut state = state();
    let device = DeviceReport {
        name: "vxlan0".into(),
        kind: "uplink".into(),
        slot: Some(2),
        attached: true,
        error: None,
    };
    state.devices.insert(DeviceKey::served(ifindex), device);
    state.tunnels = vec![TunnelReport {
        ifindex,
        name: "vxlan0".into(),
        vni: 42,
        port: 4789,
        checksums: false,
        bridge: (ifindex == 12).then_some(5),
        why: why.map(Into::into),
        why_in: None,
    }];
    state
}

fn said(state: &State, container: &str, to: &str) -> (Verdict, String) {
    let explanation = explain_in(state, on(), container, Some(to));
    (explanation.verdict, explanation.render(Style::default()))
}

#[test]
fn a_way_out_through_a_tunnel_says_what_becomes_of_the_outer_header() {
    let (verdict, text) = said(&with(9, None), "database", "10.1.2.3");
    assert_eq!(verdict, Verdict::KernelDecides, "{text}");
    assert!(
        text.contains("it is a tunnel (VXLAN 42): outer headers are repeated"),
        "{text}"
    );
    let (_, text) = said(&with(9, Some("udpcsum")), "database", "10.1.2.3");
    assert!(
        text.contains("it is a tunnel (VXLAN 42): the kernel writes each outer header: udpcsum"),
        "{text}"
    );
    let (_, text) = said(&with(9, None), "database", "203.0.113.9");
    assert!(!text.contains("tunnel"), "{text}");
}

#[test]
fn a_station_behind_a_tunnel_that_is_a_port_of_the_bridge_is_one() {
    // docker0's port 12 is what the host has heard 172.17.0.77 behind.
    let mut state = with(12, None);
    for network in &mut state.networks {
        network.endpoints.retain(|endpoint| endpoint.ifindex != Some(12));
    }
    let attached =
        |state: &mut State, port: u32| state.devices.get_mut(&DeviceKey::served(port)).expect("it").attached = true;
    attached(&mut state, 16);
    let (verdict, text) = said(&state, "new", "172.17.0.77");
    assert_eq!(verdict, Verdict::Fast, "{text}");
    let told = "way out (vxlan0)";
    assert!(
        text.contains(told) && text.contains("outer headers are repeated"),
        "{text}"
    );
    // Nobody here has that one, and it may be another host's.
    let (verdict, text) = said(&state, "new", "172.17.3.3");
    assert_eq!(verdict, Verdict::KernelDecides, "{text}");
    assert!(
        text.contains(told) && text.contains("if it is another host's"),
        "{text}"
    );
    state.devices.remove(&DeviceKey::served(12));
    state.tunnels[0].why = Some("switched off".into());
    let (verdict, text) = said(&state, "new", "172.17.0.77");
    assert_eq!(verdict, Verdict::Slow, "{text}");
    assert!(
        text.contains(told) && text.contains("each outer header: switched off"),
        "{text}"
    );
}
