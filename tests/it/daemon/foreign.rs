//! Other software's programs on the same hooks.

use std::{
    ffi::c_char,
    fs, io,
    os::fd::{FromRawFd as _, OwnedFd},
    path::PathBuf,
};

use aya::programs::{LinkOrder, SchedClassifier, TcAttachType, tc::TcAttachOptions};
use aya_obj::generated::{bpf_attr, bpf_cmd, bpf_insn, bpf_prog_type};
use netfast::probe::{Hook, attached};
use netfast_tests::{
    leftovers::{self, BPFFS},
    netns::NetNs,
    require::{Need, needs},
    topo,
};
use nix::sys::signal::Signal;

use super::{fast_endpoints, heard, names, programs, start, state};

/// A program that leaves every packet to whoever comes next, loaded and pinned, not attached.
pub(super) struct Foreign {
    pin: PathBuf,
    program: SchedClassifier,
}

impl Foreign {
    pub(super) fn load(name: &str) -> Self {
        // `r0 = -1` (TCX_NEXT), `exit`: opcodes of linux/bpf.h.
        let instruction = |code, imm| bpf_insn {
            code,
            _bitfield_align_1: [],
            _bitfield_1: bpf_insn::new_bitfield_1(0, 0),
            off: 0,
            imm,
        };
        let next = [instruction(0xb7, -1), instruction(0x95, 0)];
        let license = c"GPL";
        // SAFETY: zero is valid for every field of this union of integers.
        let mut load: bpf_attr = unsafe { std::mem::zeroed() };
        // SAFETY: all of it was just zeroed.
        let what = unsafe { &mut load.__bindgen_anon_3 };
        what.prog_type = bpf_prog_type::BPF_PROG_TYPE_SCHED_CLS as u32;
        what.insns = next.as_ptr() as u64;
        what.insn_cnt = 2;
        what.license = license.as_ptr() as u64;
        for (place, byte) in what.prog_name.iter_mut().zip(name.bytes()) {
            *place = c_char::from_ne_bytes([byte]);
        }
        let fd = bpf(bpf_cmd::BPF_PROG_LOAD, &mut load).expect("loaded");
        // SAFETY: the kernel has just given it to us alone.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };

        let pin = PathBuf::from(BPFFS).join(format!("{}-{name}", leftovers::tag()));
        let path = std::ffi::CString::new(pin.to_str().expect("UTF-8")).expect("no zero");
        // SAFETY: as above.
        let mut place: bpf_attr = unsafe { std::mem::zeroed() };
        // SAFETY: as above.
        let what = unsafe { &mut place.__bindgen_anon_4 };
        what.pathname = path.as_ptr() as u64;
        what.bpf_fd = std::os::fd::AsRawFd::as_raw_fd(&fd).cast_unsigned();
        bpf(bpf_cmd::BPF_OBJ_PIN, &mut place).expect("pinned");
        let program = SchedClassifier::from_pin(&pin).expect("a program");
        Self { pin, program }
    }

    /// Attaches it to an interface of the calling thread's namespace for as long as it lives.
    pub(super) fn attach(&mut self, device: &str, order: LinkOrder) {
        let options = TcAttachOptions::TcxOrder(order);
        self.program
            .attach_with_options(device, TcAttachType::Egress, options)
            .expect("attached");
    }
}

impl Drop for Foreign {
    fn drop(&mut self) {
        let _gone = fs::remove_file(&self.pin);
    }
}

fn bpf(command: bpf_cmd, attributes: &mut bpf_attr) -> io::Result<i32> {
    // SAFETY: `attributes` is valid for its size, and what it points to outlives the call.
    let done = unsafe { libc::syscall(libc::SYS_bpf, command as u32, attributes, size_of::<bpf_attr>()) };
    if done < 0 {
        return Err(io::Error::last_os_error());
    }
    i32::try_from(done).map_err(io::Error::other)
}

#[test]
fn foreign_programs_keep_their_places_in_the_chain() {
    if !needs(&[Need::Root, Need::Kernel(6, 6)]) {
        return;
    }
    let topo = heard(&topo::Options::default());
    let host = topo.host();
    let (mut first, mut last) = (Foreign::load("foreign_first"), Foreign::load("foreign_last"));
    host.run(|| first.attach("eth0", LinkOrder::default()))
        .expect("entered");
    let chain = || egress(host);
    assert_eq!(chain(), ["foreign_first"]);
    let mut netfast = start(host);
    host.run(|| last.attach("eth0", LinkOrder::last())).expect("entered");
    let all = ["foreign_first", "netfast_up_out", "foreign_last"];
    assert_eq!(chain(), all);
    for signal in [Signal::SIGKILL, Signal::SIGTERM] {
        netfast.stop(signal).expect("it ends");
        assert_eq!(chain(), all, "after {signal}");
        netfast.launch().expect("it starts again");
        assert_eq!(chain(), all, "after {signal} and a start");
    }
    assert_eq!(fast_endpoints(&state(&netfast)), names(&["veth0x0", "veth0x1"]));
    netfast.detach().expect("detach");
    assert_eq!(chain(), ["foreign_first", "foreign_last"]);
    assert_eq!(programs(host), ["eth0 out foreign_first", "eth0 out foreign_last"]);
}

/// The programs on the uplink's egress, in the order in which they run.
fn egress(host: &NetNs) -> Vec<String> {
    let found = host.run(|| attached("eth0")).expect("entered").expect("a list");
    let egress = found.into_iter().filter(|program| program.hook == Hook::Egress);
    egress.map(|program| program.name).collect()
}
