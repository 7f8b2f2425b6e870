//! iptables-legacy: tables as the kernel hands them out (`linux/netfilter_ipv4/ip_tables.h`), hashed without counters.
//!
//! Changes to them are not announced, so they are polled. A table is asked for only when it exists already, since
//! asking for one creates it, and that alone makes the kernel run its hooks.

use std::hash::{DefaultHasher, Hasher as _};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::{fs, io};

use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};

use crate::bytes::{text, u16_at, u32_at};

const TABLE_NAME: usize = 32;
pub const HOOKS: usize = 5;
/// `struct ipt_getinfo`: name, valid hooks, entry points, underflows, number of entries, size.
const INFO: usize = TABLE_NAME + 4 + 4 * HOOKS + 4 * HOOKS + 4 + 4;
/// `struct ipt_get_entries` before its entries, which are aligned to eight bytes.
const ENTRIES: usize = 40;
/// `IPT_SO_GET_INFO` and `IP6T_SO_GET_INFO`.
const SO_GET_INFO: i32 = 64;
/// `IPT_SO_GET_ENTRIES` and `IP6T_SO_GET_ENTRIES`.
const SO_GET_ENTRIES: i32 = 65;
/// How often a table that changes while it is read is read anew.
const TRIES: usize = 10;

/// The two kinds of tables, and where they differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// `ip_tables`.
    Ip,
    /// `ip6_tables`.
    Ip6,
}

/// Where things are in an entry: `struct ipt_entry`, `struct ip6t_entry`.
pub struct Layout {
    /// The interface names, 16 bytes each: in, out, and the mask of both.
    pub interfaces: usize,
    /// `proto`.
    pub protocol: usize,
    /// `invflags`; `flags` is the byte before.
    pub inversion: usize,
    /// Whether `flags` tells fragments (`IPT_F_FRAG`).
    pub has_fragments: bool,
    /// `target_offset`, and then `next_offset`.
    pub offsets: usize,
    /// `counters`, 16 bytes.
    counters: usize,
    /// The matches.
    pub matches: usize,
}

impl Family {
    /// As in findings and in the keys of hashes.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ip => "ip",
            Self::Ip6 => "ip6",
        }
    }

    /// Where things are in an entry.
    pub fn layout(self) -> Layout {
        match self {
            Self::Ip => Layout {
                interfaces: 16,
                protocol: 80,
                inversion: 83,
                has_fragments: true,
                offsets: 88,
                counters: 96,
                matches: 112,
            },
            Self::Ip6 => Layout {
                interfaces: 64,
                protocol: 128,
                inversion: 132,
                has_fragments: false,
                offsets: 140,
                counters: 152,
                matches: 168,
            },
        }
    }

    fn names(self) -> &'static str {
        match self {
            Self::Ip => "/proc/thread-self/net/ip_tables_names",
            Self::Ip6 => "/proc/thread-self/net/ip6_tables_names",
        }
    }

    /// A socket of the family, which belongs to the calling thread's namespace, and the level of its options. Any socket
    /// of the family will do (`nf_getsockopt`), and one for datagrams needs no `CAP_NET_RAW`.
    fn socket(self) -> io::Result<(OwnedFd, i32)> {
        let (family, level) = match self {
            Self::Ip => (AddressFamily::Inet, libc::IPPROTO_IP),
            Self::Ip6 => (AddressFamily::Inet6, libc::IPPROTO_IPV6),
        };
        Ok((datagrams(family)?, level))
    }
}

/// One table as the kernel keeps it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    /// Which kind of entries it has.
    pub family: Family,
    /// Its name.
    pub name: String,
    /// The offset of each hook's first entry, for the hooks that the table has.
    pub hooks: [Option<u32>; HOOKS],
    /// The entries, one after the other.
    pub entries: Vec<u8>,
}

/// One entry of a table, its lengths checked.
#[derive(Clone, Copy, Debug)]
pub struct Entry<'a> {
    /// Its place in the table.
    pub offset: usize,
    /// All its bytes.
    pub bytes: &'a [u8],
    /// Where its target begins.
    pub target: usize,
}

impl Table {
    /// Its key in hashes.
    pub fn key(&self) -> String {
        format!("{}/{}", self.family.name(), self.name)
    }

    /// The entries in order. It ends early at an entry whose lengths cannot be true.
    pub fn iter(&self) -> impl Iterator<Item = Entry<'_>> {
        let layout = self.family.layout();
        let mut offset = 0;
        std::iter::from_fn(move || {
            let rest = self.entries.get(offset..)?;
            let target = usize::from(u16_at(rest, layout.offsets)?);
            let len = usize::from(u16_at(rest, layout.offsets + 2)?);
            let entry = Entry {
                offset,
                bytes: rest.get(..len)?,
                target,
            };
            if target < layout.matches || target > len {
                return None;
            }
            offset += len;
            Some(entry)
        })
    }

    /// A hash of the rules. The packet and byte counters, which change with every packet, are left out.
    pub fn hash(&self) -> u64 {
        let counters = self.family.layout().counters;
        let mut hasher = DefaultHasher::new();
        for entry in self.iter() {
            // An entry that iter() lets through is longer than its fixed part.
            hasher.write(entry.bytes.get(..counters).unwrap_or_default());
            hasher.write(entry.bytes.get(counters + 16..).unwrap_or_default());
        }
        hasher.finish()
    }
}

/// Reads all tables that exist in the calling thread's namespace. Needs `CAP_NET_ADMIN` and, for the list of names,
/// `CAP_DAC_OVERRIDE` or root.
pub fn tables() -> io::Result<Vec<Table>> {
    let mut tables = Vec::new();
    for family in [Family::Ip, Family::Ip6] {
        let names = match fs::read_to_string(family.names()) {
            Ok(names) => names,
            // No iptables-legacy in this kernel, or none loaded.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        };
        if names.trim().is_empty() {
            continue;
        }
        let (fd, level) = family.socket()?;
        for name in names.split_whitespace() {
            tables.extend(read(family, name, &fd, level)?);
        }
    }
    Ok(tables)
}

/// Reads one table; `None` if it went away meanwhile.
fn read(family: Family, name: &str, fd: &OwnedFd, level: i32) -> io::Result<Option<Table>> {
    for _ in 0..TRIES {
        let mut info = [0; INFO];
        name.bytes()
            .take(TABLE_NAME - 1)
            .zip(&mut info)
            .for_each(|(byte, place)| *place = byte);
        match getsockopt(fd, level, SO_GET_INFO, &mut info) {
            Ok(()) => {}
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => return Ok(None),
            Err(error) => return Err(error),
        }
        let number = |index: usize| u32_at(&info, TABLE_NAME + 4 * index).unwrap_or(0);
        let size = number(2 * HOOKS + 2);
        let mut answer = vec![0; ENTRIES + size as usize];
        answer[..TABLE_NAME].copy_from_slice(&info[..TABLE_NAME]);
        answer[TABLE_NAME..TABLE_NAME + 4].copy_from_slice(&size.to_ne_bytes());
        match getsockopt(fd, level, SO_GET_ENTRIES, &mut answer) {
            Ok(()) => {
                let hooks = std::array::from_fn(|hook| (number(0) & 1 << hook != 0).then(|| number(1 + hook)));
                let entries = answer.split_off(ENTRIES);
                return Ok(Some(Table {
                    family,
                    name: text(name.as_bytes()),
                    hooks,
                    entries,
                }));
            }
            // Another size than a moment ago: it was replaced in between.
            Err(error) if matches!(error.raw_os_error(), Some(libc::EAGAIN | libc::EINVAL)) => {}
            Err(error) => return Err(error),
        }
    }
    Err(io::Error::other(format!(
        "iptables-legacy table {name} changed while being read, {TRIES} times in a row"
    )))
}

/// A socket for datagrams of a family.
pub fn datagrams(family: AddressFamily) -> io::Result<OwnedFd> {
    Ok(socket(family, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?)
}

/// Asks for an option of a socket, whose value it writes in place.
pub fn getsockopt(fd: &OwnedFd, level: i32, option: i32, value: &mut [u8]) -> io::Result<()> {
    let mut len = libc::socklen_t::try_from(value.len()).map_err(io::Error::other)?;
    // SAFETY: `value` is valid for writes of `len` bytes, which is its length, and `len` outlives the call.
    let code = unsafe { libc::getsockopt(fd.as_raw_fd(), level, option, value.as_mut_ptr().cast(), &raw mut len) };
    if code == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

#[cfg(test)]
pub mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A rule as the kernel hands it out: matches and target are name and data.
    pub fn entry(family: Family, matches: &[(&str, &[u8])], target: (&str, &[u8]), packets: u64) -> Vec<u8> {
        let layout = family.layout();
        let mut bytes = vec![0; layout.matches];
        let part = |(name, data): (&str, &[u8])| {
            let mut part = vec![0; 32];
            part[2..2 + name.len()].copy_from_slice(name.as_bytes());
            part.extend_from_slice(data);
            part.resize(part.len().next_multiple_of(8), 0);
            let len = u16::try_from(part.len()).expect("short");
            part[..2].copy_from_slice(&len.to_ne_bytes());
            part
        };
        for one in matches {
            bytes.extend(part(*one));
        }
        let target_offset = u16::try_from(bytes.len()).expect("short");
        bytes.extend(part(target));
        let len = u16::try_from(bytes.len()).expect("short");
        bytes[layout.offsets..layout.offsets + 2].copy_from_slice(&target_offset.to_ne_bytes());
        bytes[layout.offsets + 2..layout.offsets + 4].copy_from_slice(&len.to_ne_bytes());
        bytes[layout.counters..layout.counters + 8].copy_from_slice(&packets.to_ne_bytes());
        bytes[layout.counters + 8..layout.counters + 16].copy_from_slice(&(packets * 1500).to_ne_bytes());
        bytes
    }

    /// A filter table with these entries, of which the first is FORWARD's.
    pub fn table(family: Family, entries: &[Vec<u8>]) -> Table {
        let hooks = [None, None, Some(0), None, None];
        Table {
            family,
            name: "filter".into(),
            hooks,
            entries: entries.concat(),
        }
    }

    #[test]
    fn counters_do_not_enter_the_hash_and_all_else_does() {
        for family in [Family::Ip, Family::Ip6] {
            let accept = (-2i32).to_ne_bytes();
            let drop = (-1i32).to_ne_bytes();
            let one = |verdict: &[u8], packets| {
                table(family, &[entry(family, &[("limit", &[1, 2])], ("", verdict), packets)])
            };
            assert_eq!(one(&accept, 0).hash(), one(&accept, u64::from(u32::MAX)).hash());
            assert_ne!(one(&accept, 0).hash(), one(&drop, 0).hash());
            let mut entries = one(&accept, 7);
            let counters = family.layout().counters..family.layout().counters + 16;
            let hash = entries.hash();
            for index in 0..entries.entries.len() {
                entries.entries[index] ^= 1;
                assert_eq!(
                    entries.hash() == hash,
                    counters.contains(&index),
                    "{family:?} byte {index}"
                );
                entries.entries[index] ^= 1;
            }
        }
    }

    proptest! {
        #[test]
        fn any_bytes_end(bytes in proptest::collection::vec(any::<u8>(), 0..600), six in any::<bool>()) {
            let family = if six { Family::Ip6 } else { Family::Ip };
            let table = table(family, &[bytes]);
            prop_assert!(table.iter().count() <= table.entries.len());
            table.hash();
        }
    }
}
