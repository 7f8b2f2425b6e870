//! XDP's program, and what it depends on.

use aya::{
    Ebpf, TestRun as _, TestRunOptions,
    maps::{Array, MapData, PerCpuArray, xdp::DevMapHash},
    programs::Xdp as Program,
};
use netfast_common::{
    abi::map,
    reason::Count,
    xdp::{CHANGES, SEEN, UNTIL},
};
use netfast_tests::scene::Dev;
use nix::net::if_::if_nametoindex;

use super::{Context, Hook, Outcome, take};

/// `XDP_PASS` and `XDP_REDIRECT`.
const PASS: u32 = 2;
const REDIRECT: u32 = 4;
/// `TCX_NEXT` and `TC_ACT_REDIRECT`.
const NEXT: i32 = -1;
const TC_REDIRECT: i32 = 7;

/// The maps.
pub struct Xdp {
    /// Interfaces that take frames: those of [`Dev::A`] and [`Dev::B`].
    _ends: DevMapHash<MapData>,
    state: Array<MapData, u64>,
    done: PerCpuArray<MapData, Count>,
}

impl Xdp {
    pub(super) fn load(ebpf: &mut Ebpf) -> Self {
        program(ebpf).load().expect("the program loads");
        let mut ends: DevMapHash<MapData> = take(ebpf, map::XDP_ENDS);
        for dev in [Dev::A, Dev::B] {
            let index = if_nametoindex(dev.name()).expect("it was made");
            ends.insert(index, index, None, 0).expect("an end");
        }
        let mut state: Array<MapData, u64> = take(ebpf, map::XDP_STATE);
        state.set(UNTIL, u64::MAX, 0).expect("a number");
        Self {
            _ends: ends,
            state,
            done: take(ebpf, map::XDP_DONE),
        }
    }

    /// What has been counted, what of that was looked at, and until when it holds.
    pub fn set_state(&mut self, (changes, seen, until): (u64, u64, u64)) {
        self.state.set(UNTIL, until, 0).expect("a number");
        self.state.set(CHANGES, changes, 0).expect("a number");
        self.state.set(SEEN, seen, 0).expect("a number");
    }

    /// Packets that went by XDP.
    pub fn sent(&self) -> u64 {
        self.done
            .get(&0, 0)
            .expect("a count")
            .iter()
            .map(|count| count.packets)
            .sum()
    }
}

fn program(ebpf: &mut Ebpf) -> &mut Program {
    let program = ebpf
        .program_mut(Hook::UplinkXdp.program())
        .expect("it is in the object");
    program.try_into().expect("it is one of XDP")
}

pub(super) fn test_run(ebpf: &mut Ebpf, context: Context, packet: &[u8]) -> Outcome {
    // `struct xdp_md`: data, its end, metadata, the interface, the queue, the interface that it is sent to.
    let length = u32::try_from(packet.len()).expect("short");
    let words = [0, length, 0, context.ifindex, 0, 0];
    let context_in: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
    let mut out = vec![0; packet.len() + 256];
    let result = program(ebpf)
        .test_run(TestRunOptions {
            data_in: Some(packet),
            data_out: Some(&mut out),
            ctx_in: Some(&context_in),
            ..TestRunOptions::default()
        })
        .expect("the kernel runs it");
    out.truncate(result.data_size_out as usize);
    Outcome {
        verdict: match result.return_value {
            PASS => NEXT,
            REDIRECT => TC_REDIRECT,
            other => panic!("XDP's verdict {other}"),
        },
        packet: out,
        mark: context.mark,
        priority: context.priority,
    }
}
