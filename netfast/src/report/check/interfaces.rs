//! What else is attached to the interfaces that netfast would be attached to.

use std::collections::BTreeMap;

use netfast_common::{
    abi::{Hook, PREFIX},
    device::Kind,
};

use super::{Area, Level, Line};
use crate::{
    host::{Link, LinkKind, Namespace},
    plan::{Desired, NotUplink, TunnelReport},
    probe::Attached,
    report::{tunnels, xdp},
};

/// Queueing disciplines that let every packet through as it comes: a redirect that skips them skips nothing.
const TRANSPARENT: [&str; 3] = ["noqueue", "clsact", "ingress"];

/// Looks at the interfaces of these indexes; `programs` are the tcx programs on them, netfast's own included, and
/// `name_of` names a program by its number.
pub fn interfaces(
    netns: &Namespace,
    concerned: impl IntoIterator<Item = u32>,
    programs: &BTreeMap<u32, Vec<Attached>>,
    name_of: impl Fn(u32) -> Option<String>,
) -> Vec<Line> {
    let mut lines = Vec::new();
    let mut looked_at = 0;
    for link in concerned.into_iter().filter_map(|ifindex| netns.links.get(&ifindex)) {
        looked_at += 1;
        lines.extend(
            programs
                .get(&link.ifindex)
                .into_iter()
                .flat_map(|on_link| foreign(link, on_link)),
        );
        lines.extend(foreign_xdp(link, &name_of));
        lines.extend(tc(netns, link));
    }
    let summary = match (looked_at, lines.len()) {
        (0, _) => "no containers and no uplinks here: nothing to be attached to".into(),
        (1, 0) => "1 interface, nothing else on it".into(),
        (number, 0) => format!("{number} interfaces, nothing else on them"),
        (number, _) => format!("{number} interfaces, with others' programs or queueing disciplines:"),
    };
    lines.insert(0, Line::new(Area::Interfaces, Level::Ok, "interfaces", summary));
    lines
}

/// Names the interfaces that lead off the host, and says why one with a default route is not among them.
pub fn uplinks(desired: &Desired) -> Vec<Line> {
    let found = desired.devices.values().filter(|device| device.kind == Kind::Uplink);
    let names: Vec<&str> = found.map(|device| device.name.as_str()).collect();
    let line = |level, detail: String| Line::new(Area::Interfaces, level, "uplinks", detail);
    let mut lines = vec![if names.is_empty() {
        line(
            Level::Note,
            "none: packets between containers and other hosts take the kernel's path".into(),
        )
    } else {
        line(Level::Ok, names.join(", "))
    }];
    lines.extend(desired.tunnel_reports.iter().map(|tunnel| {
        let TunnelReport {
            name, vni, port, why, ..
        } = tunnel;
        let level = if why.is_none() { Level::Ok } else { Level::Note };
        let outer = tunnels::outer(why.as_deref(), tunnel.why_in.as_deref(), tunnel.checksums);
        let detail = format!("VXLAN {vni}, UDP port {port}; {outer}");
        Line::new(Area::Interfaces, level, name.clone(), detail)
    }));
    lines.extend(desired.transit.as_ref().map(|transit| match transit {
        Ok(()) => Line::new(
            Area::Interfaces,
            Level::Ok,
            "transit",
            "what is forwarded between uplinks is fast, too",
        ),
        Err(why) => {
            let detail = format!("what is forwarded between uplinks takes the kernel's path: {why}");
            Line::new(Area::Interfaces, Level::Note, "transit", detail)
        }
    }));
    // What is said of an uplink is what it is attached by.
    lines.extend(desired.xdp.reports.iter().map(|report| {
        let level = if report.why.is_none() { Level::Ok } else { Level::Note };
        let detail = format!("XDP {}", xdp::state(report));
        Line::new(Area::Interfaces, level, report.name.clone(), detail)
    }));
    let left_out = desired.not_uplinks.iter().filter(|left_out| left_out.has_default);
    lines.extend(left_out.map(|left_out| {
        let NotUplink {
            name,
            why,
            can_be_named,
            ..
        } = left_out;
        let detail = format!("has a default route and is no uplink: {why}");
        let line = Line::new(Area::Interfaces, Level::Note, name.clone(), detail);
        if *can_be_named {
            line.remedy(format!(
                "If it leads off the host, name it: `--uplink {name}`, or `uplinks` in netfast.toml."
            ))
        } else {
            line
        }
    }));
    lines
}

fn note(link: &Link, detail: impl Into<String>) -> Line {
    Line::new(Area::Interfaces, Level::Note, link.name.clone(), detail)
}

fn foreign<'a>(link: &'a Link, on_link: &'a [Attached]) -> impl Iterator<Item = Line> + 'a {
    on_link.iter().filter(|program| !program.is_ours()).map(move |program| {
        let hook = match program.hook {
            Hook::Ingress => "ingress",
            Hook::Egress => "egress",
        };
        note(
            link,
            format!(
                "BPF program {} (id {}) on tcx {hook}, of other software",
                quoted(&program.name),
                program.id
            ),
        )
    })
}

fn foreign_xdp<'a>(link: &'a Link, name_of: &'a impl Fn(u32) -> Option<String>) -> impl Iterator<Item = Line> + 'a {
    let modes = [
        ("generic", link.xdp.generic),
        ("native", link.xdp.native),
        ("offloaded", link.xdp.offloaded),
    ];
    modes.into_iter().filter_map(move |(mode, id)| {
        let id = id?;
        let name = name_of(id).unwrap_or_default();
        if name.starts_with(PREFIX) {
            return None;
        }
        let name = quoted(&name);
        let text =
            format!("{mode} XDP program {name} (id {id}), of other software: it runs first and sees every packet");
        // Any XDP program on a veth makes the other end segment in software (drivers/net/veth.c, `veth_xdp_set`).
        let costly = mode == "native" && matches!(link.kind, LinkKind::Veth { .. });
        let cost = if costly {
            "; on a veth it also switches TSO off in the container, which costs TCP most of its speed"
        } else {
            ""
        };
        Some(note(link, text + cost))
    })
}

fn tc(netns: &Namespace, link: &Link) -> Vec<Line> {
    let mut lines = Vec::new();
    let qdiscs = netns.qdiscs.get(&link.ifindex).into_iter().flatten();
    let shaping = qdiscs.filter(|qdisc| !TRANSPARENT.contains(&qdisc.kind.as_str()));
    // A hardware device has one under each of its transmit queues: the first says it.
    if let Some(qdisc) = shaping.into_iter().next()
        && matches!(link.kind, LinkKind::Veth { .. } | LinkKind::Bridge(_))
    {
        lines.push(note(
            link,
            format!(
                "queueing discipline {}: packets to it pass through that in any case",
                qdisc.kind
            ),
        ));
    }
    for filter in netns.tc_filters.get(&link.ifindex).into_iter().flatten() {
        let name = filter.name.as_deref().unwrap_or_default();
        if !name.starts_with(PREFIX) {
            let named = if name.is_empty() {
                String::new()
            } else {
                format!(" {name}")
            };
            lines.push(note(
                link,
                format!("tc filter {}{named}, of other software", filter.kind),
            ));
        }
    }
    lines
}

fn quoted(name: &str) -> &str {
    if name.is_empty() { "without a name" } else { name }
}
