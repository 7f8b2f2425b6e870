//! The table of kinds: which matches, targets and expressions a cached verdict cannot repeat, how badly, and why.

use crate::world::Severity::{self, Note, SelfExcluding, SlowPath};

/// One kind of rule.
#[derive(Clone, Copy, Debug)]
pub struct Kind {
    /// Its name in findings.
    pub what: &'static str,
    /// nftables expressions that are of this kind whatever their attributes. Some more are told by their attributes.
    pub nft: &'static [&'static str],
    /// Matches and targets of xtables, which iptables-nft uses too.
    pub xt: &'static [&'static str],
    /// How much it stands against the fast path.
    pub severity: Severity,
    /// Why, for people.
    pub reason: &'static str,
}

const fn kind(
    what: &'static str,
    nft: &'static [&'static str],
    xt: &'static [&'static str],
    severity: Severity,
    reason: &'static str,
) -> Kind {
    Kind {
        what,
        nft,
        xt,
        severity,
        reason,
    }
}

const RATE: &str = "judges by the rate of packets; on the fast path it would see about one packet per second and flow";
const RANDOM: &str = "judges packets at random or in turn; the verdict on one packet says nothing about the next";
const AMOUNT: &str = "judges by the amount of traffic; most packets of a flow on the fast path are not counted";
const CONTENT: &str = "judges by the content or size of each packet";
const LOGGED: &str = "sees only the packets on the slow path: about one per second and flow";
const REWRITTEN: &str =
    "changes header fields that a flow on the fast path may not differ in; such flows are not learned";

/// All kinds, the first that fits counts.
pub const KINDS: [Kind; 28] = [
    kind(
        "nfqueue",
        &["queue"],
        &["NFQUEUE", "QUEUE"],
        SelfExcluding,
        "hands each packet to a program; such packets do \
         not come out in one go and are not learned",
    ),
    kind("limit", &["limit"], &["limit"], SlowPath, RATE),
    kind("hashlimit", &[], &["hashlimit", "dstlimit"], SlowPath, RATE),
    kind("rateest", &[], &["rateest", "RATEEST"], SlowPath, RATE),
    kind("quota", &["quota"], &["quota", "quota2"], SlowPath, AMOUNT),
    kind("connbytes", &[], &["connbytes"], SlowPath, AMOUNT),
    kind(
        "statistic",
        &["numgen"],
        &["statistic", "random", "nth"],
        SlowPath,
        RANDOM,
    ),
    kind(
        "recent",
        &[],
        &["recent"],
        SlowPath,
        "judges by when an address was last seen",
    ),
    kind(
        "dynset",
        &["dynset"],
        &["SET"],
        Note,
        "adds addresses to a set from packets; on the fast path they are \
         refreshed about once per second and flow",
    ),
    kind("meter", &[], &[], SlowPath, RATE),
    kind(
        "connlimit",
        &["connlimit"],
        &["connlimit", "iplimit"],
        Note,
        "counts connections; those are still \
         established on the slow path",
    ),
    kind(
        "time",
        &[],
        &["time"],
        Note,
        "judges by the time of day; a change takes effect within the revalidation \
         interval",
    ),
    kind(
        "content",
        &[],
        &[
            "string", "u32", "bpf", "length", "length2", "ttl", "hl", "eui64", "layer7", "ipp2p",
        ],
        SlowPath,
        CONTENT,
    ),
    kind(
        "condition",
        &[],
        &["condition", "psd", "lscan"],
        SlowPath,
        "judges by something besides the packet that may \
         change at any time without notice",
    ),
    kind(
        "tproxy",
        &["tproxy"],
        &["TPROXY"],
        SelfExcluding,
        "delivers packets to a local socket; they do not come out \
         again and are not learned",
    ),
    kind(
        "synproxy",
        &["synproxy"],
        &["SYNPROXY"],
        SelfExcluding,
        "answers handshakes itself and shifts sequence \
         numbers; such flows are not learned",
    ),
    kind(
        "ct helper",
        &[],
        &["helper"],
        SlowPath,
        "a connection tracking helper reads the payload of this traffic",
    ),
    kind(
        "ct target",
        &["notrack"],
        &["CT", "NOTRACK"],
        SlowPath,
        "sets a connection tracking helper, zone or timeout, \
         or keeps the traffic from being tracked",
    ),
    kind(
        "mark",
        &[],
        &["MARK", "CONNMARK", "CONNSECMARK", "SECMARK", "CLASSIFY"],
        Note,
        "sets a mark or priority on \
         each packet; packets on the fast path do not carry it further than the rules that they skip",
    ),
    kind(
        "rewrite",
        &[],
        &["TTL", "HL", "TOS", "DSCP", "ECN", "TCPOPTSTRIP", "DNPT", "SNPT"],
        SelfExcluding,
        REWRITTEN,
    ),
    kind(
        "duplicate",
        &["dup"],
        &["TEE"],
        SlowPath,
        "copies each packet; packets on the fast path are not copied",
    ),
    kind(
        "forward",
        &["fwd"],
        &[],
        SlowPath,
        "sends packets out of another device by itself",
    ),
    kind(
        "flowtable",
        &["flow_offload"],
        &["FLOWOFFLOAD"],
        Note,
        "the kernel's own fast path takes over these flows; \
         what it forwards passes netfast by",
    ),
    kind("log", &["log"], &["LOG", "ULOG"], Note, LOGGED),
    kind("nflog", &[], &["NFLOG"], Note, LOGGED),
    kind(
        "accounting",
        &[],
        &["nfacct", "ACCOUNT"],
        SlowPath,
        "counts packets for somebody; most packets of a flow on the fast path are not counted",
    ),
    kind("notice", &[], &["IDLETIMER", "LED", "AUDIT"], Note, LOGGED),
    kind("trace", &[], &["TRACE"], Note, LOGGED),
];

/// The kind of that name. A name that is not in the table is a slip in this module, and finds nothing.
pub fn by_name(what: &str) -> Option<&'static Kind> {
    KINDS.iter().find(|kind| kind.what == what)
}

/// The kind of an xtables match or target.
pub fn of_xt(name: &str) -> Option<&'static Kind> {
    KINDS.iter().find(|kind| kind.xt.contains(&name))
}

/// The kind of an nftables expression, as far as its name tells.
pub fn of_nft(name: &str) -> Option<&'static Kind> {
    KINDS.iter().find(|kind| kind.nft.contains(&name))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn no_name_is_listed_twice() {
        let mut seen = BTreeSet::new();
        for kind in &KINDS {
            assert!(seen.insert(("kind", kind.what)), "{}", kind.what);
            for name in kind.nft {
                assert!(seen.insert(("nft", name)), "{name}");
            }
            for name in kind.xt {
                assert!(seen.insert(("xt", name)), "{name}");
            }
        }
    }
}
