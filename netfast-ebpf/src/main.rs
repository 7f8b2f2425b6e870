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
        helpers::bpf_probe_read_kernel,
        macros::{cgroup_sock_addr, classifier, fentry, raw_tracepoint, xdp},
        programs::{FEntryContext, RawTracePointContext, SockAddrContext, TcContext, XdpContext},
    };
    use netfast_ebpf::{
        dns,
        fastpath::Entry,
        hooks, lb,
        learn::candidate,
        localhost::{self, Family, Socket},
        macvlan,
        openvswitch::{self, Attribute},
        resolver, tunnel, xdp as at_driver,
    };

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

    /// tcx ingress of an uplink, before `netfast_up_in`.
    #[classifier]
    pub fn netfast_tun_in(context: TcContext) -> i32 {
        tunnel::from_uplink(&context)
    }

    /// tcx ingress of a VXLAN device, before `netfast_up_in`.
    #[classifier]
    pub fn netfast_tun_got(context: TcContext) -> i32 {
        tunnel::from_device(&context)
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
        tunnel::forget();
        0
    }

    /// A datapath of Open vSwitch executes an action (`do_execute_actions`, net/openvswitch/actions.c; the tracepoint since Linux
    /// 5.14): datapath, packet, its key, the action, and how many bytes of actions there are from this one on.
    #[raw_tracepoint(tracepoint = "ovs_do_execute_action")]
    pub fn netfast_ovs(context: RawTracePointContext) -> i32 {
        let action: *const Attribute = context.arg(3);
        let rest: i32 = context.arg(4);
        // SAFETY: the kernel copies, and says so where there is nothing to copy.
        openvswitch::at_action(unsafe { bpf_probe_read_kernel(action) }.ok(), rest);
        0
    }

    /// A program of the host connects an IPv4 socket.
    #[cgroup_sock_addr(connect4)]
    pub fn netfast_conn4(context: SockAddrContext) -> i32 {
        localhost::connect(Socket::new(context.sock_addr), Family::V4)
    }

    /// The same with an IPv6 socket.
    #[cgroup_sock_addr(connect6)]
    pub fn netfast_conn6(context: SockAddrContext) -> i32 {
        localhost::connect(Socket::new(context.sock_addr), Family::V6)
    }

    /// A program of the host sends a datagram to an IPv4 address from a socket that is not connected.
    #[cgroup_sock_addr(sendmsg4)]
    pub fn netfast_send4(context: SockAddrContext) -> i32 {
        localhost::send(Socket::new(context.sock_addr), Family::V4)
    }

    /// The same to an IPv6 address.
    #[cgroup_sock_addr(sendmsg6)]
    pub fn netfast_send6(context: SockAddrContext) -> i32 {
        localhost::send(Socket::new(context.sock_addr), Family::V6)
    }

    /// A program of the host is told whom a datagram is from.
    #[cgroup_sock_addr(recvmsg4)]
    pub fn netfast_recv4(context: SockAddrContext) -> i32 {
        localhost::receive(Socket::new(context.sock_addr), Family::V4)
    }

    /// The same with an IPv6 socket.
    #[cgroup_sock_addr(recvmsg6)]
    pub fn netfast_recv6(context: SockAddrContext) -> i32 {
        localhost::receive(Socket::new(context.sock_addr), Family::V6)
    }

    /// A program of the host is told whom an IPv4 socket is connected to.
    #[cgroup_sock_addr(getpeername4)]
    pub fn netfast_peer4(context: SockAddrContext) -> i32 {
        localhost::name_peer(Socket::new(context.sock_addr), Family::V4)
    }

    /// The same with an IPv6 socket.
    #[cgroup_sock_addr(getpeername6)]
    pub fn netfast_peer6(context: SockAddrContext) -> i32 {
        localhost::name_peer(Socket::new(context.sock_addr), Family::V6)
    }

    /// A program of the host is told the address of an IPv4 socket.
    #[cgroup_sock_addr(getsockname4)]
    pub fn netfast_own4(context: SockAddrContext) -> i32 {
        localhost::name_own(Socket::new(context.sock_addr), Family::V4)
    }

    /// The same with an IPv6 socket.
    #[cgroup_sock_addr(getsockname6)]
    pub fn netfast_own6(context: SockAddrContext) -> i32 {
        localhost::name_own(Socket::new(context.sock_addr), Family::V6)
    }

    /// XDP at an uplink's driver.
    #[xdp]
    pub fn netfast_up_xdp(context: XdpContext) -> u32 {
        at_driver::at_uplink(&context)
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
