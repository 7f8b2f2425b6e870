//! Docker's rules for its resolver in containers' network namespaces: taken out when the program on the loopback interface has
//! been shown to do what they do, and put back.
//!
//! nftables does each of both as one transaction, under the generation that was looked at: a rule that somebody adds meanwhile
//! makes it fail, and then it is looked at anew.

use std::{collections::BTreeMap, io, net::UdpSocket};

use aya::maps::{HashMap, MapData, MapError};
use netfast_common::{abi::map, net::Port, resolver::Ports};
use nix::errno::Errno;
use tracing::warn;

use crate::{
    apply::{ApplyError, AttachError, Datapath, attach::in_namespace},
    host::{InsideRules, ResolverRules},
    observe::{
        NetlinkError,
        inside::{CHAINS, InsideError, NEWTABLE, TABLE, chain_names, here},
        legacy,
        nftables::{NEWCHAIN, NEWRULE, SUBSYSTEM, generation},
    },
    plan::{Facts, Loopback},
    sys::netlink::{NLM_F_ACK, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REQUEST, NetlinkSocket, Request},
};

mod proof;

pub use proof::ProofError;

/// `NFNL_MSG_BATCH_BEGIN` and `NFNL_MSG_BATCH_END` (linux/netfilter/nfnetlink.h).
const BATCH_BEGIN: u16 = 16;
const BATCH_END: u16 = 17;
/// `NFNL_BATCH_GENID`.
const BATCH_GENID: u16 = 1;
/// `NFT_MSG_DELTABLE`.
const DELTABLE: u16 = SUBSYSTEM | 2;
/// `NFTA_TABLE_NAME`.
const NAME: u16 = 1;
/// `struct nfgenmsg` of IPv4.
const IPV4: [u8; 4] = [2, 0, 0, 0];
/// `NLM_F_APPEND` (linux/netlink.h).
const APPEND: u16 = 0x800;
/// How often a namespace whose rules change at the same moment is looked at anew.
const TRIES: usize = 5;

/// Why rules cannot be taken out or put back.
#[derive(Debug, thiserror::Error)]
pub enum ResolverError {
    /// The namespace is gone, or cannot be entered.
    #[error(transparent)]
    Enter(#[from] AttachError),
    /// Its rules cannot be read.
    #[error("its rules cannot be read")]
    Read(#[from] InsideError),
    /// The kernel refused.
    #[error(transparent)]
    Netlink(#[from] NetlinkError),
    /// What the program is told cannot be written.
    #[error("cannot access the map {}", map::RESOLVERS)]
    Map(#[source] Box<MapError>),
    /// The namespace has no number for the program.
    #[error("the network namespace has no cookie")]
    Cookie(#[source] io::Error),
    /// Names were not resolved through the program, so the rules stay, or are back.
    #[error("names are not resolved without Docker's rules")]
    Proof(#[from] ProofError),
    /// There are others now.
    #[error("its rules have changed")]
    Changed,
}

impl Datapath {
    /// What the plan was last told of the BPF subsystem and of the rules in containers.
    pub fn known_facts(&self) -> &Facts {
        &self.facts
    }

    /// Tells the plan which rules there are in the containers that matter.
    pub fn set_inside(&mut self, inside: BTreeMap<u64, InsideRules>) {
        self.facts.inside = inside;
    }

    /// Remembers what an earlier daemon has taken out, and has the program do it, which may be another one than that had.
    pub fn remember_resolvers(&mut self, taken: impl IntoIterator<Item = (Loopback, ResolverRules)>) {
        for (loopback, rules) in taken {
            let resolvers = &mut self.resolvers;
            match in_namespace(loopback.pid, loopback.netns, || tell(resolvers, &rules)) {
                Ok(cookie) => drop(self.cookies.insert(loopback.netns, cookie)),
                Err(ResolverError::Enter(AttachError::Gone)) => {}
                Err(error) => warn!("process {}: {:#}", loopback.pid, anyhow::Error::new(error)),
            }
            self.realized.resolvers.insert(loopback, rules);
        }
        // Namespaces that are gone since, while no daemon ran.
        let known: Vec<u64> = self.resolvers.keys().flatten().collect();
        for cookie in known {
            if !self.cookies.values().any(|kept| *kept == cookie) {
                let _not_there = self.resolvers.remove(&cookie);
            }
        }
    }

    /// Has the program do what the rules do, shows that it does, and takes them out. On an error they are as they were.
    pub(super) fn take_out(
        &mut self,
        loopback: Loopback,
        container: &str,
        rules: &ResolverRules,
    ) -> Result<(), ApplyError> {
        let (resolvers, cookies) = (&mut self.resolvers, &mut self.cookies);
        let done = in_namespace(loopback.pid, loopback.netns, || {
            cookies.insert(loopback.netns, tell(resolvers, rules)?);
            proof::of_datagrams(rules.udp, container)?;
            delete(rules)?;
            // The same with nothing else in between. Connections have no other proof; if it fails they are broken for these
            // milliseconds.
            match proof::without_rules(container) {
                Ok(()) => Ok(()),
                Err(error) => {
                    make(rules)?;
                    Err(error.into())
                }
            }
        });
        done.map_err(|source| ApplyError::Resolver {
            pid: loopback.pid,
            source,
        })
    }

    /// Puts the rules back, and lets the program do nothing any more.
    pub(super) fn put_back(&mut self, loopback: Loopback, rules: &ResolverRules) -> Result<(), ApplyError> {
        let done = in_namespace(loopback.pid, loopback.netns, || make(rules));
        if matches!(done, Ok(()) | Err(ResolverError::Enter(AttachError::Gone)))
            && let Some(cookie) = self.cookies.remove(&loopback.netns)
        {
            // With the rules there it does nothing, so what stays of it does no harm.
            let _not_there = self.resolvers.remove(&cookie);
        }
        match done {
            // With the namespace they are gone, too.
            Err(ResolverError::Enter(AttachError::Gone)) => Ok(()),
            done => done.map_err(|source| ApplyError::Resolver {
                pid: loopback.pid,
                source,
            }),
        }
    }

    /// The rules that are taken out.
    pub fn resolvers(&self) -> &BTreeMap<Loopback, ResolverRules> {
        &self.realized.resolvers
    }
}

/// Puts rules back without a daemon; `false`: the namespace is gone.
pub fn put_back(loopback: Loopback, rules: &ResolverRules) -> Result<bool, ResolverError> {
    match in_namespace(loopback.pid, loopback.netns, || make(rules)) {
        Err(ResolverError::Enter(AttachError::Gone)) => Ok(false),
        done => done.map(|()| true),
    }
}

/// Tells the program where the resolver of the calling thread's namespace listens; returns what the kernel calls that.
fn tell(resolvers: &mut HashMap<MapData, u64, Ports>, rules: &ResolverRules) -> Result<u64, ResolverError> {
    let ports = Ports {
        udp: Port::new(rules.udp),
        tcp: Port::new(rules.tcp),
    };
    let cookie = cookie()?;
    let written = resolvers.insert(cookie, ports, 0);
    written.map_err(|source| ResolverError::Map(Box::new(source)))?;
    Ok(cookie)
}

/// What the kernel calls the calling thread's namespace (`SO_NETNS_COOKIE`, Linux 5.14).
pub(super) fn cookie() -> Result<u64, ResolverError> {
    /// asm-generic/socket.h
    const SO_NETNS_COOKIE: i32 = 71;
    let read = || {
        let socket = legacy::datagrams(nix::sys::socket::AddressFamily::Inet)?;
        let mut cookie = [0; 8];
        legacy::getsockopt(&socket, libc::SOL_SOCKET, SO_NETNS_COOKIE, &mut cookie)?;
        Ok(u64::from_ne_bytes(cookie))
    };
    read().map_err(ResolverError::Cookie)
}

/// Deletes the rules in the calling thread's namespace, if they are still what there is.
fn delete(rules: &ResolverRules) -> Result<(), ResolverError> {
    let table = Request::new(DELTABLE, NLM_F_REQUEST | NLM_F_ACK, &IPV4).attr(NAME, &terminated(TABLE));
    for _ in 0..TRIES {
        let (found, generation) = here()?;
        if !matches!(&found, InsideRules::Resolver(found) if found.says_as(rules)) {
            return Err(ResolverError::Changed);
        }
        if transact(generation, vec![table.clone()])? {
            return Ok(());
        }
    }
    Err(ResolverError::Changed)
}

/// Makes them again in the calling thread's namespace, in front of all others, as Docker does. Where Docker's are nothing is
/// done: it has written others meanwhile, or they were never out.
fn make(rules: &ResolverRules) -> Result<(), ResolverError> {
    for _ in 0..TRIES {
        let mut socket = NetlinkSocket::netfilter()?;
        let generation = generation(&mut socket)?.unwrap_or_default();
        let there = chain_names(&mut socket)?;
        let is_there = |name: &str| there.iter().any(|found| found == name);
        if CHAINS.iter().any(|(_, own)| is_there(own)) {
            return Ok(());
        }
        let create = NLM_F_REQUEST | NLM_F_CREATE;
        let mut requests = vec![Request::new(NEWTABLE, create, &IPV4).attr(NAME, &terminated(TABLE))];
        for chain in rules.chains.iter().filter(|chain| !is_there(&chain.name)) {
            requests.push(Request::new(NEWCHAIN, create | NLM_F_EXCL, &IPV4).attrs(&chain.attributes));
        }
        let is_base = |name: &String| CHAINS.iter().any(|(base, _)| name == base);
        for (index, rule) in rules.rules.iter().enumerate() {
            let place = if is_base(&rule.chain) { 0 } else { APPEND };
            let last = if index + 1 == rules.rules.len() { NLM_F_ACK } else { 0 };
            requests.push(Request::new(NEWRULE, create | place | last, &IPV4).attrs(&rule.attributes));
        }
        if transact(generation, requests)? {
            return Ok(());
        }
    }
    Err(ResolverError::Changed)
}

/// Does all of this or nothing, if the rules are still of this generation; `false`: they are not.
fn transact(generation: u32, requests: Vec<Request>) -> Result<bool, ResolverError> {
    // The resource is the subsystem, in network order.
    let [high, low] = (SUBSYSTEM >> 8).to_be_bytes();
    let header = [0, 0, high, low];
    let begin = Request::new(BATCH_BEGIN, NLM_F_REQUEST, &header).attr(BATCH_GENID, &generation.to_be_bytes());
    let end = Request::new(BATCH_END, NLM_F_REQUEST, &header);
    let all: Vec<Request> = [begin].into_iter().chain(requests).chain([end]).collect();
    let mut socket = NetlinkSocket::netfilter()?;
    match socket.tell_all("Docker's rules for its resolver", &all) {
        Err(error) if error.refused() == Some(Errno::ERESTART as i32) => Ok(false),
        done => Ok(done.map(|()| true)?),
    }
}

fn terminated(text: &str) -> Vec<u8> {
    text.bytes().chain([0]).collect()
}

/// A socket of the calling thread's namespace, at a port of the loopback address that nobody has.
fn loopback_socket() -> io::Result<UdpSocket> {
    UdpSocket::bind((std::net::Ipv4Addr::LOCALHOST, 0))
}
