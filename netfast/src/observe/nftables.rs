//! nftables over nfnetlink (`linux/netfilter/nf_tables.h`): the generation, the base chains, and notifications.
//!
//! iptables-nft writes here too. Numbers in attributes are in network order.

use std::collections::BTreeSet;
use std::time::Duration;

use super::change::{Change, Hints};
use crate::host::NftChain;
use crate::sys::netlink::{
    Attr, Attrs, DUMP, Malformed, Message, NLM_F_REQUEST, NetlinkError, NetlinkSocket, Request, Watcher,
};

pub const SUBSYSTEM: u16 = 10 << 8;
pub const NEWRULE: u16 = SUBSYSTEM | 6;
pub const GETRULE: u16 = SUBSYSTEM | 7;
pub const NEWCHAIN: u16 = SUBSYSTEM | 3;
pub const GETCHAIN: u16 = SUBSYSTEM | 4;
pub const NEWSET: u16 = SUBSYSTEM | 9;
pub const GETSET: u16 = SUBSYSTEM | 0xa;
pub const NEWSETELEM: u16 = SUBSYSTEM | 0xc;
pub const GETSETELEM: u16 = SUBSYSTEM | 0xd;
const GETGEN: u16 = SUBSYSTEM | 16;
/// `struct nfgenmsg`: family, version, resource. Family 0 asks for all.
pub const NFGENMSG: usize = 4;
/// `NFNLGRP_NFTABLES` is group 7.
const GROUP: u32 = 1 << (7 - 1);

const NFTA_GEN_ID: u16 = 1;
const NFTA_CHAIN_TABLE: u16 = 1;
const NFTA_CHAIN_NAME: u16 = 3;
const NFTA_CHAIN_HOOK: u16 = 4;
const NFTA_CHAIN_POLICY: u16 = 5;
const NFTA_CHAIN_TYPE: u16 = 7;
const NFTA_HOOK_HOOKNUM: u16 = 1;
const NFTA_HOOK_PRIORITY: u16 = 2;
const NFTA_HOOK_DEV: u16 = 3;
const NFTA_HOOK_DEVS: u16 = 4;

/// The current generation of the calling thread's namespace; `None` when the kernel has no `nf_tables`.
pub fn generation(socket: &mut NetlinkSocket) -> Result<Option<u32>, NetlinkError> {
    let request = Request::new(GETGEN, NLM_F_REQUEST, &[0; NFGENMSG]);
    let answer = socket.ask("the nftables generation", &request, |message| {
        let attrs = Attrs::after(message.payload, NFGENMSG)?;
        attrs.need(NFTA_GEN_ID, "the number")?.be32()
    });
    match answer {
        Ok(generation) => Ok(Some(generation)),
        // What nfnetlink says of a subsystem that it does not have.
        Err(error)
            if matches!(
                error.refused(),
                Some(libc::EINVAL | libc::EOPNOTSUPP | libc::EPROTONOSUPPORT)
            ) =>
        {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// The base chains of all families.
pub fn chains(socket: &mut NetlinkSocket) -> Result<BTreeSet<NftChain>, NetlinkError> {
    let request = Request::new(GETCHAIN, DUMP, &[0; NFGENMSG]);
    socket.dump("nftables chains", &request, |chains: &mut BTreeSet<_>, message| {
        if message.kind == NEWCHAIN {
            chains.extend(parse_chain(message)?);
        }
        Ok(())
    })
}

/// Reads a chain message; `None` for a chain that is not hooked.
pub fn parse_chain(message: Message<'_>) -> Result<Option<NftChain>, Malformed> {
    const NF_DROP: u32 = 0;
    let attrs = Attrs::after(message.payload, NFGENMSG)?;
    let (table, name) = (
        attrs.need(NFTA_CHAIN_TABLE, "the table")?,
        attrs.need(NFTA_CHAIN_NAME, "the name")?,
    );
    let Some(hook) = attrs.find(NFTA_CHAIN_HOOK) else {
        return Ok(None);
    };
    let hook = hook.nested()?;
    let devices = hook.inside(NFTA_HOOK_DEVS)?;
    let is_one = devices.iter().count() <= 1;
    Ok(Some(NftChain {
        family: family(message.payload[0]),
        table: table.text(),
        name: name.text(),
        kind: attrs.find(NFTA_CHAIN_TYPE).map(Attr::text).unwrap_or_default(),
        hook: hook.need(NFTA_HOOK_HOOKNUM, "the hook")?.be32()?,
        priority: hook.need(NFTA_HOOK_PRIORITY, "the priority")?.be32()?.cast_signed(),
        device: hook
            .find(NFTA_HOOK_DEV)
            .or_else(|| devices.iter().next())
            .filter(|_| is_one)
            .map(Attr::text),
        policy_drop: attrs.find(NFTA_CHAIN_POLICY).map(Attr::be32).transpose()? == Some(NF_DROP),
    }))
}

/// The name of a netfilter family (`NFPROTO_*`).
pub fn family(number: u8) -> String {
    match number {
        1 => "inet".into(),
        2 => "ip".into(),
        3 => "arp".into(),
        5 => "netdev".into(),
        7 => "bridge".into(),
        10 => "ip6".into(),
        other => format!("family {other}"),
    }
}

/// Opens the socket; notifications are kept from now on.
pub fn open() -> Result<Watcher, NetlinkError> {
    Watcher::netfilter(GROUP)
}

/// Leaves [`Change::Ruleset`] for each transaction, for ever.
///
/// Every transaction is announced, object by object and then with the new generation; what it changed does not
/// matter here. Packets that add to a set or count announce nothing; a quota that runs out does.
pub async fn run(mut watcher: Watcher, hints: Hints) {
    loop {
        let mut ours = false;
        match watcher
            .receive(|message| {
                ours |= message.kind & 0xff00 == SUBSYSTEM;
                Ok(())
            })
            .await
        {
            Ok(()) => {}
            // Lost notifications are notifications.
            Err(NetlinkError::Overflow) => ours = true,
            Err(error) => {
                tracing::warn!(%error, "nftables notifications");
                tokio::time::sleep(Duration::from_secs(1)).await;
                ours = true;
            }
        }
        if ours {
            hints.send(Change::Ruleset);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::netlink::{Messages, NLA_F_NESTED};

    /// A chain with these attributes.
    fn read(attributes: &[(u16, &[u8])]) -> Result<Option<NftChain>, Malformed> {
        let request = attributes
            .iter()
            .fold(Request::new(NEWCHAIN, 0, &[2, 0, 0, 0]), |request, (kind, payload)| {
                request.attr(*kind, payload)
            });
        let bytes = request.finish(0);
        parse_chain(Messages(&bytes).next().expect("one message")?)
    }

    #[test]
    fn a_chain_without_what_is_needed_is_an_error() {
        let (table, name) = ((NFTA_CHAIN_TABLE, &b"t\0"[..]), (NFTA_CHAIN_NAME, &b"c\0"[..]));
        // NFTA_HOOK_HOOKNUM 2, NFTA_HOOK_PRIORITY -100
        let hook = [8, 0, 1, 0, 0, 0, 0, 2, 8, 0, 2, 0, 0xff, 0xff, 0xff, 0x9c];
        let hooked = |hook| (NFTA_CHAIN_HOOK | NLA_F_NESTED, hook);
        let chain = read(&[table, name, hooked(&hook[..])])
            .expect("whole")
            .expect("a base chain");
        assert_eq!((chain.hook, chain.priority, chain.policy_drop), (2, -100, false));
        assert_eq!(read(&[table, name]), Ok(None), "not hooked");
        for (what, attributes) in [
            ("no table", &[name, hooked(&hook[..])][..]),
            ("no name", &[table, hooked(&hook[..])]),
            ("no priority", &[table, name, hooked(&hook[..8])]),
            ("no hook", &[table, name, hooked(&hook[8..])]),
            ("a lie about the hook", &[table, name, hooked(&[200, 0, 1, 0])]),
            (
                "half a policy",
                &[table, name, hooked(&hook[..]), (NFTA_CHAIN_POLICY, &[0, 0])],
            ),
        ] {
            assert!(read(attributes).is_err(), "{what}");
        }
    }
}
