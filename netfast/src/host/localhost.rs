//! What stands between the host's programs and the containers' published ports at loopback addresses: docker-proxy, and the
//! rules that judge the host's own packets.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
};

use super::{IpNet, Protocol};

/// A socket that docker-proxy listens on, as its command line tells of it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Proxy {
    /// The process.
    pub pid: u32,
    /// The socket's inode: what the process is known again by.
    pub inode: u64,
    /// TCP or UDP.
    pub protocol: Protocol,
    /// What it listens on.
    pub listens: SocketAddr,
    /// Where it connects to.
    pub target: SocketAddr,
}

/// What was seen of it all, at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Localhost {
    /// Why the kernel or the host's cgroups have no place for it, if they have not.
    pub off: Option<String>,
    /// The sockets of docker-proxy in this network namespace.
    pub proxies: Vec<Proxy>,
    /// The rules for the host's own packets, or why they cannot be read.
    pub rules: Result<HostRules, String>,
    /// A program of somebody else's on the loopback interface's tcx hooks, by name.
    pub on_loopback: Option<String>,
}

impl Default for Localhost {
    fn default() -> Self {
        Self {
            off: None,
            proxies: Vec::new(),
            rules: Ok(HostRules::default()),
            on_loopback: None,
        }
    }
}

/// A chain: its source and family, its table, its name.
pub type ChainName = (String, String, String);

/// The rules of the chains of iptables and nftables, as plain as they are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HostRules {
    /// Those that hooks lead to.
    pub bases: Vec<BaseChain>,
    /// The rules by chain.
    pub chains: BTreeMap<ChainName, Vec<Rule>>,
}

/// A chain that a hook leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BaseChain {
    /// Which.
    pub name: ChainName,
    /// The hook's number (`NF_INET_*`).
    pub hook: u32,
    /// Whether it is asked about the first packet of each connection only.
    pub is_nat: bool,
    /// Whether it drops what no rule of it decided.
    pub drops: bool,
}

/// One rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// What packets it is for: all of these hold.
    pub matches: Vec<Match>,
    /// What it does with them.
    pub effect: Effect,
    /// Its place in the chain, or nftables' handle.
    pub number: u64,
}

/// One condition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Match {
    /// What is looked at.
    pub field: Field,
    /// Whether it is met by what is otherwise.
    pub negated: bool,
}

/// What a condition looks at, and what it must be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Field {
    /// The interface that a packet came by; with the name's beginning alone, if `is_prefix`.
    Incoming {
        /// The name.
        name: String,
        /// Whether more may follow.
        is_prefix: bool,
    },
    /// The interface that it leaves by.
    Outgoing {
        /// The name.
        name: String,
        /// Whether more may follow.
        is_prefix: bool,
    },
    /// Its protocol, by IANA's number.
    Protocol(u8),
    /// IPv4, or else IPv6.
    IsV4(bool),
    /// Its source address.
    Source(IpNet),
    /// Its destination address.
    Destination(IpNet),
    /// Its source port, from and to.
    SourcePort(u16, u16),
    /// Its destination port, from and to.
    DestinationPort(u16, u16),
    /// Something that depends on who sends it: the owner, the cgroup, a mark of the socket.
    Sender(String),
    /// Something else.
    Other(String),
}

/// What a rule does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Nothing to the packet: it counts or logs.
    None,
    /// Lets it pass.
    Accept,
    /// Goes back to the chain that led here.
    Return,
    /// Asks another chain, and goes on if that decides nothing.
    Jump(String),
    /// Asks another chain instead.
    Goto(String),
    /// Drops, changes or marks it, or does what is not known; in words.
    Acts(String),
}

impl Proxy {
    /// Whether it is asked by whoever connects to an address.
    pub fn listens_at(&self, address: IpAddr) -> bool {
        let own = self.listens.ip();
        own.is_ipv4() == address.is_ipv4() && (own == address || own.is_unspecified())
    }
}
