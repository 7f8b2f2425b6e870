//! `netfast explain`: will this go fast, and if not, why, in words. Pure: what it needs to know is given.

use std::{collections::BTreeMap, net::IpAddr};

use netfast_common::{
    control::Control,
    device::{Device, DeviceKey},
    reason::Reason,
};
use serde::Serialize;

use crate::{
    plan::report::{EndpointReport, NetworkReport, Path, Slow},
    report::{path::PathState, resolver},
    state::State,
};

pub mod advice;
mod alias;
mod destination;
mod overlay;
pub mod reasons;
mod text;
mod way;

pub use alias::AliasName;
pub use destination::{Destination, NoDestination, Transport};
use way::From;

/// The whole answer.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Explanation {
    /// The container's name.
    pub container: String,
    /// Where to, if that was asked.
    pub destination: Option<Destination>,
    /// Of all its ways.
    pub verdict: Verdict,
    /// What holds for all of them.
    pub host: Vec<Step>,
    /// One for each network that the container is on, and that the packets may take.
    pub ways: Vec<Way>,
}

/// Whether packets go fast.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// Yes, once the first packets of a conversation were seen in both directions.
    Fast,
    /// Yes, from the first packet on, whatever it is of: nobody judges them.
    Direct,
    /// No.
    Slow,
    /// Those that the kernel lets through do, or are slow for the cause that is named; its rules are not known to netfast.
    KernelDecides,
    /// They do not leave the container.
    Inside,
    /// By one network, or to one member of an alias, and not by or to another.
    Depends,
}

/// What happens to the packets by one network.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Way {
    /// The network.
    pub network: String,
    /// Whether they go fast.
    pub verdict: Verdict,
    /// The source address that its packets must have for that: what is sent from another one is slow (`spoofed`). `None`:
    /// any.
    pub source: Option<IpAddr>,
    /// What was looked at, from the container outwards.
    pub steps: Vec<Step>,
    /// Flows of this container, or of it with the destination, that there are now.
    pub flows: Flows,
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Step {
    /// What.
    pub about: String,
    /// Fast, or slow and why.
    #[serde(flatten)]
    pub path: PathState,
    /// What is so.
    pub text: String,
    /// What can be done about it.
    pub remedy: Option<String>,
    /// It follows from what was asked of the kernel just now, not from what the plan has decided: live flows know better.
    #[serde(skip)]
    is_guess: bool,
    /// Nobody judges the packets: they are forwarded directly.
    #[serde(skip)]
    is_direct: bool,
}

/// Flows that there are now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Flows {
    /// On the fast path.
    pub usable: u64,
    /// Those of them that the kernel was asked about within the last seconds, and has let through.
    pub live: u64,
    /// In the table, but outdated: their next packet asks the kernel.
    pub stale: u64,
    /// Waiting for their reverse.
    pub waiting: u64,
    /// Packets on the fast path.
    pub packets: u64,
    /// Bytes of them, network layer and up.
    pub bytes: u64,
    /// The address that the container sends from.
    #[serde(skip)]
    pub source: Option<IpAddr>,
}

/// Where the kernel would send packets that come in by an interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Route {
    /// To the host itself.
    Host,
    /// Out of an interface: its number and its name.
    Out(u32, String),
    /// To all on a network.
    Many,
    /// Nowhere, and why.
    None(String),
}

/// What is known, and not in the state.
pub struct Facts<'a> {
    /// What the daemon left.
    pub state: &'a State,
    /// Whether it runs.
    pub running: bool,
    /// The switches.
    pub control: Control,
    /// The interfaces as the programs know them.
    pub devices: &'a BTreeMap<DeviceKey, Device>,
    /// Asks the kernel where a packet goes that comes in by an interface, from one address to another.
    pub route: &'a dyn Fn(u32, IpAddr, IpAddr) -> Route,
    /// An address that a container of this bridge could have, where its own is not known: of the family of another address.
    pub stand_in: &'a dyn Fn(u32, IpAddr) -> Option<IpAddr>,
    /// Whether an address is of a bridge's own subnet.
    pub is_on_link: &'a dyn Fn(u32, IpAddr) -> bool,
    /// The port of a bridge that an address is behind, as far as the host has heard.
    pub behind: &'a dyn Fn(IpAddr) -> Option<u32>,
    /// Counts the flows that an interface has, with this destination.
    pub flows: &'a dyn Fn(u32, Option<&Destination>) -> Flows,
}

impl Explanation {
    /// Explains; `None` if there is no such container.
    pub fn of(container: &str, destination: Option<Destination>, facts: &Facts<'_>) -> Option<Self> {
        let all = facts.state.networks.iter();
        let mut members: Vec<(&NetworkReport, &EndpointReport)> = all
            .flat_map(|network| network.endpoints.iter().map(move |endpoint| (network, endpoint)))
            .filter(|(_, endpoint)| is_named(endpoint, container))
            .collect();
        let name = members.first()?.1.container.clone();
        // Where an alias is from, its packets go; else the kernel in the container prefers a network that the destination
        // is on.
        if let Some(alias) = destination.as_ref().and_then(|to| to.alias.as_ref()) {
            members.retain(|(network, _)| network.name == alias.network);
        } else if let Some(ip) = destination.as_ref().map(|to| to.ip) {
            let near = members.iter().filter(|(network, _)| has_pool_of(network, ip));
            let near: Vec<_> = near.copied().collect();
            if !near.is_empty() {
                members = near;
            }
        }
        let mut host = host_steps(facts);
        let inside = facts.state.resolvers.iter().find(|report| report.container == name);
        host.extend(inside.map(|report| Step::fast("resolver", resolver::of_container(report))));
        let ways: Vec<Way> = members
            .into_iter()
            .map(|(network, endpoint)| way(From { network, endpoint }, destination.as_ref(), facts))
            .collect();
        let verdict = if !facts.control.may_use() || !facts.control.may_learn() {
            Verdict::Slow
        } else {
            Verdict::of_all(ways.iter().map(|way| way.verdict)).unwrap_or(Verdict::Slow)
        };
        Some(Self {
            container: name,
            destination,
            verdict,
            host,
            ways,
        })
    }
}

/// Whether an endpoint's container is called that: its name, or the beginning of its identifier.
pub fn is_named(endpoint: &EndpointReport, name: &str) -> bool {
    endpoint.container == name || (name.len() >= 4 && endpoint.container_id.starts_with(name))
}

/// The addresses of an endpoint.
pub fn addresses(endpoint: &EndpointReport) -> impl Iterator<Item = IpAddr> + '_ {
    endpoint
        .addresses
        .iter()
        .filter_map(|text| text.split('/').next()?.parse().ok())
}

fn has_pool_of(network: &NetworkReport, ip: IpAddr) -> bool {
    let subnets = network.pools.iter().filter_map(|pool| pool.subnet.as_deref());
    subnets
        .filter_map(|subnet| {
            let (net, prefix) = subnet.split_once('/')?;
            crate::host::IpNet::new(net.parse().ok()?, prefix.parse().ok()?)
        })
        .any(|net| net.contains(ip))
}

impl Step {
    fn fast(about: impl Into<String>, text: impl Into<String>) -> Self {
        Self {
            about: about.into(),
            path: PathState::fast(),
            text: text.into(),
            remedy: None,
            is_guess: false,
            is_direct: false,
        }
    }

    /// The kernel decides; or slow for this reason.
    fn decided(about: impl Into<String>, or: Option<Reason>, text: impl Into<String>) -> Self {
        let text = text.into();
        Self {
            about: about.into(),
            path: PathState::kernel_decides(or.map(Reason::name), text.clone()),
            text,
            remedy: None,
            is_guess: true,
            is_direct: false,
        }
    }

    /// Flows that there are know better.
    fn guessed(self) -> Self {
        Self { is_guess: true, ..self }
    }

    /// By a reason of the data path.
    fn reason(about: impl Into<String>, reason: Reason, text: impl Into<String>) -> Self {
        let text = text.into();
        Self {
            about: about.into(),
            path: PathState::slow(reason.name(), text.clone()),
            text,
            remedy: Some(advice::of_reason(reason).text.into()),
            is_guess: false,
            is_direct: false,
        }
    }

    /// By the plan.
    fn planned(about: impl Into<String>, path: &Path, fast: &str) -> Self {
        match path {
            Path::Fast => Self::fast(about, fast),
            Path::Slow(Slow { why, text }) => Self {
                about: about.into(),
                path: PathState::from(path),
                text: text.clone(),
                remedy: advice::of_why(*why).map(Into::into),
                is_guess: false,
                is_direct: false,
            },
        }
    }
}

/// What keeps every packet of the host slow, or may.
fn host_steps(facts: &Facts<'_>) -> Vec<Step> {
    let mut steps = Vec::new();
    if !facts.running {
        let text = "not running: existing fast conversations stay fast, new ones are slow; the following is the state when \
                    the daemon ended";
        steps.push(Step {
            remedy: Some("Start the daemon: `systemctl start netfast` (or `netfast run`).".into()),
            ..Step::reason("daemon", Reason::Unvetted, text)
        });
    } else if !facts.state.in_sync {
        steps.push(Step::fast(
            "daemon",
            "it is catching up with changes: what follows may be about to change",
        ));
    }
    if let Some(error) = &facts.state.runtime.error {
        steps.push(Step::fast(
            "docker",
            format!("it does not answer ({error}): containers are as last known"),
        ));
    }
    if !facts.control.may_use() {
        steps.push(Step::reason(
            "switch",
            Reason::Disabled,
            "no flow is used at the moment",
        ));
    } else if !facts.control.may_learn() {
        let why = facts.state.learning_off.as_deref().unwrap_or("switched off");
        steps.push(Step::reason(
            "learning",
            Reason::LearnOff,
            format!("no flow is learned at the moment: {why}"),
        ));
    }
    steps
}

fn way(from: From<'_>, to: Option<&Destination>, facts: &Facts<'_>) -> Way {
    let From { network, endpoint } = from;
    let flows = endpoint
        .ifindex
        .map(|ifindex| (facts.flows)(ifindex, to))
        .unwrap_or_default();
    let (steps, verdict) = if to.is_some_and(|to| is_inside(endpoint, to, facts)) {
        let step = Step::fast("destination", "it is the container itself: the packets do not leave it");
        (vec![step], Verdict::Inside)
    } else {
        let (steps, verdict) = outwards(from, to, &flows, facts);
        let may_learn = facts.running || flows.live > 0;
        (steps, if may_learn { verdict } else { Verdict::Slow })
    };
    Way {
        network: network.name.clone(),
        verdict,
        source: way::source_of(from, to, facts),
        steps,
        flows,
    }
}

/// Flows that contradict what the kernel said just now, and that it was not asked about for a while.
const LEFT: &str = "flows are left of earlier conversations; the next packet of each asks the kernel";

/// Whether a destination is the container itself, by any of its addresses.
fn is_inside(endpoint: &EndpointReport, to: &Destination, facts: &Facts<'_>) -> bool {
    let networks = facts.state.networks.iter();
    let mut own = networks
        .flat_map(|network| &network.endpoints)
        .filter(|other| other.container == endpoint.container && other.container_id == endpoint.container_id);
    let is_heard = || endpoint.ifindex.is_some() && (facts.behind)(to.ip) == endpoint.ifindex;
    to.ip.is_loopback() || own.any(|own| addresses(own).any(|ip| ip == to.ip)) || is_heard()
}

/// What packets meet that leave a container by one of its interfaces.
fn outwards(from: From<'_>, to: Option<&Destination>, flows: &Flows, facts: &Facts<'_>) -> (Vec<Step>, Verdict) {
    if let Some(of_overlay) = overlay::outwards(from, to) {
        return of_overlay;
    }
    let own = way::own(from, to, facts);
    let is_fast = own.path.is_fast();
    let mut steps = vec![own];
    if way::goes_by_no_bridge(from) {
        return (steps, Verdict::Slow);
    }
    let verdict = match to.map(|to| (to, &to.alias)) {
        None => {
            let host = way::host_in_general(from.network);
            let verdict = if host.is_some() {
                Verdict::Depends
            } else {
                Verdict::Fast
            };
            steps.extend(host);
            steps.extend(way::not_direct(from));
            verdict
        }
        Some((_, Some(alias))) => {
            let (more, verdict) = alias::steps(from, alias, facts);
            steps.extend(more);
            verdict
        }
        Some((to, None)) => {
            let step = way::step(from, to, flows, facts);
            let is_live = step.is_guess && flows.live > 0;
            let is_left = step.is_guess && step.path.is_slow() && !is_live && flows.usable > 0;
            let verdict = Verdict::of(&step);
            let direct = way::not_direct_within(from, &step, to, facts);
            steps.push(step);
            steps.extend(direct);
            if is_live {
                steps.push(Step::fast(
                    "now",
                    "the kernel passes the first packets of conversations on, and the others follow on the fast path (programs \
                     and rules after netfast's hooks may still drop them)",
                ));
            } else if is_left {
                steps.push(Step::decided("now", None, LEFT));
            }
            match (is_live, to.port) {
                // They speak for those that are opened to the same port.
                (true, Some(_)) => Verdict::Fast,
                (true, None) => Verdict::KernelDecides,
                (false, _) => verdict,
            }
        }
    };
    (steps, if is_fast { verdict } else { Verdict::Slow })
}

impl Verdict {
    /// By one step.
    fn of(step: &Step) -> Self {
        if step.is_direct {
            Self::Direct
        } else if step.path.is_fast() {
            Self::Fast
        } else if step.path.is_slow() {
            Self::Slow
        } else {
            Self::KernelDecides
        }
    }

    /// By one of several; `None` if there is none.
    fn of_all(mut all: impl Iterator<Item = Self>) -> Option<Self> {
        let first = all.next()?;
        Some(if all.all(|verdict| verdict == first) {
            first
        } else {
            Self::Depends
        })
    }
}

#[cfg(test)]
mod tests;
