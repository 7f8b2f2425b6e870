//! `netfast explain`: will this go fast, and if not, why, in words. Pure: what it needs to know is given.

use std::{fmt::Write as _, net::IpAddr};

use netfast_common::{control::Control, reason::Reason};
use serde::Serialize;

use crate::{
    plan::report::{EndpointReport, NetworkReport, Path, Slow},
    report::{
        Style,
        path::PathState,
        table::{Paint, Table},
        units::{bytes, count},
    },
    state::State,
};

pub mod advice;
mod alias;
mod destination;
pub mod reasons;

pub use alias::AliasName;
pub use destination::{Destination, NoDestination};

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
    /// Yes, once the kernel has let a conversation's first packets through.
    Fast,
    /// No.
    Slow,
    /// They do not leave the container.
    Inside,
    /// By one network and not by another.
    Depends,
}

/// What happens to the packets by one network.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Way {
    /// The network.
    pub network: String,
    /// Whether they go fast.
    pub verdict: Verdict,
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
}

/// Flows that there are now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Flows {
    /// On the fast path.
    pub usable: u64,
    /// Waiting for their reverse.
    pub waiting: u64,
    /// Packets on the fast path.
    pub packets: u64,
    /// Bytes of them, network layer and up.
    pub bytes: u64,
}

/// Where the kernel would send packets that come in by a network's bridge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Route {
    /// To the host itself.
    Host,
    /// Out of an interface: its number and its name.
    Out(u32, String),
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
    /// Asks the kernel where a packet goes that comes in by an endpoint of a network.
    pub route: &'a dyn Fn(&NetworkReport, &EndpointReport, IpAddr) -> Route,
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
        let host = host_steps(facts);
        let ways: Vec<Way> = members
            .into_iter()
            .map(|(network, endpoint)| way(network, endpoint, destination.as_ref(), facts))
            .collect();
        let verdict = if host.iter().any(|step| !step.path.is_fast()) {
            Verdict::Slow
        } else {
            let first = ways.first().map_or(Verdict::Slow, |way| way.verdict);
            if ways.iter().all(|way| way.verdict == first) {
                first
            } else {
                Verdict::Depends
            }
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
            crate::world::IpNet::new(net.parse().ok()?, prefix.parse().ok()?)
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
        }
    }

    /// By a reason of the data path.
    fn reason(about: impl Into<String>, reason: Reason, text: impl Into<String>) -> Self {
        let text = text.into();
        Self {
            about: about.into(),
            path: PathState::slow(reason.name(), text.clone()),
            text,
            remedy: Some(advice::of_reason(reason).text.into()),
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
            },
        }
    }
}

/// What keeps every packet of the host slow, or may.
fn host_steps(facts: &Facts<'_>) -> Vec<Step> {
    let mut steps = Vec::new();
    if !facts.running {
        steps.push(Step::fast(
            "daemon",
            "it does not run: what is attached works on, but what follows is as it was when it ended",
        ));
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

fn way(network: &NetworkReport, endpoint: &EndpointReport, to: Option<&Destination>, facts: &Facts<'_>) -> Way {
    let mut steps = Vec::new();
    let inside = to.is_some_and(|to| to.ip.is_loopback() || addresses(endpoint).any(|ip| ip == to.ip));
    if inside {
        steps.push(Step::fast(
            "destination",
            "it is the container itself: the packets do not leave it",
        ));
    } else {
        let veth = endpoint.veth.as_deref().unwrap_or("no veth");
        let mut step = Step::planned(
            format!("{} ({veth})", network.name),
            &endpoint.path,
            "netfast is attached to the container's interface",
        );
        let device = endpoint.ifindex.and_then(|ifindex| facts.state.devices.get(&ifindex));
        if endpoint.path.is_fast() && !device.is_some_and(|device| device.attached) {
            step = Step::reason(step.about, Reason::UnknownDevice, "netfast is not attached to it yet");
        }
        steps.push(step);
        if let Some(to) = to {
            match &to.alias {
                Some(alias) => steps.extend(alias::steps(network, alias, facts)),
                None => steps.push(destination::step(network, endpoint, to, facts)),
            }
        }
    }
    let verdict = match (inside, steps.iter().all(|step| step.path.is_fast())) {
        (true, _) => Verdict::Inside,
        (false, true) => Verdict::Fast,
        (false, false) => Verdict::Slow,
    };
    let flows = endpoint.ifindex.map(|ifindex| (facts.flows)(ifindex, to));
    Way {
        network: network.name.clone(),
        verdict,
        steps,
        flows: flows.unwrap_or_default(),
    }
}

impl Verdict {
    const fn words(self) -> &'static str {
        match self {
            Self::Fast => "fast, once both directions of a conversation were seen",
            Self::Slow => "slow: every packet takes the kernel's path",
            Self::Inside => "stays in the container",
            Self::Depends => "depends on the network that the packets take",
        }
    }

    const fn paint(self) -> Paint {
        match self {
            Self::Fast | Self::Inside => Paint::Green,
            Self::Slow | Self::Depends => Paint::Yellow,
        }
    }
}

/// What is slow on every fast path.
const ALWAYS: &str = "Always on the kernel's path: the first packets of each conversation, TCP's SYN, FIN and RST, about \
                      one packet per second and direction, and whatever is neither TCP nor UDP over IPv4 (ping).";

impl Explanation {
    /// The text.
    pub fn render(&self, style: Style) -> String {
        let to = self
            .destination
            .as_ref()
            .map_or_else(String::new, |to| format!(" to {to}"));
        let verdict = self.verdict.paint().on(self.verdict.words(), style);
        let mut text = format!("{}{to}: {verdict}\n", self.container);
        push_steps(&mut text, &self.host, style);
        for way in &self.ways {
            if self.ways.len() > 1 {
                let verdict = way.verdict.paint().on(way.verdict.words(), style);
                let _ = writeln!(text, "\nby {}: {verdict}", way.network);
            }
            push_steps(&mut text, &way.steps, style);
            if way.verdict != Verdict::Inside {
                let mut table = Table::bare(2).indent(2);
                table.row(["now".into(), way.flows.words().into()]);
                text.push_str(&table.render(style));
            }
        }
        if self.verdict == Verdict::Fast || self.verdict == Verdict::Depends {
            text.push('\n');
            for line in style
                .width
                .map_or_else(|| vec![ALWAYS], |width| crate::report::table::wrap(ALWAYS, width))
            {
                text.push_str(line);
                text.push('\n');
            }
        }
        text
    }
}

impl Flows {
    fn words(self) -> String {
        let Self {
            usable,
            waiting,
            packets,
            bytes: octets,
        } = self;
        if usable + waiting == 0 {
            return "no flows".into();
        }
        let mut text = format!("flows: {} on the fast path", count(usable));
        if usable > 0 {
            let _ = write!(text, " ({} packets, {})", count(packets), bytes(octets));
        }
        if waiting > 0 {
            let _ = write!(text, ", {} waiting for the other direction", count(waiting));
        }
        text
    }
}

fn push_steps(text: &mut String, steps: &[Step], style: Style) {
    let mut table = Table::bare(2).indent(2);
    for step in steps {
        table.row([
            step.about.clone().into(),
            crate::report::table::Cell::painted(step.text.clone(), step.path.paint()),
        ]);
        if let Some(remedy) = &step.remedy {
            table.row(["".into(), remedy.clone().into()]);
        }
    }
    text.push_str(&table.render(style));
}

#[cfg(test)]
mod tests;
