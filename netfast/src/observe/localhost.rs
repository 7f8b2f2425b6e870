//! What stands between the host's programs and published ports at loopback addresses; read only where somebody has asked for it
//! (the key `localhost`).

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
};

use crate::{
    host::{BaseChain, HostRules},
    observe::{
        legacy as tables,
        nftables::{self, GETRULE, NEWRULE, NFGENMSG},
        rules::RulesError,
    },
    sys::netlink::{DUMP, NetlinkSocket, Request},
};

pub mod cgroups;
mod legacy;
mod nft;
mod proxies;

pub use proxies::{ProxyError, proxies, socket_of};

/// Where cgroup version 2 is mounted, or why the sockets of this host's programs cannot be told apart by it.
pub fn cgroup_root() -> Result<PathBuf, String> {
    let mounts =
        fs::read_to_string("/proc/self/mountinfo").map_err(|error| format!("cannot read the mounts: {error}"))?;
    root_in(&mounts)
}

fn root_in(mounts: &str) -> Result<PathBuf, String> {
    let mut root = None;
    // proc_pid_mountinfo(5): ID PARENT MAJOR:MINOR ROOT PLACE OPTIONS TAGS... - TYPE SOURCE OPTIONS
    for (mount, kind) in mounts.lines().filter_map(|line| line.split_once(" - ")) {
        let mut words = kind.split(' ');
        let (kind, options) = (words.next().unwrap_or_default(), words.nth(1).unwrap_or_default());
        let is_of_packets = options
            .split(',')
            .any(|option| option == "net_cls" || option == "net_prio");
        if kind == "cgroup" && is_of_packets {
            return Err(format!(
                "cgroup version 1 tells packets of programs apart here (net_cls or net_prio is mounted: {options})"
            ));
        }
        let place = mount.split(' ').nth(4).filter(|place| !place.contains('\\'));
        if kind == "cgroup2" && root.is_none() {
            root = place.map(PathBuf::from);
        }
    }
    root.ok_or_else(|| "cgroup version 2 is not mounted here".into())
}

/// The rules for the host's own packets, of nftables and iptables-legacy, in the calling thread's namespace.
pub fn rules() -> Result<HostRules, RulesError> {
    let mut rules = HostRules::default();
    for table in tables::tables().map_err(RulesError::Legacy)? {
        legacy::read(&table, &mut rules);
    }
    let mut socket = NetlinkSocket::netfilter()?;
    if nftables::generation(&mut socket)?.is_none() {
        return Ok(rules);
    }
    for chain in nftables::chains(&mut socket)? {
        if ["ip", "ip6", "inet"].contains(&chain.family.as_str()) {
            rules.bases.push(BaseChain {
                name: (chain.family, chain.table, chain.name),
                hook: chain.hook,
                is_nat: chain.kind == "nat",
                drops: chain.policy_drop,
            });
        }
    }
    let request = Request::new(GETRULE, DUMP, &[0; NFGENMSG]);
    let found = socket.dump("nftables rules", &request, |found: &mut Vec<_>, message| {
        if message.kind == NEWRULE {
            found.push(nft::parse(message)?);
        }
        Ok(())
    })?;
    for (chain, rule) in found {
        rules.chains.entry(chain).or_default().push(rule);
    }
    Ok(rules)
}

/// The cgroups below this one, it included, by their numbers (the inodes of their directories).
pub fn cgroups_below(root: &Path) -> io::Result<BTreeMap<u64, PathBuf>> {
    use std::os::unix::fs::MetadataExt as _;
    let mut found = BTreeMap::new();
    let mut left = vec![root.to_path_buf()];
    while let Some(path) = left.pop() {
        // One that is gone meanwhile has no sockets.
        let (Ok(metadata), Ok(entries)) = (fs::metadata(&path), fs::read_dir(&path)) else {
            continue;
        };
        left.extend(entries.filter_map(|entry| {
            let entry = entry.ok()?;
            entry.file_type().ok()?.is_dir().then(|| entry.path())
        }));
        found.insert(metadata.ino(), path);
    }
    if found.is_empty() {
        return Err(io::ErrorKind::NotFound.into());
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn version_2_is_found_wherever_it_is_and_version_1_must_not_tell_packets_apart() {
        let unified = "30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate";
        let hybrid = "40 30 0:40 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n\
                      41 30 0:41 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu";
        assert_eq!(root_in(unified), Ok("/sys/fs/cgroup".into()));
        assert_eq!(root_in(hybrid), Ok("/sys/fs/cgroup/unified".into()));
        let classes = format!("{hybrid}\n42 30 0:42 / /sys/fs/cgroup/net_cls rw - cgroup cgroup rw,net_cls,net_prio");
        assert!(root_in(&classes).is_err_and(|why| why.contains("net_cls")));
        assert!(root_in("1 1 0:1 / / rw - ext4 /dev/sda rw").is_err());
    }
}
