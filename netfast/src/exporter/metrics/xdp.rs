//! Metrics of XDP at uplinks.

use std::{collections::BTreeMap, fmt};

use prometheus_client::encoding::DescriptorEncoder;

use super::{Labels, counter, gauges, truth};
use crate::report::status::Status;

pub fn encode(status: &Status, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
    let xdp = &status.xdp;
    // By name: while interfaces are renamed, two may have had the same.
    let uplinks = xdp
        .uplinks
        .iter()
        .map(|uplink| (uplink.name.as_str(), uplink.why.is_none()));
    let uplinks: BTreeMap<&str, bool> = uplinks.collect();
    let labels = |name| -> Labels<'_> { vec![("device", name)] };
    gauges(
        encoder,
        "netfast_xdp_on",
        "1 if datagrams that come in by an uplink are sent to containers by XDP, else 0 (netfast status says why); none where xdp is off.",
        uplinks.iter().map(|(name, is_on)| (labels(*name), truth(*is_on))),
    )?;
    counter(
        encoder,
        "netfast_xdp_packets",
        "Datagrams that were sent to containers by XDP; they are counted by path, too.",
        xdp.packets,
    )?;
    counter(
        encoder,
        "netfast_xdp_bytes",
        "Bytes of them, network layer and up.",
        xdp.bytes,
    )
}
