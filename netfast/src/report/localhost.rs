//! Published ports at loopback addresses, as all reports show them: how many are led past docker-proxy, and why others are not.

use std::{
    fmt::Write as _,
    net::{IpAddr, SocketAddr},
};

use serde::Serialize;

use crate::{
    plan::LocalReport,
    state::{LocalState, State},
};

/// How many ports are named; the rest is in the JSON.
const SHOWN: usize = 2;

/// In one line; `None`: nobody wants it, or nothing is published.
pub fn summary(state: &LocalState) -> Option<String> {
    let mut text = ports(&state.ports)?;
    if let Some((cgroup, program)) = state.watched.first_key_value() {
        let others = match state.watched.len() - 1 {
            0 => String::new(),
            others => format!(" and {others} other control groups"),
        };
        let _ = write!(
            text,
            "; not from {}{others}, where the program {program} judges what sockets do",
            cgroup.display()
        );
    }
    Some(text)
}

/// How many of these, and which not.
pub fn ports<'a>(reports: impl IntoIterator<Item = &'a LocalReport>) -> Option<String> {
    let all: Vec<&LocalReport> = reports.into_iter().collect();
    let led = all.iter().filter(|report| report.led).count();
    let mut text = match (led, all.len()) {
        (_, 0) => return None,
        (led, all) if led == all => format!("all {all} are reached past docker-proxy"),
        (led, all) => format!("{led} of {all} are reached past docker-proxy"),
    };
    let missing: Vec<&&LocalReport> = all.iter().filter(|report| !report.led).collect();
    for report in missing.iter().take(SHOWN) {
        let _ = write!(text, "; not {}: {}", name(report), why(report));
    }
    if missing.len() > SHOWN {
        let _ = write!(text, "; nor {} others", missing.len() - SHOWN);
    }
    Some(text)
}

/// A port as people know it.
pub fn name(report: &LocalReport) -> String {
    let LocalReport {
        protocol,
        listens,
        port,
        container,
        ..
    } = report;
    let at = if listens.contains(':') {
        format!("[{listens}]")
    } else {
        listens.clone()
    };
    format!("{protocol} {at}:{port} of {container}")
}

/// Why connections to it go through docker-proxy.
pub fn why(report: &LocalReport) -> &str {
    report.why.as_deref().unwrap_or("not done yet")
}

/// What becomes of a connection of the host's own programs to a loopback address.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Explanation {
    /// What was asked about.
    pub address: SocketAddr,
    /// Whether the key `localhost` is set.
    pub wanted: bool,
    /// The published ports that are reached there.
    pub ports: Vec<LocalReport>,
}

impl Explanation {
    /// What was asked about, if it is a loopback address with a port.
    pub fn asked(text: &str) -> Option<SocketAddr> {
        let address: SocketAddr = text.parse().ok()?;
        address.ip().is_loopback().then_some(address)
    }

    /// Explains.
    pub fn of(address: SocketAddr, state: &State) -> Self {
        let is_it = |report: &&LocalReport| {
            let listens: Option<IpAddr> = report.listens.parse().ok();
            let at = listens.is_some_and(|listens| {
                listens.is_ipv4() == address.is_ipv4() && (listens.is_unspecified() || listens == address.ip())
            });
            at && report.port == address.port()
        };
        Self {
            address,
            wanted: state.config.localhost,
            ports: state.localhost.ports.iter().filter(is_it).cloned().collect(),
        }
    }

    /// In words.
    pub fn render(&self) -> String {
        let Self { address, wanted, ports } = self;
        if !wanted {
            return format!(
                "{address}: the host's own connections go through docker-proxy, as far as something is published there; the key \
                 `localhost` is off.\n"
            );
        }
        if ports.is_empty() {
            return format!("{address}: no container that is known has a port published there.\n");
        }
        let lines = ports.iter().map(|report| match (&report.why, report.led) {
            (_, true) => format!("{}: past docker-proxy, to {}.\n", name(report), report.target),
            _ => format!("{}: through docker-proxy: {}.\n", name(report), why(report)),
        });
        lines.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(port: u16, why: Option<&str>) -> LocalReport {
        LocalReport {
            protocol: "tcp".into(),
            listens: if port == 1 { "::" } else { "0.0.0.0" }.into(),
            port,
            container: "web".into(),
            target: "172.17.0.2:80".into(),
            led: why.is_none(),
            why: why.map(Into::into),
        }
    }

    #[test]
    fn how_many_and_why_not_others() {
        let said = |ports: Vec<LocalReport>| {
            summary(&LocalState {
                ports,
                ..LocalState::default()
            })
        };
        assert_eq!(said(Vec::new()), None);
        let all = said(vec![report(80, None), report(81, None)]);
        assert_eq!(all.as_deref(), Some("all 2 are reached past docker-proxy"));
        let some = said(vec![
            report(80, None),
            report(1, Some("no docker-proxy listens for it")),
            report(2, Some("x")),
            report(3, Some("y")),
        ]);
        assert_eq!(
            some.as_deref(),
            Some(
                "1 of 4 are reached past docker-proxy; not tcp [::]:1 of web: no docker-proxy listens for it; not tcp \
                 0.0.0.0:2 of web: x; nor 1 others"
            )
        );
        let watched = summary(&LocalState {
            ports: vec![report(80, None)],
            watched: [("/sys/fs/cgroup/a.service".into(), "sd_fw_egress".into())].into(),
            ..LocalState::default()
        });
        assert_eq!(
            watched.as_deref(),
            Some(
                "all 1 are reached past docker-proxy; not from /sys/fs/cgroup/a.service, where the program sd_fw_egress judges \
                 what sockets do"
            )
        );
    }

    #[test]
    fn a_loopback_address_with_a_port_is_explained() {
        assert_eq!(Explanation::asked("web"), None);
        assert_eq!(Explanation::asked("192.0.2.1:80"), None);
        let asked = |text| Explanation::asked(text).expect("a loopback address");
        let mut state = State {
            localhost: LocalState {
                ports: vec![report(80, None), report(1, Some("no docker-proxy listens for it"))],
                ..LocalState::default()
            },
            ..State::default()
        };
        assert!(
            Explanation::of(asked("127.0.0.1:80"), &state)
                .render()
                .contains("is off")
        );
        state.config.localhost = true;
        let said = |text| Explanation::of(asked(text), &state).render();
        assert_eq!(
            said("127.0.0.9:80"),
            "tcp 0.0.0.0:80 of web: past docker-proxy, to 172.17.0.2:80.\n"
        );
        assert_eq!(
            said("[::1]:1"),
            "tcp [::]:1 of web: through docker-proxy: no docker-proxy listens for it.\n"
        );
        assert!(said("127.0.0.1:1").contains("no container"));
    }
}
