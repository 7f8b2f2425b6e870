//! The bpf(2) commands that aya lacks, and nothing else: each one small function without state.

use std::{
    borrow::Borrow,
    ffi::c_long,
    io, mem,
    os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd, RawFd},
    ptr,
};

use aya::{
    Pod,
    maps::{HashMap, IterableMap, MapData},
};
use aya_obj::generated::{bpf_attach_type, bpf_attr, bpf_cmd, bpf_insn, bpf_link_info, bpf_link_type, bpf_prog_type};

pub mod cgroup;

/// `BPF_ALU64 | BPF_MOV | BPF_K` of linux/bpf.h.
const MOV_R0_IMMEDIATE: u8 = 0xb7;
/// `BPF_JMP | BPF_EXIT`.
const EXIT: u8 = 0x95;

/// Loads a program that does nothing, to be run where the function with this number in the kernel's type information
/// is entered.
pub fn load_idle_fentry(function: u32) -> io::Result<OwnedFd> {
    let instruction = |code| bpf_insn {
        code,
        _bitfield_align_1: [],
        _bitfield_1: bpf_insn::new_bitfield_1(0, 0),
        off: 0,
        imm: 0,
    };
    let do_nothing: [bpf_insn; 2] = [instruction(MOV_R0_IMMEDIATE), instruction(EXIT)];
    let license = c"GPL";
    let mut attributes = empty();
    // SAFETY: all of the union was just zeroed, and zero is valid for every field of this struct of integers.
    let program = unsafe { &mut attributes.__bindgen_anon_3 };
    program.prog_type = bpf_prog_type::BPF_PROG_TYPE_TRACING as u32;
    program.expected_attach_type = bpf_attach_type::BPF_TRACE_FENTRY as u32;
    program.attach_btf_id = function;
    program.insns = do_nothing.as_ptr() as u64;
    program.insn_cnt = 2;
    program.license = license.as_ptr() as u64;
    // SAFETY: `insns` and `license` point to what lives until the call returns.
    let fd = unsafe { call(bpf_cmd::BPF_PROG_LOAD, &mut attributes) }?;
    owned(fd)
}

/// Attaches a tracing program; it is detached when the link is dropped.
pub fn attach_tracing(program: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let mut attributes = empty();
    attributes.raw_tracepoint.prog_fd = program.as_raw_fd().cast_unsigned();
    // SAFETY: no pointer is given.
    let fd = unsafe { call(bpf_cmd::BPF_RAW_TRACEPOINT_OPEN, &mut attributes) }?;
    owned(fd)
}

/// Where tcx programs are attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TcxHook {
    /// Where packets come in from an interface.
    Ingress,
    /// Where they go out to it.
    Egress,
}

impl TcxHook {
    /// Both.
    pub const BOTH: [Self; 2] = [Self::Ingress, Self::Egress];
}

/// How often the programs on a tcx hook of an interface of this namespace have changed since it has had some
/// (`bpf_mprog_query`, kernel/bpf/mprog.c). It is 1 while there are none.
pub fn tcx_revision(ifindex: u32, hook: TcxHook) -> io::Result<u64> {
    let mut attributes = empty();
    attributes.query.__bindgen_anon_1.target_ifindex = ifindex;
    attributes.query.attach_type = match hook {
        TcxHook::Ingress => bpf_attach_type::BPF_TCX_INGRESS as u32,
        TcxHook::Egress => bpf_attach_type::BPF_TCX_EGRESS as u32,
    };
    // SAFETY: no pointer is given: only numbers are asked for.
    unsafe { call(bpf_cmd::BPF_PROG_QUERY, &mut attributes) }?;
    // SAFETY: every variant of the union is integers; the kernel has written the revision here.
    Ok(unsafe { attributes.query.revision })
}

/// The number of the link that comes after this one among all of the machine, `None` after the last.
pub fn next_link(id: u32) -> io::Result<Option<u32>> {
    let mut attributes = empty();
    attributes.__bindgen_anon_6.__bindgen_anon_1.start_id = id;
    // SAFETY: no pointer is given.
    match unsafe { call(bpf_cmd::BPF_LINK_GET_NEXT_ID, &mut attributes) } {
        // SAFETY: every variant of the union is integers; the kernel has written the number here.
        Ok(_) => Ok(Some(unsafe { attributes.__bindgen_anon_6.next_id })),
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(None),
        Err(error) => Err(error),
    }
}

/// What a BPF link attaches to, as far as it matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkType {
    /// A netfilter hook (`BPF_LINK_TYPE_NETFILTER`, Linux 6.4).
    Netfilter,
    /// XDP of an interface (`BPF_LINK_TYPE_XDP`, Linux 5.9).
    Xdp,
    /// Something else.
    Other,
}

/// What a link attaches to.
pub fn link_type(id: u32) -> io::Result<LinkType> {
    let mut attributes = empty();
    attributes.__bindgen_anon_6.__bindgen_anon_1.link_id = id;
    // SAFETY: no pointer is given.
    let link = owned(unsafe { call(bpf_cmd::BPF_LINK_GET_FD_BY_ID, &mut attributes) }?)?;
    // SAFETY: a struct of integers, for which zero is valid.
    let mut info: bpf_link_info = unsafe { mem::zeroed() };
    let mut attributes = empty();
    attributes.info.bpf_fd = link.as_raw_fd().cast_unsigned();
    attributes.info.info_len = u32::try_from(size_of_val(&info)).map_err(io::Error::other)?;
    attributes.info.info = ptr::from_mut(&mut info) as u64;
    // SAFETY: `info` points to as many bytes as are told, which live until the call returns.
    unsafe { call(bpf_cmd::BPF_OBJ_GET_INFO_BY_FD, &mut attributes) }?;
    Ok(match info.type_ {
        kind if kind == bpf_link_type::BPF_LINK_TYPE_NETFILTER as u32 => LinkType::Netfilter,
        kind if kind == bpf_link_type::BPF_LINK_TYPE_XDP as u32 => LinkType::Xdp,
        _ => LinkType::Other,
    })
}

/// How many elements are asked for at once.
const BATCH: usize = 4096;

/// Shows every element of a hash map, one system call per [`BATCH`] of them.
///
/// Walking by key would take two calls per element, and would begin anew whenever the key at hand is evicted, which on
/// a busy LRU map need never end. A batch is a run of buckets: elements that stay are seen exactly once.
pub fn for_each<K: Pod, V: Pod>(
    map: &HashMap<impl Borrow<MapData>, K, V>,
    mut each: impl FnMut(&K, &V),
) -> io::Result<()> {
    let fd = IterableMap::map(map).fd().as_fd().as_raw_fd().cast_unsigned();
    let mut room = BATCH;
    let mut from: Option<u32> = None;
    loop {
        let mut keys: Vec<K> = Vec::with_capacity(room);
        let mut values: Vec<V> = Vec::with_capacity(room);
        let mut position = from.unwrap_or_default();
        let mut next = 0_u32;
        let mut attributes = empty();
        attributes.batch.in_batch = if from.is_some() {
            ptr::from_mut(&mut position) as u64
        } else {
            0
        };
        attributes.batch.out_batch = ptr::from_mut(&mut next) as u64;
        attributes.batch.keys = keys.as_mut_ptr() as u64;
        attributes.batch.values = values.as_mut_ptr() as u64;
        attributes.batch.count = u32::try_from(room).unwrap_or(u32::MAX);
        attributes.batch.map_fd = fd;
        // SAFETY: the kernel writes at most `count` keys and values to buffers that have room for that many, and aya has
        // compared their sizes with the map's; a position in a hash map is 32 bits (kernel/bpf/hashtab.c).
        let done = unsafe { call(bpf_cmd::BPF_MAP_LOOKUP_BATCH, &mut attributes) };
        let last = match done {
            Ok(_) => false,
            Err(error) => match error.raw_os_error() {
                // The end; what was found on the way there counts.
                Some(libc::ENOENT) => true,
                // One bucket holds more than was asked for.
                Some(libc::ENOSPC) => {
                    room *= 2;
                    continue;
                }
                _ => return Err(error),
            },
        };
        // SAFETY: every variant of the union is integers; the kernel has written the count here.
        let found = (unsafe { attributes.batch.count } as usize).min(room);
        // SAFETY: the kernel has written this many of each, and `Pod` has no invalid bit pattern.
        unsafe {
            keys.set_len(found);
            values.set_len(found);
        }
        keys.iter().zip(&values).for_each(|(key, value)| each(key, value));
        if last {
            return Ok(());
        }
        from = Some(next);
    }
}

fn empty() -> bpf_attr {
    // SAFETY: a union of structs of integers, for which zero is valid and means "not given".
    unsafe { mem::zeroed() }
}

/// bpf(2).
///
/// # Safety
///
/// What `attributes` points to must be valid for what the command reads and writes.
unsafe fn call(command: bpf_cmd, attributes: &mut bpf_attr) -> io::Result<c_long> {
    // SAFETY: the attributes themselves are a whole `bpf_attr`; the rest is the caller's promise.
    let done = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            command as c_long,
            ptr::from_mut(attributes),
            size_of::<bpf_attr>(),
        )
    };
    if done < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(done)
    }
}

fn owned(fd: c_long) -> io::Result<OwnedFd> {
    let fd = RawFd::try_from(fd).map_err(io::Error::other)?;
    // SAFETY: the kernel has just made it, and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn every_element_is_seen_once() {
        // Without privileges there is nothing to walk; the integration tests walk the real tables.
        let Ok(mut map) = HashMap::<MapData, u32, u64>::create(20_000, 0) else {
            return;
        };
        for key in 0..10_000 {
            map.insert(key, u64::from(key) * 3, 0).unwrap();
        }
        let mut seen = BTreeMap::new();
        for_each(&map, |key, value| {
            assert_eq!(seen.insert(*key, *value), None, "{key} is seen twice");
        })
        .unwrap();
        assert_eq!(seen.len(), 10_000);
        assert!(seen.iter().all(|(key, value)| u64::from(*key) * 3 == *value));
    }

    #[test]
    fn an_empty_map_has_no_elements() {
        let Ok(map) = HashMap::<MapData, u32, u64>::create(16, 0) else {
            return;
        };
        for_each(&map, |_, _| panic!("there is none")).unwrap();
    }
}
