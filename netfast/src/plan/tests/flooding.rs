//! Bridges that do not learn where a container is.

use super::{
    reasons::{after, check},
    *,
};

/// Makes the port of web's veth what `change` says.
fn with_port(world: &mut World, change: impl FnOnce(&mut BridgePort)) {
    let port = world.links.get_mut(&VETH_WEB).expect("a veth");
    let mut is = BridgePort {
        state: PortState::Forwarding,
        ..BridgePort::default()
    };
    change(&mut is);
    port.port = Some(is);
}

fn forgetful(world: &mut World) {
    let bridge = world.links.get_mut(&BRIDGE).expect("a bridge");
    bridge.kind = LinkKind::Bridge(BridgeInfo {
        ageing_time: 0,
        ..BridgeInfo::default()
    });
}

#[test]
fn a_bridge_that_does_not_learn_where_a_container_is() {
    let unlearned: [fn(&mut World); 3] = [
        |world| with_port(world, |port| port.learning = false),
        |world| with_port(world, |port| port.locked = true),
        forgetful,
    ];
    for change in unlearned {
        check(&after(|world, _, _| change(world)), Some(Why::NotLearned), None);
        let told = after(|world, _, _| {
            change(world);
            let learned = world.fdb.clone().into_iter();
            world.fdb = learned
                .map(|entry| FdbEntry {
                    state: FdbState::Static,
                    ..entry
                })
                .collect();
        });
        check(&told, None, None);
    }
    check(&after(|world, _, _| with_port(world, |_| {})), None, None);
}
