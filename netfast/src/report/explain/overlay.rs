//! A container of an overlay network: its interface is in the network's own namespace, so neither the host's routes nor its flows say
//! anything of it.

use super::{Destination, Step, Verdict, has_pool_of, way::From};
use netfast_common::reason::Reason;

const ATTACHED: &str = "netfast is attached to the container's interface, in the network's own namespace";
const ON_IT: &str = "on this overlay network: packets go at once to a container of this host, or to the network's VXLAN device, where \
                     the kernel puts the outer header before them";
const ELSEWHERE: &str = "no address of this overlay network: the container sends to it by another interface, which Docker does \
                         not list (docker_gwbridge) and netfast is not attached to";

/// What packets meet that leave by such an interface; `None`: it is none.
pub(super) fn outwards(from: From<'_>, to: Option<&Destination>) -> Option<(Vec<Step>, Verdict)> {
    let From { network, endpoint } = from;
    endpoint.sandbox.as_ref()?;
    let veth = endpoint.veth.as_deref().unwrap_or("no veth");
    let own = Step::planned(format!("{} ({veth})", network.name), &endpoint.path, ATTACHED);
    if own.path.is_slow() {
        return Some((vec![own], Verdict::Slow));
    }
    let Some(to) = to else {
        return Some((vec![own], Verdict::Fast));
    };
    let step = if !has_pool_of(network, to.ip) {
        Step::reason("destination", Reason::UnknownDevice, ELSEWHERE)
    } else if let Some(who) = &network.deciders_of(to.ip).within {
        Step::decided(
            "destination",
            None,
            format!("{ON_IT}; whether packets pass is decided by {who}, in there"),
        )
    } else {
        Step::fast("destination", ON_IT)
    };
    let verdict = Verdict::of(&step);
    Some((vec![own, step], verdict))
}
