//! Queueing disciplines and classic filters (`RTM_GETQDISC`, `RTM_GETTFILTER`, `linux/pkt_sched.h`).
//!
//! tcx programs are not here: they are BPF links, which the executor asks for.

use std::collections::BTreeMap;

use crate::observe::socket::{Asker, DUMP, NetlinkError};
use crate::observe::wire::{Attr, Attrs, Message, Request, u32_at};
use crate::world::{Qdisc, TcFilter};

pub const RTM_NEWQDISC: u16 = 36;
const RTM_GETQDISC: u16 = 38;
pub const RTM_NEWTFILTER: u16 = 44;
const RTM_GETTFILTER: u16 = 46;
/// `struct tcmsg`.
const TCMSG: usize = 20;
const TCA_KIND: u16 = 1;
const TCA_OPTIONS: u16 = 2;
const TCA_BPF_NAME: u16 = 7;

/// In the place of the interface: the filter is in a block, which several queueing disciplines may share, and the block's
/// number is in the place of the parent (`tcf_fill_node`, `net/sched/cls_api.c`).
const MAGIC_BLOCK: u32 = 0xffff_ffff;
const CLSACT_INGRESS: u32 = 0xffff_fff2;
const CLSACT_EGRESS: u32 = 0xffff_fff3;
/// Disciplines without filters, the defaults of all kinds of devices among them.
const CLASSLESS: [&str; 9] = [
    "noqueue",
    "pfifo_fast",
    "pfifo",
    "bfifo",
    "mq",
    "noop",
    "pfifo_head_drop",
    "plug",
    "tbf",
];

/// Lists the queueing disciplines. A kernel without any has an empty list.
pub fn qdiscs(asker: &mut Asker) -> Result<BTreeMap<u32, Vec<Qdisc>>, NetlinkError> {
    let request = Request::new(RTM_GETQDISC, DUMP, &[0; TCMSG]);
    unsupported_is_empty(asker.dump(
        "queueing disciplines",
        &request,
        |qdiscs: &mut BTreeMap<_, Vec<_>>, message| {
            if let (RTM_NEWQDISC, Some((ifindex, qdisc))) = (message.kind, parse_qdisc(message)) {
                qdiscs.entry(ifindex).or_default().push(qdisc);
            }
            Ok(())
        },
    ))
}

/// Lists the filters of those disciplines that can hold any: a question each, so the usual ones are left out.
pub fn filters(
    asker: &mut Asker,
    qdiscs: &BTreeMap<u32, Vec<Qdisc>>,
) -> Result<BTreeMap<u32, Vec<TcFilter>>, NetlinkError> {
    let mut filters = BTreeMap::new();
    for (ifindex, list) in qdiscs {
        let mut found = Vec::new();
        for qdisc in list.iter().filter(|qdisc| !CLASSLESS.contains(&qdisc.kind.as_str())) {
            let clsact = [CLSACT_INGRESS, CLSACT_EGRESS];
            let parents = if qdisc.kind == "clsact" {
                &clsact[..]
            } else {
                &[qdisc.handle][..]
            };
            for parent in parents {
                found.extend(filters_of(asker, *ifindex, *parent)?);
            }
        }
        if !found.is_empty() {
            filters.insert(*ifindex, found);
        }
    }
    Ok(filters)
}

fn filters_of(asker: &mut Asker, ifindex: u32, parent: u32) -> Result<Vec<TcFilter>, NetlinkError> {
    let mut header = [0; TCMSG];
    header[4..8].copy_from_slice(&ifindex.to_ne_bytes());
    header[12..16].copy_from_slice(&parent.to_ne_bytes());
    let request = Request::new(RTM_GETTFILTER, DUMP, &header);
    unsupported_is_empty(
        asker.dump("tc filters", &request, |filters: &mut Vec<TcFilter>, message| {
            if let (RTM_NEWTFILTER, Some(mut filter)) = (message.kind, parse_filter(message)) {
                if u32_at(message.payload, 4) == Some(MAGIC_BLOCK) {
                    filter.parent = parent;
                }
                // The kernel lists each filter once as a table and then with each of its handles.
                if !filters.contains(&filter) {
                    if filter.name.is_some() {
                        filters.retain(|other| other.name.is_some() || other.priority != filter.priority);
                    }
                    filters.push(filter);
                }
            }
            Ok(())
        }),
    )
}

/// The link may have gone meanwhile, or the kernel may be without traffic control.
fn unsupported_is_empty<T: Default>(result: Result<T, NetlinkError>) -> Result<T, NetlinkError> {
    match result {
        Err(error)
            if matches!(
                error.refused(),
                Some(libc::EOPNOTSUPP | libc::ENODEV | libc::EINVAL | libc::ENOENT)
            ) =>
        {
            Ok(T::default())
        }
        other => other,
    }
}

/// Reads a message about a discipline: the link, and what is on it.
pub fn parse_qdisc(message: Message<'_>) -> Option<(u32, Qdisc)> {
    let kind = Attrs::after(message.payload, TCMSG).find(TCA_KIND)?.text();
    let qdisc = Qdisc {
        kind,
        handle: u32_at(message.payload, 8)?,
        parent: u32_at(message.payload, 12)?,
    };
    Some((u32_at(message.payload, 4)?, qdisc))
}

/// Reads a message about a filter.
pub fn parse_filter(message: Message<'_>) -> Option<TcFilter> {
    let attrs = Attrs::after(message.payload, TCMSG);
    let kind = attrs.find(TCA_KIND)?.text();
    let options = attrs.find(TCA_OPTIONS).filter(|_| kind == "bpf");
    Some(TcFilter {
        parent: u32_at(message.payload, 12)?,
        priority: u16::try_from(u32_at(message.payload, 16)? >> 16).ok()?,
        name: options
            .and_then(|options| options.nested().find(TCA_BPF_NAME))
            .map(Attr::text),
        kind,
    })
}
