//! A program of other software that drops datagrams by what is in them, at any place where BPF programs judge packets.

use std::{
    ffi::c_char,
    fs::{self, File},
    io,
    os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd, RawFd},
    path::{Path, PathBuf},
    sync::atomic::{AtomicU32, Ordering},
};

use aya_obj::generated::{bpf_attach_type, bpf_attr, bpf_cmd, bpf_insn, bpf_prog_type};
use netfast_tests::{
    leftovers::{self, BPFFS},
    netfast_proc::ensure_bpffs,
    netns::NsHandle,
};

/// The first byte of datagrams that such a program drops.
pub const UNWANTED: u8 = b'x';

/// `XDP_FLAGS_SKB_MODE` and `XDP_FLAGS_DRV_MODE` of `linux/if_link.h`.
const XDP_GENERIC: u32 = 2;
const XDP_NATIVE: u32 = 4;
/// `BPF_F_BEFORE` of linux/bpf.h: without another program, before all of them.
const BEFORE: u32 = 8;

/// Where a program is attached.
#[derive(Clone, Copy, Debug)]
pub enum Place {
    XdpGeneric,
    XdpNative,
    TcxIngress,
    /// Before all others.
    TcxIngressFirst,
    TcxEgress,
    TcxEgressFirst,
}

/// It judges packets until it is dropped.
pub struct Judge {
    _link: OwnedFd,
}

impl Judge {
    /// On an interface of a namespace.
    pub fn on(ns: &NsHandle, device: &str, place: Place) -> Self {
        let (kind, attach_type, flags) = match place {
            Place::XdpGeneric => (Kind::XDP, bpf_attach_type::BPF_XDP, XDP_GENERIC),
            Place::XdpNative => (Kind::XDP, bpf_attach_type::BPF_XDP, XDP_NATIVE),
            Place::TcxIngress => (Kind::TC, bpf_attach_type::BPF_TCX_INGRESS, 0),
            Place::TcxIngressFirst => (Kind::TC, bpf_attach_type::BPF_TCX_INGRESS, BEFORE),
            Place::TcxEgress => (Kind::TC, bpf_attach_type::BPF_TCX_EGRESS, 0),
            Place::TcxEgressFirst => (Kind::TC, bpf_attach_type::BPF_TCX_EGRESS, BEFORE),
        };
        let program = load(&kind, attach_type as u32);
        let attach = || {
            let ifindex = nix::net::if_::if_nametoindex(device).expect("the interface");
            link(&program, ifindex, attach_type as u32, flags)
        };
        Self {
            _link: ns.run(attach).expect("entered"),
        }
    }

    /// On the forwarding hook of netfilter, for IPv4, of a namespace. It lets everything through.
    pub fn on_forward(ns: &NsHandle) -> Self {
        // `NFPROTO_IPV4`, `NF_INET_FORWARD`, and a priority that nobody else has.
        const IPV4: u32 = 2;
        const FORWARD: u32 = 2;
        const PRIORITY: i32 = -77;
        let attach_type = bpf_attach_type::BPF_NETFILTER as u32;
        // `NF_ACCEPT`.
        let accept = [instruction(0xb7, 0, 0, 1), instruction(0x95, 0, 0, 0)];
        let program = load_code(bpf_prog_type::BPF_PROG_TYPE_NETFILTER, attach_type, &accept);
        let mut attributes = empty();
        // SAFETY: all of it was just zeroed.
        let what = unsafe { &mut attributes.link_create };
        what.__bindgen_anon_1.prog_fd = program.as_raw_fd().cast_unsigned();
        what.attach_type = attach_type;
        what.__bindgen_anon_3.netfilter.pf = IPV4;
        what.__bindgen_anon_3.netfilter.hooknum = FORWARD;
        what.__bindgen_anon_3.netfilter.priority = PRIORITY;
        let attach = || call(bpf_cmd::BPF_LINK_CREATE, &mut attributes).expect("attached");
        Self {
            _link: owned(ns.run(attach).expect("entered")),
        }
    }

    /// On what the programs in a cgroup receive.
    pub fn on_cgroup(directory: &Path) -> Self {
        let attach_type = bpf_attach_type::BPF_CGROUP_INET_INGRESS as u32;
        let program = load(&Kind::CGROUP, attach_type);
        let directory = File::open(directory).expect("the cgroup");
        let target = directory.as_raw_fd().cast_unsigned();
        Self {
            _link: link(&program, target, attach_type, 0),
        }
    }
}

/// A pin of such a program, for `tc filter add … bpf da pinned PATH` and the like.
pub struct Pinned(PathBuf);

impl Pinned {
    /// Of a filter.
    pub fn of_filter() -> Self {
        Self::new(&Kind::TC)
    }

    /// Of a route, `encap bpf xmit pinned PATH`.
    pub fn of_route() -> Self {
        Self::new(&Kind::ROUTE)
    }

    fn new(kind: &Kind) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        ensure_bpffs().expect("bpffs");
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let pin = PathBuf::from(BPFFS).join(format!("{}-judge{number}", leftovers::tag()));
        let program = load(kind, 0);
        let path = std::ffi::CString::new(pin.to_str().expect("UTF-8")).expect("no zero");
        let mut attributes = empty();
        // SAFETY: all of it was just zeroed.
        let what = unsafe { &mut attributes.__bindgen_anon_4 };
        what.pathname = path.as_ptr() as u64;
        what.bpf_fd = program.as_raw_fd().cast_unsigned();
        call(bpf_cmd::BPF_OBJ_PIN, &mut attributes).expect("pinned");
        Self(pin)
    }

    /// As an argument of tc or ip.
    pub fn path(&self) -> std::path::Display<'_> {
        self.0.display()
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        let _gone = fs::remove_file(&self.0);
    }
}

/// What differs between the kinds of programs.
struct Kind {
    program: bpf_prog_type,
    /// Offsets of the packet's begin and end in the context.
    data: (i16, i16),
    /// Bytes before the IPv4 header.
    link_layer: i16,
    pass: i32,
    drop: i32,
}

impl Kind {
    const XDP: Self = Self {
        program: bpf_prog_type::BPF_PROG_TYPE_XDP,
        data: (0, 4),
        link_layer: 14,
        pass: 2,
        drop: 1,
    };
    // `__sk_buff.data` and `data_end`; TCX_NEXT and TCX_DROP, which are TC_ACT_UNSPEC and TC_ACT_SHOT.
    const TC: Self = Self {
        program: bpf_prog_type::BPF_PROG_TYPE_SCHED_CLS,
        data: (76, 80),
        link_layer: 14,
        pass: -1,
        drop: 2,
    };
    // BPF_OK and BPF_DROP.
    const ROUTE: Self = Self {
        program: bpf_prog_type::BPF_PROG_TYPE_LWT_XMIT,
        data: (76, 80),
        link_layer: 0,
        pass: 0,
        drop: 2,
    };
    const CGROUP: Self = Self {
        program: bpf_prog_type::BPF_PROG_TYPE_CGROUP_SKB,
        data: (76, 80),
        link_layer: 0,
        pass: 1,
        drop: 0,
    };
}

/// Loads `if the datagram begins with UNWANTED { drop } else { pass }`.
fn load(kind: &Kind, attach_type: u32) -> OwnedFd {
    // IPv4 header without options, UDP header.
    let first_byte = kind.link_layer + 28;
    let code = [
        instruction(0x61, 0x12, kind.data.0, 0),
        instruction(0x61, 0x13, kind.data.1, 0),
        instruction(0xbf, 0x24, 0, 0),
        instruction(0x07, 0x04, 0, i32::from(first_byte) + 1),
        instruction(0x2d, 0x34, 4, 0),
        instruction(0x71, 0x25, first_byte, 0),
        instruction(0x55, 0x05, 2, UNWANTED.into()),
        instruction(0xb7, 0x00, 0, kind.drop),
        instruction(0x95, 0, 0, 0),
        instruction(0xb7, 0x00, 0, kind.pass),
        instruction(0x95, 0, 0, 0),
    ];
    load_code(kind.program, attach_type, &code)
}

/// Opcodes of linux/bpf.h; `registers` are the destination in the lower half byte, the source in the upper.
fn instruction(code: u8, registers: u8, off: i16, imm: i32) -> bpf_insn {
    bpf_insn {
        code,
        _bitfield_align_1: [],
        _bitfield_1: bpf_insn::new_bitfield_1(registers & 0xf, registers >> 4),
        off,
        imm,
    }
}

fn load_code(kind: bpf_prog_type, attach_type: u32, code: &[bpf_insn]) -> OwnedFd {
    let license = c"GPL";
    let mut attributes = empty();
    // SAFETY: all of it was just zeroed.
    let what = unsafe { &mut attributes.__bindgen_anon_3 };
    what.prog_type = kind as u32;
    what.expected_attach_type = attach_type;
    what.insns = code.as_ptr() as u64;
    what.insn_cnt = u32::try_from(code.len()).expect("few");
    what.license = license.as_ptr() as u64;
    for (place, byte) in what.prog_name.iter_mut().zip("judge".bytes()) {
        *place = c_char::from_ne_bytes([byte]);
    }
    owned(call(bpf_cmd::BPF_PROG_LOAD, &mut attributes).expect("loaded"))
}

fn link(program: &OwnedFd, target: u32, attach_type: u32, flags: u32) -> OwnedFd {
    let mut attributes = empty();
    // SAFETY: all of it was just zeroed.
    let what = unsafe { &mut attributes.link_create };
    what.__bindgen_anon_1.prog_fd = program.as_raw_fd().cast_unsigned();
    what.__bindgen_anon_2.target_fd = target;
    what.attach_type = attach_type;
    what.flags = flags;
    owned(call(bpf_cmd::BPF_LINK_CREATE, &mut attributes).expect("attached"))
}

fn empty() -> bpf_attr {
    // SAFETY: zero is valid for every field of this union of integers.
    unsafe { std::mem::zeroed() }
}

fn owned(fd: RawFd) -> OwnedFd {
    // SAFETY: the kernel has just given it to us alone.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

fn call(command: bpf_cmd, attributes: &mut bpf_attr) -> io::Result<RawFd> {
    // SAFETY: `attributes` is valid for its size, and what it points to outlives the call.
    let done = unsafe { libc::syscall(libc::SYS_bpf, command as u32, attributes, size_of::<bpf_attr>()) };
    if done < 0 {
        return Err(io::Error::last_os_error());
    }
    RawFd::try_from(done).map_err(io::Error::other)
}
