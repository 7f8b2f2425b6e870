//! Programs of cgroups.

use std::{
    ffi::{CStr, CString},
    io,
    os::{
        fd::{AsRawFd as _, BorrowedFd},
        unix::ffi::OsStrExt as _,
    },
    path::Path,
    ptr,
};

use aya_obj::generated::{bpf_attach_type, bpf_cmd, bpf_prog_info};

use super::{call, empty, owned};

/// Programs of one kind that may run for a cgroup; one that has more is refused by its count alone.
const MOST: u32 = 64;
/// `BPF_F_QUERY_EFFECTIVE`: those that run, whether they are attached to this cgroup or to one above.
const EFFECTIVE: u32 = 1;

/// The numbers of the programs of a kind that run for the sockets of a cgroup (Linux 4.15); empty where the kernel does not
/// know the kind.
pub fn effective(cgroup: BorrowedFd<'_>, kind: bpf_attach_type) -> io::Result<Vec<u32>> {
    let mut ids = [0_u32; MOST as usize];
    let mut attributes = empty();
    attributes.query.__bindgen_anon_1.target_fd = cgroup.as_raw_fd().cast_unsigned();
    attributes.query.attach_type = kind as u32;
    attributes.query.query_flags = EFFECTIVE;
    attributes.query.prog_ids = ids.as_mut_ptr() as u64;
    attributes.query.__bindgen_anon_2.prog_cnt = MOST;
    // SAFETY: the kernel writes at most as many numbers as there is said to be room for.
    match unsafe { call(bpf_cmd::BPF_PROG_QUERY, &mut attributes) } {
        Ok(_) => {}
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => return Ok(Vec::new()),
        Err(error) => return Err(error),
    }
    // SAFETY: every variant of the union is integers; the kernel has written the count here.
    let count = unsafe { attributes.query.__bindgen_anon_2.prog_cnt }.min(MOST) as usize;
    Ok(ids[..count].to_vec())
}

/// The name of a program, as far as the kernel keeps it.
pub fn name(id: u32) -> io::Result<String> {
    let mut attributes = empty();
    attributes.__bindgen_anon_6.__bindgen_anon_1.prog_id = id;
    // SAFETY: no pointer is given.
    let program = owned(unsafe { call(bpf_cmd::BPF_PROG_GET_FD_BY_ID, &mut attributes) }?)?;
    // SAFETY: a struct of integers, for which zero is valid.
    let mut info: bpf_prog_info = unsafe { std::mem::zeroed() };
    let mut attributes = empty();
    attributes.info.bpf_fd = program.as_raw_fd().cast_unsigned();
    attributes.info.info_len = u32::try_from(size_of_val(&info)).map_err(io::Error::other)?;
    attributes.info.info = ptr::from_mut(&mut info) as u64;
    // SAFETY: `info` points to as many bytes as are told; it asks for nothing to be written elsewhere.
    unsafe { call(bpf_cmd::BPF_OBJ_GET_INFO_BY_FD, &mut attributes) }?;
    // SAFETY: plain bytes of the same size.
    let bytes: [u8; 16] = unsafe { std::mem::transmute(info.name) };
    let name = CStr::from_bytes_until_nul(&bytes).map_err(io::Error::other)?;
    Ok(name.to_string_lossy().into_owned())
}

/// Puts another program into a pinned link, at once (Linux 5.7).
pub fn replace(pin: &Path, program: BorrowedFd<'_>) -> io::Result<()> {
    let pin = CString::new(pin.as_os_str().as_bytes()).map_err(io::Error::other)?;
    let mut attributes = empty();
    attributes.__bindgen_anon_4.pathname = pin.as_ptr() as u64;
    // SAFETY: the path ends in a zero, and lives until the call returns.
    let link = owned(unsafe { call(bpf_cmd::BPF_OBJ_GET, &mut attributes) }?)?;
    let mut attributes = empty();
    attributes.link_update.link_fd = link.as_raw_fd().cast_unsigned();
    attributes.link_update.__bindgen_anon_1.new_prog_fd = program.as_raw_fd().cast_unsigned();
    // SAFETY: no pointer is given.
    unsafe { call(bpf_cmd::BPF_LINK_UPDATE, &mut attributes) }.map(|_| ())
}
