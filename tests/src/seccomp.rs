//! Programs that find a kernel without some system call, by seccomp(2): how netfast behaves on one that was built
//! without BPF can be seen on any machine.

use std::{io, os::unix::process::CommandExt as _, process::Command};

use libc::{
    BPF_ABS, BPF_JEQ, BPF_JMP, BPF_K, BPF_LD, BPF_RET, BPF_W, PR_SET_SECCOMP, SECCOMP_MODE_FILTER, SECCOMP_RET_ALLOW,
    SECCOMP_RET_ERRNO, c_long, sock_filter, sock_fprog,
};

/// Offsets in `struct seccomp_data` (`linux/seccomp.h`): the call's number, and the lower half of its first argument.
const NUMBER: u32 = 0;
const FIRST_ARGUMENT: u32 = if cfg!(target_endian = "little") { 16 } else { 20 };

/// Makes a system call fail with `errno` in the program and its children: if `first` is given, only calls with that
/// first argument. Needs `CAP_SYS_ADMIN`.
pub fn refuse(command: &mut Command, call: c_long, first: Option<u32>, errno: i32) {
    let number = u32::try_from(call).expect("a system call's number");
    let refuse = SECCOMP_RET_ERRNO | errno.unsigned_abs();
    let load = |offset| instruction(BPF_LD | BPF_W | BPF_ABS, offset, 0);
    // `otherwise`: so many instructions are left out if it is not equal.
    let unless_equal = |value, otherwise| instruction(BPF_JMP | BPF_JEQ | BPF_K, value, otherwise);
    let result = |value| instruction(BPF_RET | BPF_K, value, 0);
    let filter = match first {
        None => vec![
            load(NUMBER),
            unless_equal(number, 1),
            result(refuse),
            result(SECCOMP_RET_ALLOW),
        ],
        Some(first) => vec![
            load(NUMBER),
            unless_equal(number, 3),
            load(FIRST_ARGUMENT),
            unless_equal(first, 1),
            result(refuse),
            result(SECCOMP_RET_ALLOW),
        ],
    };
    // SAFETY: the closure runs in the child between fork and exec and makes one system call on memory that it owns; it
    // takes no lock and does not allocate.
    unsafe {
        command.pre_exec(move || {
            let program = sock_fprog {
                len: filter.len().try_into().unwrap_or(0),
                filter: filter.as_ptr().cast_mut(),
            };
            match libc::prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &raw const program) {
                0 => Ok(()),
                _ => Err(io::Error::last_os_error()),
            }
        });
    }
}

/// An instruction of classic BPF that, if it is a jump, leaves out `otherwise` instructions when it does not hold.
fn instruction(code: u32, k: u32, otherwise: u8) -> sock_filter {
    sock_filter {
        code: code.try_into().unwrap_or(0),
        jt: 0,
        jf: otherwise,
        k,
    }
}
