//! Queueing disciplines and classic filters (`RTM_GETQDISC`, `RTM_GETTFILTER`, `linux/pkt_sched.h`).
//!
//! tcx programs are not here: they are BPF links, which the executor asks for.

use std::collections::BTreeMap;

use libc::{TCA_KIND, TCA_OPTIONS};

use crate::host::{Qdisc, TcFilter};
use crate::sys::netlink::rt::RouteNetlinkMessage::{GetQueueDiscipline, GetTrafficFilter};
use crate::sys::netlink::rt::{TcHeader, TcMessage};
use crate::sys::netlink::{Attr, Attrs, DUMP, Emitable as _, Malformed, Message, NetlinkError, NetlinkSocket, Request};

pub use libc::{RTM_DELQDISC, RTM_DELTFILTER, RTM_NEWQDISC, RTM_NEWTFILTER};

const TCA_BPF_NAME: u16 = 7;

/// `TC_H_ROOT` of `linux/pkt_sched.h`: the parent of what packets meet on the way out.
pub const ROOT: u32 = 0xffff_ffff;
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
pub fn qdiscs(socket: &mut NetlinkSocket) -> Result<BTreeMap<u32, Vec<Qdisc>>, NetlinkError> {
    let request = Request::of(&GetQueueDiscipline(TcMessage::default()), DUMP);
    unsupported_is_empty(socket.dump(
        "queueing disciplines",
        &request,
        |qdiscs: &mut BTreeMap<_, Vec<_>>, message| {
            if message.kind == RTM_NEWQDISC {
                let (ifindex, qdisc) = parse_qdisc(message)?;
                qdiscs.entry(ifindex).or_default().push(qdisc);
            }
            Ok(())
        },
    ))
}

/// Lists the filters of those disciplines that can hold any: a question each, so the usual ones are left out.
pub fn filters(
    socket: &mut NetlinkSocket,
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
                found.extend(filters_of(socket, *ifindex, *parent)?);
            }
        }
        if !found.is_empty() {
            filters.insert(*ifindex, found);
        }
    }
    Ok(filters)
}

fn filters_of(socket: &mut NetlinkSocket, ifindex: u32, parent: u32) -> Result<Vec<TcFilter>, NetlinkError> {
    let mut request = TcMessage::with_index(ifindex.cast_signed());
    request.header.parent = parent.into();
    let request = Request::of(&GetTrafficFilter(request), DUMP);
    unsupported_is_empty(
        socket.dump("tc filters", &request, |filters: &mut Vec<TcFilter>, message| {
            if message.kind == RTM_NEWTFILTER {
                let (place, mut filter) = parse_filter(message)?;
                // It is in a block, which several queueing disciplines may share, and the block's number is in the place
                // of the parent (`tcf_fill_node`, `net/sched/cls_api.c`).
                if place == TcHeader::TCM_IFINDEX_MAGIC_BLOCK {
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
pub fn parse_qdisc(message: Message<'_>) -> Result<(u32, Qdisc), Malformed> {
    let (header, attrs) = split(message)?;
    let qdisc = Qdisc {
        kind: kind(attrs)?,
        handle: header.handle.into(),
        parent: header.parent.into(),
    };
    Ok((header.index.cast_unsigned(), qdisc))
}

/// Reads a message about a filter: the link, and what is on it.
pub fn parse_filter(message: Message<'_>) -> Result<(u32, TcFilter), Malformed> {
    let (header, attrs) = split(message)?;
    let kind = kind(attrs)?;
    // The options of other kinds need not be attributes.
    let name = if kind == "bpf" {
        attrs.inside(TCA_OPTIONS)?.find(TCA_BPF_NAME).map(Attr::text)
    } else {
        None
    };
    let filter = TcFilter {
        parent: header.parent.into(),
        priority: u16::try_from(header.info >> 16).unwrap_or_default(),
        name,
        kind,
    };
    Ok((header.index.cast_unsigned(), filter))
}

fn split(message: Message<'_>) -> Result<(TcHeader, Attrs<'_>), Malformed> {
    let header = TcHeader::parse(message.payload)?;
    let attrs = Attrs::after(message.payload, header.buffer_len())?;
    Ok((header, attrs))
}

fn kind(attrs: Attrs<'_>) -> Result<String, Malformed> {
    Ok(attrs.need(TCA_KIND, "the kind")?.text())
}
