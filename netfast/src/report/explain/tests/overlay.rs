//! Containers of overlay networks.

use super::*;
use crate::plan::report::{Deciders, InSandbox};

fn said(path: Path, who: Option<&str>, to: Option<&str>) -> (Verdict, String) {
    let mut state = state();
    let inside = EndpointReport {
        ifindex: None,
        sandbox: Some(InSandbox {
            directory: "overlay-id-7".into(),
            ifindex: 13,
        }),
        ..endpoint("task", 13, "10.0.9.4/24", path)
    };
    state.networks.push(NetworkReport {
        driver: "overlay".into(),
        bridge: None,
        bridge_ifindex: None,
        deciders: Deciders {
            within: who.map(Into::into),
            ..Deciders::default()
        },
        ..network("ov", ("br0", 5), "10.0.9.0/24", vec![inside])
    });
    let explanation = explain_in(&state, on(), "task", to);
    (explanation.verdict, explanation.render(Style::default()))
}

#[test]
fn packets_on_it_are_fast_and_others_leave_by_another_interface() {
    let (verdict, text) = said(Path::Fast, None, Some("10.0.9.7"));
    assert_eq!(verdict, Verdict::Fast, "{text}");
    assert!(text.contains("in the network's own namespace"), "{text}");
    assert_eq!(said(Path::Fast, None, None).0, Verdict::Fast);
    let (verdict, text) = said(Path::Fast, Some("iptables"), Some("10.0.9.7"));
    assert_eq!(verdict, Verdict::KernelDecides, "{text}");
    let (verdict, text) = said(Path::Fast, None, Some("203.0.113.9"));
    assert_eq!(verdict, Verdict::Slow, "{text}");
    assert!(text.contains("docker_gwbridge"), "{text}");
    let (verdict, text) = said(Path::slow(Why::NoMac), None, Some("10.0.9.7"));
    assert_eq!(verdict, Verdict::Slow, "{text}");
    assert!(text.contains("its MAC address is not known yet"), "{text}");
}
