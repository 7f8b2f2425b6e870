//! cgroups whose sockets no program of somebody else's looks at: what it does to a connection to 127.0.0.1 may not be what it
//! does to one to the container.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    io,
    os::fd::AsFd as _,
    path::{Path, PathBuf},
};

use aya_obj::generated::bpf_attach_type;
use netfast_common::abi::PREFIX;

use super::cgroups_below;
use crate::bpf::cgroup;

/// The kinds of programs that see packets, addresses or connections of a cgroup's sockets.
const KINDS: [bpf_attach_type; 13] = [
    bpf_attach_type::BPF_CGROUP_INET_INGRESS,
    bpf_attach_type::BPF_CGROUP_INET_EGRESS,
    bpf_attach_type::BPF_CGROUP_SOCK_OPS,
    bpf_attach_type::BPF_CGROUP_INET4_CONNECT,
    bpf_attach_type::BPF_CGROUP_INET6_CONNECT,
    bpf_attach_type::BPF_CGROUP_UDP4_SENDMSG,
    bpf_attach_type::BPF_CGROUP_UDP6_SENDMSG,
    bpf_attach_type::BPF_CGROUP_UDP4_RECVMSG,
    bpf_attach_type::BPF_CGROUP_UDP6_RECVMSG,
    bpf_attach_type::BPF_CGROUP_INET4_GETPEERNAME,
    bpf_attach_type::BPF_CGROUP_INET6_GETPEERNAME,
    bpf_attach_type::BPF_CGROUP_INET4_GETSOCKNAME,
    bpf_attach_type::BPF_CGROUP_INET6_GETSOCKNAME,
];

/// What was found of the host's cgroups.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cgroups {
    /// Those without programs of others, by number.
    pub free: BTreeSet<u64>,
    /// Those with some, and the name of one.
    pub watched: BTreeMap<PathBuf, String>,
}

/// Looks at all cgroups; `names` remembers the names of programs by their numbers, which are not given twice.
pub fn look(root: &Path, names: &mut BTreeMap<u32, String>) -> io::Result<Cgroups> {
    let mut found = Cgroups::default();
    for (number, path) in cgroups_below(root)? {
        // One that is gone meanwhile has no sockets.
        let Ok(file) = File::open(&path) else { continue };
        match watcher(&file, names)? {
            None => {
                found.free.insert(number);
            }
            Some(name) => {
                found.watched.insert(path, name);
            }
        }
    }
    Ok(found)
}

/// A program of somebody else's that looks at what a cgroup's sockets do.
fn watcher(cgroup: &File, names: &mut BTreeMap<u32, String>) -> io::Result<Option<String>> {
    for kind in KINDS {
        for id in cgroup::effective(cgroup.as_fd(), kind)? {
            // One that is gone meanwhile watches nobody, but who knows what has come.
            let name = names.entry(id).or_insert_with(|| cgroup::name(id).unwrap_or_default());
            if !name.starts_with(PREFIX) {
                let name = if name.is_empty() {
                    format!("(id {id})")
                } else {
                    name.clone()
                };
                return Ok(Some(name));
            }
        }
    }
    Ok(None)
}
