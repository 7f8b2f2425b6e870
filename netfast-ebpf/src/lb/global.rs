//! Global functions, see [`Calls`](super::Calls). On the host they are called straight.

#[cfg(target_arch = "bpf")]
mod bpf {
    use aya_ebpf::{bindings::__sk_buff, programs::TcContext};

    use crate::lb::{self, Calls, failover, icmp, select};

    // An argument that a function does not use would be left out by its callers' compiler, and missed by the verifier. The
    // context is recognised by the name of its type, and a function must return a number.

    #[inline(never)]
    #[unsafe(no_mangle)]
    pub extern "C" fn netfast_vip_member(opens: u32, flags: u32) -> u32 {
        lb::member::<TcContext>(opens, flags)
    }

    #[inline(never)]
    #[unsafe(no_mangle)]
    pub extern "C" fn netfast_vip_talk(skb: *mut __sk_buff, way: u32) -> u32 {
        lb::translate(&TcContext::new(skb), way)
    }

    #[inline(never)]
    #[unsafe(no_mangle)]
    pub extern "C" fn netfast_vip_icmp(skb: *mut __sk_buff, way: u32) -> u32 {
        icmp::message(&TcContext::new(skb), way)
    }

    #[inline(never)]
    #[unsafe(no_mangle)]
    pub extern "C" fn netfast_vip_choose() -> u32 {
        select::select()
    }

    #[inline(never)]
    #[unsafe(no_mangle)]
    pub extern "C" fn netfast_vip_another() -> u32 {
        failover::next_backend::<TcContext>()
    }

    #[inline(never)]
    #[unsafe(no_mangle)]
    pub extern "C" fn netfast_vip_retry(skb: *mut __sk_buff) -> u32 {
        failover::refused(&TcContext::new(skb))
    }

    #[inline(never)]
    #[unsafe(no_mangle)]
    pub extern "C" fn netfast_vip_icmp_error(skb: *mut __sk_buff, way: u32) -> u32 {
        icmp::error_message(&TcContext::new(skb), way)
    }

    impl Calls for TcContext {
        #[inline(always)]
        fn member(opens: u32, flags: u32) -> u32 {
            netfast_vip_member(opens, flags)
        }
        #[inline(always)]
        fn select() -> u32 {
            netfast_vip_choose()
        }
        #[inline(always)]
        fn next_backend() -> u32 {
            netfast_vip_another()
        }
        #[inline(always)]
        fn translate(&self, way: u32) -> u32 {
            netfast_vip_talk(self.skb.skb, way)
        }
        #[inline(always)]
        fn refused(&self) -> u32 {
            netfast_vip_retry(self.skb.skb)
        }
        #[inline(always)]
        fn icmp(&self, way: u32) -> u32 {
            netfast_vip_icmp(self.skb.skb, way)
        }
        #[inline(always)]
        fn icmp_error(&self, way: u32) -> u32 {
            netfast_vip_icmp_error(self.skb.skb, way)
        }
    }
}

#[cfg(not(target_arch = "bpf"))]
mod host {
    use crate::{
        ctx::fake::FakeSkb,
        lb::{self, Calls, failover, icmp, select},
    };

    impl Calls for FakeSkb {
        fn member(opens: u32, flags: u32) -> u32 {
            lb::member::<Self>(opens, flags)
        }
        fn select() -> u32 {
            select::select()
        }
        fn next_backend() -> u32 {
            failover::next_backend::<Self>()
        }
        fn translate(&self, way: u32) -> u32 {
            lb::translate(self, way)
        }
        fn refused(&self) -> u32 {
            failover::refused(self)
        }
        fn icmp(&self, way: u32) -> u32 {
            icmp::message(self, way)
        }
        fn icmp_error(&self, way: u32) -> u32 {
            icmp::error_message(self, way)
        }
    }
}
