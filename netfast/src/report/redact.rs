//! Takes out of texts what tells whose host they are about, for reports that strangers read.
//!
//! It works by what is known to be harmless, not by what is known to be secret: words stay that netfast's own messages
//! use, numbers, names of interfaces as kernels and engines make them, and private addresses of IPv4. Whatever else
//! looks like a word becomes `word-1`, `word-2`, …: names of containers that nobody knows any more are in old log lines,
//! and names of chains and hosts may be anything. Names that are known, public addresses, MAC addresses and identifiers
//! get pseudonyms that say what they are. The same thing has the same pseudonym in everything that one [`Redactor`]
//! has read.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::LazyLock,
};

mod scan;
#[cfg(test)]
mod tests;

use scan::{alphanumeric, is_interface, name};

/// What a pseudonym stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// A container's name.
    Container,
    /// A network's name.
    Network,
    /// A name that several containers share.
    Alias,
    /// The host's name.
    Host,
    /// A value of a label.
    Label,
    /// An identifier of a container, a network, or the like.
    Id,
    /// A public address of IPv4.
    Ipv4,
    /// An address of IPv6.
    Ipv6,
    /// A MAC address.
    Mac,
    /// Anything else.
    Word,
}

impl Kind {
    const fn prefix(self) -> &'static str {
        match self {
            Self::Container => "container",
            Self::Network => "network",
            Self::Alias => "alias",
            Self::Host => "host",
            Self::Label => "label",
            Self::Id => "id",
            Self::Ipv4 => "ipv4",
            Self::Ipv6 => "ipv6",
            Self::Mac => "mac",
            Self::Word => "word",
        }
    }
}

/// Names that say nothing of anybody, whoever has them: Docker's own networks, and netfast in a container.
const NOBODYS: [&str; 6] = ["bridge", "host", "none", "default", "localhost", "netfast"];

/// Digits of an identifier that people know it by.
const ID_DIGITS: usize = 12;

/// The words of netfast's messages, a line each; the test `the_words_are_those_of_the_messages` compares and writes them.
const OWN_WORDS: &str = include_str!("redact/words.txt");

/// Words of others that its reports repeat: names of chains that engines and firewalls make, of distributions, drivers,
/// and what the service manager says of a service.
const WORDS_OF_OTHERS: &str = "\
    accept acct after allow alma almalinux alpine amd amd64 arch arm arm64 aws azure bepo before bookworm bpo br brctl bridge \
    broute bullseye cali cali- ce centos cloud cni community conntrack container ct data deactivated deb debian default \
    device dnat docker dockerd drop ebtables ee el engine enp eth ether exited external fc fedora filter firewalld flannel \
    for forky forward forwarding gcp generic gentoo gnu hairpin host icmp in ingress input internal invalid io ip ipvlan \
    ipvs isolation killed kube kubernetes legacy limit linux local lockdown logging lts main macvlan mangle masq \
    masquerade mesh microsoft moby nat netavark netdev nft nftables nixos noble none not notify opensuse oracle output \
    overlay pasta podman policy postrouting pre prerouting process proxy pve raw redhat reject reload result rhel rocky \
    rootless router rt rules runc security service services signal skip slirp snat stage started starting state status \
    stopped stopping suse swarm systemd tcp track trixie ubuntu udp ufw unit user veth virbr vxlan with wsl x86";

static WORDS: LazyLock<BTreeSet<String>> = LazyLock::new(|| {
    // What errno(3) says, in this machine's words.
    let errors = (1..=133).map(|number| io::Error::from_raw_os_error(number).to_string());
    let errors: Vec<String> = errors.collect();
    let texts = errors.iter().map(String::as_str).chain([OWN_WORDS, WORDS_OF_OTHERS]);
    texts.flat_map(scan::words).collect()
});

/// Gives pseudonyms.
#[derive(Debug, Default)]
pub struct Redactor {
    /// Names that are known, in lower case, by their first character; the longest first.
    known: BTreeMap<char, Vec<(String, Kind)>>,
    given: BTreeMap<(Kind, String), String>,
    last: BTreeMap<Kind, usize>,
}

impl Redactor {
    /// Makes a name known.
    pub fn know(&mut self, kind: Kind, name: &str) {
        let name = name.trim().to_ascii_lowercase();
        let Some(first) = name.chars().next() else { return };
        // `true`, `1`: a value that is one word of the messages, or a number, would be replaced all over the text.
        let is_word = kind == Kind::Label && alphanumeric(&name) == name && is_harmless(&name);
        if is_word || NOBODYS.contains(&name.as_str()) {
            return;
        }
        let names = self.known.entry(first).or_default();
        if names.iter().any(|(known, _)| *known == name) {
            return;
        }
        names.push((name, kind));
        names.sort_by_key(|(name, _)| std::cmp::Reverse(name.len()));
    }

    /// How many names are known.
    pub fn names(&self) -> usize {
        self.known.values().map(Vec::len).sum()
    }

    /// The text with pseudonyms.
    pub fn redact(&mut self, text: &str) -> String {
        let mut redacted = String::with_capacity(text.len());
        let mut before = ' ';
        let mut rest = text;
        while let Some(first) = rest.chars().next() {
            let found = self.find(first, before, rest).unwrap_or(Found {
                // What is harmless goes on as far as nothing else can begin.
                length: alphanumeric(rest).len().max(first.len_utf8()),
                secret: None,
            });
            let (read, left) = rest.split_at(found.length);
            match found.secret {
                Some((kind, key)) => redacted.push_str(&self.pseudonym(kind, key)),
                None => redacted.push_str(read),
            }
            before = read.chars().next_back().unwrap_or(' ');
            rest = left;
        }
        redacted
    }

    /// What `rest` begins with, if that is not to be looked at letter by letter.
    fn find(&self, first: char, before: char, rest: &str) -> Option<Found> {
        if before.is_alphanumeric() && first.is_alphanumeric() {
            return None;
        }
        let secret = |length, kind, key: String| Found {
            length,
            secret: Some((kind, key)),
        };
        if let Some((known, kind)) = self.known_at(first, rest) {
            return Some(secret(known.len(), kind, known.to_owned()));
        }
        if let Some((length, mac)) = scan::mac(rest) {
            return Some(if is_nobodys_mac(&mac) {
                Found { length, secret: None }
            } else {
                secret(length, Kind::Mac, mac)
            });
        }
        if let Some((length, address)) = scan::address(rest) {
            let key = address.to_string();
            return Some(match address {
                _ if is_nobodys(address) => Found { length, secret: None },
                IpAddr::V4(_) => secret(length, Kind::Ipv4, key),
                IpAddr::V6(_) => secret(length, Kind::Ipv6, key),
            });
        }
        if !first.is_alphanumeric() {
            return None;
        }
        let run = alphanumeric(rest);
        if scan::is_identifier(run) {
            return Some(secret(run.len(), Kind::Id, run[..ID_DIGITS].to_ascii_lowercase()));
        }
        let name = name(rest);
        // An identifier within a name (`br-0123456789ab`) gets its pseudonym when it is reached.
        let is_known = is_interface(name) || scan::runs(name).all(|run| is_harmless(run) || scan::is_identifier(run));
        (!is_known || scan::is_dashed_address(name)).then(|| secret(name.len(), Kind::Word, name.to_lowercase()))
    }

    fn known_at(&self, first: char, rest: &str) -> Option<(&str, Kind)> {
        let names = self.known.get(&first.to_ascii_lowercase())?;
        let is_here = |name: &str| {
            rest.get(..name.len())
                .is_some_and(|here| here.eq_ignore_ascii_case(name))
                && !rest[name.len()..].chars().next().is_some_and(char::is_alphanumeric)
        };
        let found = names.iter().find(|(name, _)| is_here(name))?;
        Some((&found.0, found.1))
    }

    fn pseudonym(&mut self, kind: Kind, key: String) -> String {
        let last = self.last.entry(kind).or_default();
        let given = self.given.entry((kind, key)).or_insert_with(|| {
            *last += 1;
            format!("{}-{last}", kind.prefix())
        });
        given.clone()
    }
}

/// What a text begins with.
struct Found {
    length: usize,
    /// What needs a pseudonym, and what it is known by; `None`: it stays.
    secret: Option<(Kind, String)>,
}

/// Letters and digits without anything between them that say nothing: words of the messages, units, numbers.
fn is_harmless(run: &str) -> bool {
    let (mut numbers, mut was_digit) = (0, false);
    for c in run.chars() {
        let is_digit = c.is_ascii_digit();
        numbers += usize::from(is_digit && !was_digit);
        was_digit = is_digit;
    }
    let mut letters = run.split(|c: char| c.is_ascii_digit());
    let is_word = |word: &str| word.len() <= 1 || WORDS.contains(&word.to_ascii_lowercase());
    // `0x01020304` is an address, too.
    let is_hexadecimal = run.len() > 6 && run.starts_with("0x");
    numbers <= 2 && !is_hexadecimal && run.is_ascii() && letters.all(is_word)
}

/// Whether so many have an address that it tells nothing: private ones (RFC 1918, RFC 6598), those for tests and within a
/// link or host. Those of IPv6 often have a MAC address in them.
fn is_nobodys(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(ip) => {
            let [a, b, ..] = ip.octets();
            ip.is_private()
                || ip.is_loopback()
                || ip.is_unspecified()
                || ip.is_broadcast()
                || ip.is_link_local()
                || ip.is_multicast()
                || (a == 100 && b & 0xc0 == 64)
                || (a == 198 && b & 0xfe == 18)
                || a == 0
                || netmask(ip)
        }
        IpAddr::V6(ip) => ip == Ipv6Addr::UNSPECIFIED || ip == Ipv6Addr::LOCALHOST,
    }
}

fn is_nobodys_mac(mac: &str) -> bool {
    ["00:00:00:00:00:00", "ff:ff:ff:ff:ff:ff"].contains(&mac)
}

fn netmask(ip: Ipv4Addr) -> bool {
    ip.to_bits().leading_ones() >= 8 && ip.to_bits().count_zeros() == ip.to_bits().trailing_zeros()
}
