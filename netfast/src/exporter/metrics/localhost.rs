//! Metrics of published ports at loopback addresses.

use std::fmt;

use prometheus_client::encoding::DescriptorEncoder;

use super::{Labels, counters, gauges, truth};
use crate::report::status::Status;

pub fn encode(status: &Status, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
    let state = &status.localhost;
    let ports: Vec<(String, f64, &crate::plan::LocalReport)> = state
        .ports
        .iter()
        .map(|report| (report.port.to_string(), truth(report.led), report))
        .collect();
    gauges(
        encoder,
        "netfast_localhost_port",
        "1 if the host's own connections to a published port at a loopback address go past docker-proxy, else 0 (netfast status \
         says why).",
        ports.iter().map(|(port, led, report)| -> (Labels<'_>, f64) {
            let labels = vec![
                ("protocol", report.protocol.as_str()),
                ("listens", report.listens.as_str()),
                ("port", port.as_str()),
                ("container", report.container.as_str()),
            ];
            (labels, *led)
        }),
    )?;
    counters(
        encoder,
        "netfast_localhost_sockets",
        "Connections and datagrams of the host's programs to such ports: past docker-proxy (tcp, udp, datagram), and left to it \
         because of the socket or the program (bound, cgroup, many; see docs/localhost.md).",
        state
            .outcomes
            .iter()
            .map(|(name, count)| -> (Labels<'_>, u64) { (vec![("outcome", name.as_str())], *count) }),
    )
}
