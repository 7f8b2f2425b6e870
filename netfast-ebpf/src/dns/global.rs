//! Global functions for the steps, see [`Steps`]. On the host they are called straight.

#[cfg(target_arch = "bpf")]
mod bpf {
    use aya_ebpf::programs::TcContext;

    use crate::{
        dns::{self, Buffer, Step, Steps},
        state::maps,
    };

    // An argument that a function does not use would be left out by its callers' compiler, and missed by the verifier.
    macro_rules! dns_steps {
        ($($name:ident($($index:ident: u32)?) $step:expr;)+) => {
            $(
                #[inline(never)]
                #[unsafe(no_mangle)]
                pub extern "C" fn $name($($index: u32)?) -> u32 {
                    let Some(scratch) = maps::SCRATCH.get_ptr_mut(0) else {
                        return u32::MAX;
                    };
                    // SAFETY: this CPU's element; hooks run with softirqs off, and the caller holds no reference to it.
                    dns::run($step, unsafe { &mut *scratch })
                }
            )+
        };
    }

    dns_steps! {
        netfast_dns_question() Step::Question;
        netfast_dns_record(index: u32) Step::Record(index);
        netfast_dns_place(index: u32) Step::Place(index);
        netfast_dns_single() Step::Single;
        netfast_dns_shorten() Step::Shorten;
        netfast_dns_sum() Step::Sum;
    }

    impl Steps for TcContext {
        #[inline(always)]
        fn dns_step(&self, step: Step, _buffer: Buffer) -> u32 {
            match step {
                Step::Question => netfast_dns_question(),
                Step::Record(index) => netfast_dns_record(index),
                Step::Place(index) => netfast_dns_place(index),
                Step::Single => netfast_dns_single(),
                Step::Shorten => netfast_dns_shorten(),
                Step::Sum => netfast_dns_sum(),
            }
        }
    }
}

#[cfg(not(target_arch = "bpf"))]
mod host {
    use crate::{
        ctx::fake::FakeSkb,
        dns::{self, Buffer, Step, Steps},
    };

    impl Steps for FakeSkb {
        fn dns_step(&self, step: Step, buffer: Buffer) -> u32 {
            buffer.with(|scratch| dns::run(step, scratch))
        }
    }
}
