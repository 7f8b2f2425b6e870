//! Metrics of tunnels.

use std::{collections::BTreeMap, fmt};

use prometheus_client::encoding::DescriptorEncoder;

use super::{Labels, counter, gauges, truth};
use crate::report::{status::Status, tunnels::Tunnel};

pub fn encode(status: &Status, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
    // By name: while interfaces are renamed, two may have had the same.
    let tunnels = status.tunnels.iter().map(|tunnel| (tunnel.name.as_str(), tunnel));
    let tunnels: BTreeMap<&str, &Tunnel> = tunnels.collect();
    let labels = |name| -> Labels<'_> { vec![("device", name)] };
    gauges(
        encoder,
        "netfast_tunnel_repeated",
        "1 if outer headers of a VXLAN device that packets of containers leave by are repeated, else 0 (netfast check says why).",
        tunnels
            .iter()
            .map(|(name, tunnel)| (labels(*name), truth(tunnel.repeated))),
    )?;
    gauges(
        encoder,
        "netfast_tunnel_headers",
        "Outer headers of it that are known: one for each direction of a conversation that leaves.",
        tunnels
            .iter()
            .map(|(name, tunnel)| (labels(*name), tunnel.headers as f64)),
    )?;
    counter(
        encoder,
        "netfast_tunnel_packets",
        "Packets that left through a tunnel with a repeated outer header; where they came in they are counted by path, too.",
        status.totals.tunnel_packets,
    )?;
    counter(
        encoder,
        "netfast_tunnel_bytes",
        "Bytes of them as they left, network layer and up.",
        status.totals.tunnel_bytes,
    )?;
    counter(
        encoder,
        "netfast_tunnel_received_packets",
        "Packets that came in through a tunnel and whose outer header was taken off at the uplink; they are counted by path, too.",
        status.totals.tunnel_in_packets,
    )
}
