//! Programs of somebody else's on control groups.

use std::{
    fs::File,
    io,
    os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
    path::Path,
};

use aya_obj::generated::{bpf_attach_type, bpf_attr, bpf_cmd, bpf_insn, bpf_prog_type};

/// A program for packets of a control group that lets all of them pass.
pub fn let_pass() -> io::Result<OwnedFd> {
    // BPF_ALU64 | BPF_MOV | BPF_K: r0 = 1; BPF_JMP | BPF_EXIT
    let instruction = |code, imm| bpf_insn {
        code,
        _bitfield_align_1: [],
        _bitfield_1: bpf_insn::new_bitfield_1(0, 0),
        off: 0,
        imm,
    };
    let code = [instruction(0xb7, 1), instruction(0x95, 0)];
    let license = c"GPL";
    // SAFETY: the kernel reads unset fields as zero.
    let mut attr: bpf_attr = unsafe { std::mem::zeroed() };
    // SAFETY: all members of the union are integers, and all is zero.
    let load = unsafe { &mut attr.__bindgen_anon_3 };
    load.prog_type = bpf_prog_type::BPF_PROG_TYPE_CGROUP_SKB as u32;
    load.expected_attach_type = bpf_attach_type::BPF_CGROUP_INET_EGRESS as u32;
    load.insns = code.as_ptr() as u64;
    load.insn_cnt = 2;
    load.license = license.as_ptr() as u64;
    call(bpf_cmd::BPF_PROG_LOAD, &mut attr)
}

/// Attaches it to what a control group sends, until the link is dropped (Linux 5.7).
pub fn attach(program: &OwnedFd, group: &Path) -> io::Result<OwnedFd> {
    let group = File::open(group)?;
    // SAFETY: the kernel reads unset fields as zero.
    let mut attr: bpf_attr = unsafe { std::mem::zeroed() };
    attr.link_create.__bindgen_anon_1.prog_fd = program.as_raw_fd().cast_unsigned();
    attr.link_create.__bindgen_anon_2.target_fd = group.as_raw_fd().cast_unsigned();
    attr.link_create.attach_type = bpf_attach_type::BPF_CGROUP_INET_EGRESS as u32;
    call(bpf_cmd::BPF_LINK_CREATE, &mut attr)
}

fn call(command: bpf_cmd, attr: &mut bpf_attr) -> io::Result<OwnedFd> {
    // SAFETY: the attributes are those of the command, and what they point to lives.
    let done = unsafe { libc::syscall(libc::SYS_bpf, command as u32, &raw mut *attr, size_of::<bpf_attr>()) };
    let fd = i32::try_from(done).ok().filter(|fd| *fd >= 0);
    // SAFETY: the kernel has just made it for us.
    fd.map(|fd| unsafe { OwnedFd::from_raw_fd(fd) })
        .ok_or_else(io::Error::last_os_error)
}
