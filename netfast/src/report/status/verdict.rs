//! The first line of `netfast status`: whether all is well, and of what.

use serde::Serialize;

use super::{Endpoint, Status, Traffic};
use crate::report::units::share;

/// Whether all is well.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Verdict {
    /// Whether there is nothing to do: the daemon runs, is in sync, uses and learns flows, and all is fast that nobody has
    /// switched off.
    pub ok: bool,
    /// That, and how much is fast, in one line.
    pub text: String,
}

/// There is nothing of that name to show.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoSuchName {
    /// The daemon has read the host, and there is none.
    #[error("there is neither a network nor a container {0:?} with an endpoint")]
    Unknown(String),
    /// There may be one that it has not read yet.
    #[error("{0:?} is not known yet: the daemon is starting or catching up with changes")]
    NotYet(String),
}

impl Status {
    /// Only the network of this name, or the endpoints of this container.
    pub fn select(mut self, name: &str) -> Result<Self, NoSuchName> {
        if self.networks.iter().any(|network| network.name == name) {
            self.networks.retain(|network| network.name == name);
        } else {
            for network in &mut self.networks {
                network.endpoints.retain(|endpoint| endpoint.container == name);
            }
            self.networks.retain(|network| !network.endpoints.is_empty());
        }
        // What is said of all interfaces is not said of these.
        self.devices.clear();
        let is_found = !self.networks.is_empty();
        let endpoints = self.networks.iter().flat_map(|network| &network.endpoints);
        let sent = endpoints.filter_map(|endpoint| endpoint.traffic).fold((0, 0), sum);
        self.verdict = self.judged(sent);
        if is_found {
            Ok(self)
        } else if self.daemon.running && !self.daemon.in_sync {
            Err(NoSuchName::NotYet(name.into()))
        } else {
            Err(NoSuchName::Unknown(name.into()))
        }
    }

    /// The verdict on all that there is.
    #[must_use]
    pub fn with_verdict(mut self) -> Self {
        let totals = &self.totals;
        self.verdict = self.judged((totals.fast_packets, totals.slow_packets));
        self
    }

    fn judged(&self, (fast, slow): (u64, u64)) -> Verdict {
        // Those without an interface of their own on the host have nothing to be shortened.
        let endpoints = self.networks.iter().flat_map(|network| &network.endpoints);
        let all: Vec<&Endpoint> = endpoints.filter(|endpoint| endpoint.veth.is_some()).collect();
        let are_fast = all.iter().filter(|endpoint| endpoint.path.is_fast()).count();
        let trouble = self.trouble().or_else(|| {
            let none = are_fast == 0 && !all.is_empty();
            none.then(|| "no endpoint is fast".to_owned())
                .or_else(|| slow_against_the_wish(&all))
        });
        let packets = match fast + slow {
            0 => "no packets yet".to_owned(),
            all => format!("{} of packets fast", share(fast, all)),
        };
        let numbers = format!("{packets}, {are_fast} of {} endpoints", all.len());
        Verdict {
            ok: trouble.is_none(),
            text: match trouble {
                None => format!("ok: {numbers}, daemon running"),
                Some(trouble) => format!("attention: {trouble}; {numbers}"),
            },
        }
    }

    /// What is wrong, the worst first.
    fn trouble(&self) -> Option<String> {
        let daemon = &self.daemon;
        if !daemon.running {
            return Some("daemon not running".into());
        }
        if !daemon.attached {
            return Some("nothing is attached yet".into());
        }
        if !daemon.using {
            return Some("fast path off".into());
        }
        if let Some(why) = &daemon.learning_off {
            return Some(format!("learning off: {why}"));
        }
        if !daemon.learning {
            return Some("learning off".into());
        }
        if self.runtime.error.is_some() {
            return Some("the container runtime does not answer".into());
        }
        (!daemon.in_sync).then(|| "catching up with changes".into())
    }
}

/// The endpoints that are slow and that nobody has switched off.
fn slow_against_the_wish(all: &[&Endpoint]) -> Option<String> {
    let is_wish = |why: &str| why == "disabled-by-label" || why == "disabled-by-config";
    let slow = all
        .iter()
        .filter(|endpoint| endpoint.path.is_slow() && !endpoint.path.why.as_deref().is_some_and(is_wish));
    let (number, first) = (slow.clone().count(), slow.clone().next()?);
    let are = if number == 1 { "endpoint is" } else { "endpoints are" };
    let why = first.path.reason.as_deref().unwrap_or("see below");
    Some(format!("{number} {are} slow ({}: {why})", first.container))
}

fn sum((fast, slow): (u64, u64), traffic: Traffic) -> (u64, u64) {
    (fast + traffic.in_fast_packets, slow + traffic.in_slow_packets)
}
