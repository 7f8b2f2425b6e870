//! ebtables-legacy: tables as the kernel hands them out (`linux/netfilter_bridge/ebtables.h`), for kernels with
//! `CONFIG_BRIDGE_NF_EBTABLES_LEGACY`. ebtables-nft writes to `nf_tables` instead.
//!
//! Changes to them are not announced, so they are polled. Since Linux 5.15 asking for a table creates it, and nothing tells
//! which there are; so one is asked for only where its module is loaded, which nobody but ebtables-legacy does.

use std::hash::{DefaultHasher, Hasher as _};
use std::os::fd::OwnedFd;
use std::{fs, io};

use nix::sys::socket::AddressFamily;

use super::legacy::{datagrams, getsockopt};
use crate::bytes::u32_at;

/// `NF_BR_NUMHOOKS`.
const HOOKS: usize = 6;
/// The tables that there can be.
const NAMES: [&str; 3] = ["filter", "nat", "broute"];
/// `EBT_SO_GET_INFO`.
const SO_GET_INFO: i32 = 128;
/// `EBT_SO_GET_ENTRIES`.
const SO_GET_ENTRIES: i32 = 129;
/// `struct ebt_replace` of 64-bit kernels: name, valid hooks, number of entries, size of entries, a pointer for each hook,
/// number of counters, pointers to counters and entries.
const REPLACE: usize = 120;
const VALID_HOOKS: usize = 32;
const ENTRY_COUNT: usize = 36;
const ENTRIES_SIZE: usize = 40;
const ENTRIES_POINTER: usize = 112;
/// How often a table that changes while it is read is read anew.
const TRIES: usize = 10;

/// One table as the kernel keeps it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    /// Its name.
    pub name: String,
    /// A bit for each hook that it has (`NF_BR_*`).
    pub hooks: u32,
    /// Its chains, each with its rules. Counters are elsewhere.
    pub entries: Vec<u8>,
}

impl Table {
    /// Its key in hashes.
    pub fn key(&self) -> String {
        format!("bridge/{}", self.name)
    }

    /// A hash of the rules.
    pub fn hash(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        hasher.write_u32(self.hooks);
        hasher.write(&self.entries);
        hasher.finish()
    }

    /// The hooks that it has, in the order of its first chains.
    pub fn hooks(&self) -> impl Iterator<Item = u32> {
        let hooks = self.hooks;
        (0u32..).take(HOOKS).filter(move |hook| hooks >> hook & 1 != 0)
    }
}

/// Reads all tables whose modules are loaded, of the calling thread's namespace. Needs `CAP_NET_ADMIN`.
pub fn tables() -> io::Result<Vec<Table>> {
    // A name for each line. Where they are built in there are none, and then distributions do not have ebtables-legacy.
    let modules = match fs::read_to_string("/proc/modules") {
        Ok(modules) => modules,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let names: Vec<_> = loaded(&modules).collect();
    if names.is_empty() {
        return Ok(Vec::new());
    }
    let fd = datagrams(AddressFamily::Inet)?;
    let mut tables = Vec::new();
    for name in names {
        tables.extend(read(name, &fd)?);
    }
    Ok(tables)
}

/// The tables whose modules are listed.
fn loaded(modules: &str) -> impl Iterator<Item = &'static str> {
    let is_loaded = |name: &str| {
        let mut names = modules.lines().filter_map(|line| line.split_whitespace().next());
        names.any(|module| module.strip_prefix("ebtable_") == Some(name))
    };
    NAMES.into_iter().filter(move |name| is_loaded(name))
}

/// Reads one table; `None` if there is none.
fn read(name: &str, fd: &OwnedFd) -> io::Result<Option<Table>> {
    for _ in 0..TRIES {
        let mut info = [0; REPLACE];
        info[..name.len()].copy_from_slice(name.as_bytes());
        match getsockopt(fd, libc::IPPROTO_IP, SO_GET_INFO, &mut info) {
            Ok(()) => {}
            Err(error) if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ENOPROTOOPT)) => return Ok(None),
            Err(error) => return Err(error),
        }
        let number = |place| u32_at(&info, place).unwrap_or(0);
        let (hooks, size) = (number(VALID_HOOKS), number(ENTRIES_SIZE) as usize);
        // The kernel compares the numbers, and the length with their sum: it refuses if the table is another by now. With
        // no place for counters it writes none. It writes the entries where it is told, here behind the structure.
        let mut answer = vec![0; REPLACE + size];
        let place = answer[REPLACE..].as_mut_ptr() as u64;
        answer[..name.len()].copy_from_slice(name.as_bytes());
        answer[ENTRY_COUNT..ENTRIES_SIZE + 4].copy_from_slice(&info[ENTRY_COUNT..ENTRIES_SIZE + 4]);
        answer[ENTRIES_POINTER..REPLACE].copy_from_slice(&place.to_ne_bytes());
        match getsockopt(fd, libc::IPPROTO_IP, SO_GET_ENTRIES, &mut answer) {
            Ok(()) => {
                return Ok(Some(Table {
                    name: name.to_owned(),
                    hooks,
                    entries: answer.split_off(REPLACE),
                }));
            }
            Err(error) if matches!(error.raw_os_error(), Some(libc::EAGAIN | libc::EINVAL)) => {}
            Err(error) => return Err(error),
        }
    }
    Err(io::Error::other(format!(
        "ebtables-legacy table {name} changed while being read, {TRIES} times in a row"
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_tables_whose_modules_are_loaded() {
        let modules =
            "ebtable_nat 16384 1 - Live 0x0\nebtables 40960 1 ebtable_nat, Live 0x0\nebtable_filter 1 0 - Live 0x0\n";
        assert_eq!(loaded(modules).collect::<Vec<_>>(), ["filter", "nat"]);
        assert_eq!(loaded("ebtables 40960 0 - Live 0x0\n").count(), 0);
    }

    #[test]
    fn hooks_and_hashes() {
        let table = Table {
            name: "nat".into(),
            hooks: 0b11_0001,
            entries: vec![1, 2, 3],
        };
        assert_eq!(table.hooks().collect::<Vec<_>>(), [0, 4, 5]);
        assert_eq!(table.key(), "bridge/nat");
        let mut other = table.clone();
        other.entries[2] = 4;
        assert_ne!(table.hash(), other.hash());
    }
}
