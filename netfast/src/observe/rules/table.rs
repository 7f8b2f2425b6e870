//! The table of what packet-filter rules are made of: may a verdict on one packet of a flow be repeated for the next?
//!
//! It lists what may. A name that is not in it judges by the packet.

use crate::host::Severity;

mod iptables;
mod nftables;
mod reasons;

/// Where a name stands in a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// A match of iptables or ebtables, in nftables too (`nft_compat`).
    Match,
    /// A target or watcher of iptables or ebtables, likewise.
    Target,
    /// An nftables expression (`struct nft_expr_type`).
    Expression,
    /// A key that `meta` loads (`NFT_META_*`).
    Meta,
    /// A key that `meta … set` writes.
    MetaSet,
    /// A key that `ct` loads (`NFT_CT_*`).
    Ct,
    /// A key that `ct … set` writes.
    CtSet,
    /// What `exthdr` looks for (`NFT_EXTHDR_OP_*`).
    Extension,
    /// A named object (`NFT_OBJECT_*`).
    Object,
}

#[cfg(test)]
impl Place {
    /// In words.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Match => "match",
            Self::Target => "target",
            Self::Expression => "expression",
            Self::Meta => "meta",
            Self::MetaSet => "meta set",
            Self::Ct => "ct",
            Self::CtSet => "ct set",
            Self::Extension => "extension header",
            Self::Object => "object",
        }
    }
}

/// What a part of a rule means for a verdict that is repeated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// It gives the same for every packet of a flow: what it looks at is constant, or part of the flow.
    Repeatable,
    /// Only packets pass it that always take the slow path.
    SlowOnly,
    /// It depends on what it asks for, see [`super::xt`], or on what it is given.
    Depends,
    /// It judges by the packet.
    Judges,
    /// It judges by all packets so far that came as far as to it.
    Counts,
    /// It does something for each packet that the fast path does not do, whatever else the rule does.
    Acts,
    /// It sees fewer packets, and that is harmless.
    Note,
    /// The data path recognises such packets by itself.
    Excluded,
    /// It looks at what only the bridge knows of a packet for the host, and the fast path to the host skips the bridge.
    Bridged,
}

impl Class {
    /// What a finding of that class is; `None` if there is nothing to find.
    pub const fn severity(self) -> Option<Severity> {
        match self {
            Self::Repeatable | Self::SlowOnly | Self::Depends => None,
            Self::Judges | Self::Counts | Self::Acts | Self::Bridged => Some(Severity::SlowPath),
            Self::Note => Some(Severity::Note),
            Self::Excluded => Some(Severity::SelfExcluding),
        }
    }

    /// In words.
    #[cfg(test)]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Repeatable => "repeatable",
            Self::SlowOnly => "slow packets only",
            Self::Depends => "depends",
            Self::Judges => "judges by the packet",
            Self::Counts => "judges by earlier packets",
            Self::Acts => "acts on each packet",
            Self::Note => "note",
            Self::Excluded => "recognised by the data path",
            Self::Bridged => "keeps container to host slow",
        }
    }
}

/// Names of one place that mean the same.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// Where they stand.
    pub place: Place,
    /// The names.
    pub names: &'static [&'static str],
    /// What they mean.
    pub class: Class,
    /// What it is called in findings; empty for its own name.
    pub what: &'static str,
    /// Why, for people.
    pub reason: &'static str,
}

const fn row(
    place: Place,
    names: &'static [&'static str],
    class: Class,
    what: &'static str,
    reason: &'static str,
) -> Row {
    Row {
        place,
        names,
        class,
        what,
        reason,
    }
}

/// All rows.
pub fn rows() -> impl Iterator<Item = &'static Row> {
    iptables::IPTABLES.iter().chain(nftables::NFTABLES)
}

/// An entry of the table under one of its names.
#[derive(Clone, Copy, Debug)]
pub struct Known {
    /// The name.
    pub name: &'static str,
    /// Its row.
    pub row: &'static Row,
}

impl Known {
    /// What it is called in findings.
    pub const fn what(self) -> &'static str {
        if self.row.what.is_empty() {
            self.name
        } else {
            self.row.what
        }
    }
}

/// Finds a name; `None` if it is not known.
pub fn find(place: Place, name: &str) -> Option<Known> {
    let rows = rows().filter(|row| row.place == place);
    rows.flat_map(|row| row.names.iter().map(move |name| Known { name, row }))
        .find(|known| known.name == name)
}

/// Why an unknown name keeps networks slow.
pub const UNKNOWN: &str = "is not known to netfast, so it may judge by the packet";

/// `NFT_META_*` by number, as nft calls them.
pub const META: [&str; 38] = [
    "length",
    "protocol",
    "priority",
    "mark",
    "iif",
    "oif",
    "iifname",
    "oifname",
    "iiftype",
    "oiftype",
    "skuid",
    "skgid",
    "nftrace",
    "rtclassid",
    "secmark",
    "nfproto",
    "l4proto",
    "ibrname",
    "obrname",
    "pkttype",
    "cpu",
    "iifgroup",
    "oifgroup",
    "cgroup",
    "random",
    "ipsec",
    "iifkind",
    "oifkind",
    "ibrpvid",
    "ibrvproto",
    "time",
    "day",
    "hour",
    "sdif",
    "sdifname",
    "broute",
    "",
    "ibrhwaddr",
];

/// `NFT_CT_*` by number, as nft calls them.
pub const CT: [&str; 24] = [
    "state",
    "direction",
    "status",
    "mark",
    "secmark",
    "expiration",
    "helper",
    "l3proto",
    "saddr",
    "daddr",
    "protocol",
    "proto-src",
    "proto-dst",
    "label",
    "packets",
    "bytes",
    "avgpkt",
    "zone",
    "event",
    "ip saddr",
    "ip daddr",
    "ip6 saddr",
    "ip6 daddr",
    "id",
];

/// `NFT_EXTHDR_OP_*` by number.
pub const EXTENSIONS: [&str; 5] = ["exthdr", "tcp option", "ip option", "sctp chunk", "dccp option"];

/// `NFT_OBJECT_*` by number.
pub const OBJECTS: [&str; 11] = [
    "",
    "counter",
    "quota",
    "ct helper",
    "limit",
    "connlimit",
    "tunnel",
    "ct timeout",
    "secmark",
    "ct expectation",
    "synproxy",
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn no_name_is_listed_twice() {
        let mut seen = BTreeSet::new();
        for row in rows() {
            assert!(!row.reason.is_empty(), "{:?}", row.names);
            for name in row.names {
                assert!(seen.insert((row.place, name)), "{} {name}", row.place.name());
            }
        }
    }

    #[test]
    fn every_number_of_the_kernel_has_a_row() {
        for (place, names) in [
            (Place::Meta, &META[..]),
            (Place::Ct, &CT),
            (Place::Extension, &EXTENSIONS),
            (Place::Object, &OBJECTS),
        ] {
            for name in names.iter().filter(|name| !name.is_empty()) {
                assert!(find(place, name).is_some(), "{} {name}", place.name());
            }
        }
        assert!(find(Place::Match, "nobody").is_none());
    }
}
