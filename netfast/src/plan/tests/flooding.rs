//! Bridges that do not learn where a container is.

use super::{
    reasons::{after, check},
    *,
};

/// Makes the port of web's veth what `change` says.
fn with_port(host: &mut Host, change: impl FnOnce(&mut BridgePort)) {
    let port = host.served_mut().links.get_mut(&VETH_WEB).expect("a veth");
    let mut is = BridgePort {
        state: PortState::Forwarding,
        ..BridgePort::default()
    };
    change(&mut is);
    port.port = Some(is);
}

fn forgetful(host: &mut Host) {
    let bridge = host.served_mut().links.get_mut(&BRIDGE).expect("a bridge");
    bridge.kind = LinkKind::Bridge(BridgeInfo {
        ageing_time: 0,
        ..BridgeInfo::default()
    });
}

#[test]
fn a_bridge_that_does_not_learn_where_a_container_is() {
    let unlearned: [fn(&mut Host); 3] = [
        |host| with_port(host, |port| port.learning = false),
        |host| with_port(host, |port| port.locked = true),
        forgetful,
    ];
    for change in unlearned {
        check(&after(|host, _, _| change(host)), Some(Why::NotLearned), None);
        let told = after(|host, _, _| {
            change(host);
            let learned = host.served().fdb.clone().into_iter();
            host.served_mut().fdb = learned
                .map(|entry| FdbEntry {
                    state: FdbState::Static,
                    ..entry
                })
                .collect();
        });
        check(&told, None, None);
    }
    check(&after(|host, _, _| with_port(host, |_| {})), None, None);
}
