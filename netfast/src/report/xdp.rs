//! XDP at uplinks, as it is shown.

use std::fmt::Write as _;

use netfast_common::reason::Count;
use serde::Serialize;

use crate::{
    plan::XdpReport,
    report::units::{bytes, count},
};

/// What XDP does.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Xdp {
    /// The uplinks, if XDP is asked for.
    pub uplinks: Vec<XdpReport>,
    /// Interfaces of containers that datagrams are sent to.
    pub ends: usize,
    /// Datagrams that were; the fast path's count has them, too.
    pub packets: u64,
    /// Bytes of them, network layer and up.
    pub bytes: u64,
}

impl Xdp {
    /// Puts it together.
    pub fn gather(uplinks: &[XdpReport], ends: usize, sent: Count) -> Self {
        Self {
            uplinks: uplinks.to_vec(),
            ends,
            packets: sent.packets,
            bytes: sent.bytes,
        }
    }

    /// A part of the report; nothing where nobody has asked for it.
    pub fn render(&self) -> String {
        let mut text = String::new();
        if self.uplinks.is_empty() {
            return text;
        }
        let (packets, octets) = (count(self.packets), bytes(self.bytes));
        let _ = writeln!(
            text,
            "\nXDP ({packets} datagrams, {octets}, to {} containers)",
            self.ends
        );
        for report in &self.uplinks {
            let _ = writeln!(text, "  {}  {}", report.name, state(report));
        }
        text
    }
}

/// Whether an uplink's datagrams go by XDP, or why not.
pub fn state(report: &XdpReport) -> String {
    let why = report.why.as_ref();
    why.map_or_else(|| "on".to_owned(), |why| format!("off: {why}"))
}

/// The same in a sentence about what comes in there.
pub fn incoming(report: &XdpReport) -> String {
    match &report.why {
        None => "UDP that comes in by it goes by XDP, once it is known".to_owned(),
        Some(why) => format!("what comes in by it does not go by XDP: {why}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_said_where_it_is_on_and_why_not_and_nothing_without_a_wish() {
        let report = |name: &str, why: Option<&str>| XdpReport {
            ifindex: 2,
            name: name.into(),
            why: why.map(Into::into),
        };
        let sent = Count {
            packets: 1_234,
            bytes: 5_000,
        };
        let xdp = Xdp::gather(
            &[report("eth0", None), report("eth1", Some("its MTU is 9000"))],
            3,
            sent,
        );
        let text = xdp.render();
        assert!(
            text.starts_with("\nXDP (1,234 datagrams, ") && text.contains(" to 3 containers)\n"),
            "{text}"
        );
        assert!(text.ends_with("  eth0  on\n  eth1  off: its MTU is 9000\n"), "{text}");
        assert_eq!(Xdp::gather(&[], 0, sent).render(), "");
    }
}
