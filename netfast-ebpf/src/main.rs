//! Entry points, and nothing else.
#![cfg_attr(target_arch = "bpf", no_std, no_main)]

#[cfg(not(target_arch = "bpf"))]
fn main() {
    eprintln!("these programs run in the kernel; build them with netfast, which embeds them");
    std::process::exit(2);
}

#[cfg(target_arch = "bpf")]
mod programs {
    use aya_ebpf::{
        macros::{classifier, fentry},
        programs::{FEntryContext, TcContext},
    };
    use netfast_ebpf::{dns, fastpath::Entry, hooks, lb, learn::candidate, macvlan, resolver, tunnel};

    /// tcx ingress of an endpoint's host-side veth.
    #[classifier]
    pub fn netfast_ep_in(context: TcContext) -> i32 {
        hooks::entry(&context, Entry::Endpoint)
    }

    /// tcx egress of an endpoint's host-side veth.
    #[classifier]
    pub fn netfast_ep_out(context: TcContext) -> i32 {
        hooks::exit(&context)
    }

    /// tcx ingress of a bridge device with endpoints.
    #[classifier]
    pub fn netfast_br_in(context: TcContext) -> i32 {
        hooks::delivery(&context)
    }

    /// tcx egress of a bridge device with endpoints.
    #[classifier]
    pub fn netfast_br_out(context: TcContext) -> i32 {
        hooks::entry(&context, Entry::Host)
    }

    /// tcx ingress of an uplink.
    #[classifier]
    pub fn netfast_up_in(context: TcContext) -> i32 {
        hooks::entry(&context, Entry::Uplink)
    }

    /// tcx egress of an uplink.
    #[classifier]
    pub fn netfast_up_out(context: TcContext) -> i32 {
        hooks::exit(&context)
    }

    /// tcx egress of the loopback interface in a container's network namespace.
    #[classifier]
    pub fn netfast_answer(context: TcContext) -> i32 {
        dns::answer(&context)
    }

    /// tcx egress of the loopback interface in a container's network namespace, before `netfast_answer`.
    #[classifier]
    pub fn netfast_resolve(context: TcContext) -> i32 {
        resolver::at_loopback(&context)
    }

    /// tcx ingress of an endpoint's host-side veth, behind `netfast_ep_in`.
    #[classifier]
    pub fn netfast_vip_in(context: TcContext) -> i32 {
        lb::from_client(&context)
    }

    /// tcx egress of an endpoint's host-side veth, before `netfast_ep_out`.
    #[classifier]
    pub fn netfast_vip_out(context: TcContext) -> i32 {
        lb::to_client(&context)
    }

    /// tcx egress of a VXLAN device, behind `netfast_up_out`.
    #[classifier]
    pub fn netfast_tun_out(context: TcContext) -> i32 {
        tunnel::at_device(&context)
    }

    /// tcx egress of an uplink, before `netfast_up_out`.
    #[classifier]
    pub fn netfast_tun_up(context: TcContext) -> i32 {
        tunnel::at_uplink(&context)
    }

    /// tcx egress of the parent of macvlan networks.
    #[classifier]
    pub fn netfast_macvlan(context: TcContext) -> i32 {
        macvlan::at_parent(&context)
    }

    /// The kernel hands a packet to user space (`nf_queue`, net/netfilter/nf_queue.c): what comes back is not in the
    /// run that left the candidate.
    #[fentry(function = "nf_queue")]
    pub fn netfast_queued(_context: FEntryContext) -> i32 {
        candidate::forget();
        0
    }

    /// The kernel lets only GPL-compatible programs call some helpers.
    #[unsafe(link_section = "license")]
    #[unsafe(no_mangle)]
    static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

    #[panic_handler]
    fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
        loop {}
    }
}
