//! Tunnels, as all reports show them: the VXLAN devices that packets of containers leave by, whether their outer headers are
//! repeated, and why not.

use std::collections::BTreeMap;

use netfast_common::device::DeviceKey;
use serde::Serialize;

use crate::{
    apply::read::OuterHeaders,
    plan::TunnelReport,
    report::{
        Table,
        table::{Cell, Paint},
        units::count,
    },
};

/// What the pinned tables say: the tunnels whose outer headers are repeated.
pub type Told = BTreeMap<DeviceKey, OuterHeaders>;

/// A VXLAN device that packets of containers leave by.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Tunnel {
    /// Its name.
    pub name: String,
    /// Its network identifier.
    pub vni: u32,
    /// Its UDP port.
    pub port: u16,
    /// Whether outer headers are repeated.
    pub repeated: bool,
    /// Why not.
    pub reason: Option<String>,
    /// Where they are: why the kernel takes off those of the packets that come in, if it does.
    pub reason_in: Option<String>,
    /// Whether outer packets have UDP checksums: then those that are still to be segmented are the kernel's.
    pub checksums: bool,
    /// Outer headers that are known: one for each direction of a conversation that leaves.
    pub headers: u64,
    /// Packets that got one of these.
    pub packets: u64,
    /// Bytes of them as they left, network layer and up.
    pub bytes: u64,
    /// Outer headers of packets that come in that are known.
    pub headers_in: u64,
    /// Packets that one of these was taken off from.
    pub packets_in: u64,
}

/// All of them: what was planned, and what the programs were told.
pub fn gather(planned: &[TunnelReport], told: &Told) -> Vec<Tunnel> {
    let tunnel = |report: &TunnelReport| {
        let told = told.get(&DeviceKey::served(report.ifindex));
        let headers = told.copied().unwrap_or_default();
        let not_yet = || told.is_none().then(|| "netfast is not attached to it yet".to_owned());
        let reason = report.why.clone().or_else(not_yet);
        Tunnel {
            name: report.name.clone(),
            vni: report.vni,
            port: report.port,
            repeated: reason.is_none(),
            reason,
            reason_in: report.why_in.clone(),
            checksums: report.checksums,
            headers: headers.known,
            packets: headers.packets,
            bytes: headers.bytes,
            headers_in: headers.known_in,
            packets_in: headers.packets_in,
        }
    };
    planned.iter().map(tunnel).collect()
}

/// What becomes of the outer headers of a tunnel, in words; `why`: why they are not repeated, `why_in`: why they are not taken off
/// what comes in, `checksums`: it has UDP checksums.
pub fn outer(why: Option<&str>, why_in: Option<&str>, checksums: bool) -> String {
    if let Some(why) = why {
        return format!("the kernel writes each outer header: {why}");
    }
    let but = if checksums {
        ", but for packets that are still to be segmented (TCP in bulk; udpcsum)"
    } else {
        ""
    };
    let of_what_comes_in = why_in.map(|why| format!("; the kernel takes each one off what comes in: {why}"));
    format!(
        "outer headers are repeated{but}{}",
        of_what_comes_in.unwrap_or_default()
    )
}

impl Tunnel {
    fn outer(&self) -> String {
        outer(self.reason.as_deref(), self.reason_in.as_deref(), self.checksums)
    }

    /// It in one line.
    pub fn line(&self) -> String {
        let Self { name, vni, port, .. } = self;
        format!("Tunnel {name} (VXLAN {vni}, UDP port {port}): {}.", self.outer())
    }
}

/// One row each; empty without one.
pub fn table(tunnels: &[Tunnel]) -> Table {
    let mut table = Table::new(&[
        "DEVICE",
        ">VNI",
        ">UDP PORT",
        ">HEADERS",
        ">THEIR PACKETS",
        ">TAKEN OFF",
        "STATE",
    ])
    .indent(2);
    for tunnel in tunnels {
        let paint = if tunnel.repeated { Paint::Green } else { Paint::Yellow };
        table.row([
            tunnel.name.clone().into(),
            tunnel.vni.to_string().into(),
            tunnel.port.to_string().into(),
            count(tunnel.headers).into(),
            count(tunnel.packets).into(),
            count(tunnel.packets_in).into(),
            Cell::painted(tunnel.outer(), paint),
        ]);
    }
    table
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::report::Style;

    /// One of each state.
    pub(crate) fn planned() -> Vec<TunnelReport> {
        let report = |ifindex, name: &str, why: Option<&str>| TunnelReport {
            ifindex,
            name: name.into(),
            vni: ifindex * 100,
            port: 8472,
            bridge: None,
            checksums: false,
            why: why.map(Into::into),
            why_in: None,
        };
        vec![
            report(7, "flannel.1", None),
            report(8, "vxlan0", None),
            report(9, "vxlan1", Some("its outer packets are IPv6")),
        ]
    }

    pub(crate) fn told() -> Told {
        let headers = OuterHeaders {
            known: 12,
            packets: 34_567,
            bytes: 89_012_345,
            known_in: 11,
            packets_in: 30_021,
        };
        [(DeviceKey::served(7), headers)].into()
    }

    #[test]
    fn a_tunnel_is_what_was_planned_and_what_the_programs_were_told() {
        let tunnels = gather(&planned(), &told());
        let lines: Vec<String> = tunnels.iter().map(Tunnel::line).collect();
        assert_eq!(
            lines,
            [
                "Tunnel flannel.1 (VXLAN 700, UDP port 8472): outer headers are repeated.",
                "Tunnel vxlan0 (VXLAN 800, UDP port 8472): the kernel writes each outer header: netfast is not attached to it yet.",
                "Tunnel vxlan1 (VXLAN 900, UDP port 8472): the kernel writes each outer header: its outer packets are IPv6.",
            ]
        );
        assert_eq!((tunnels[0].headers, tunnels[0].packets), (12, 34_567));
        assert!(tunnels[0].repeated && !tunnels[1].repeated && !tunnels[2].repeated);
        let text = table(&tunnels).render(Style::default());
        assert!(
            text.contains("flannel.1  700      8472       12         34,567     30,021  outer headers are repeated\n"),
            "{text}"
        );
        assert!(table(&[]).is_empty());
        let summed = Tunnel {
            checksums: true,
            ..tunnels[0].clone()
        };
        assert!(
            summed
                .line()
                .contains("are repeated, but for packets that are still to be segmented")
        );
        let half = Tunnel {
            reason_in: Some("a rule".into()),
            ..tunnels[0].clone()
        };
        assert!(
            half.line()
                .contains("are repeated; the kernel takes each one off what comes in: a rule."),
            "{}",
            half.line()
        );
    }
}
