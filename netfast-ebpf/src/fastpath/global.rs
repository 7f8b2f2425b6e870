//! Global functions: the verifier looks at each once, and not on each path that calls it, which would cost forty times as
//! much. On the host they are called directly.

#[cfg(target_arch = "bpf")]
mod bpf {
    use aya_ebpf::{
        bindings::{__sk_buff, xdp_md},
        programs::{TcContext, XdpContext},
    };

    use crate::fastpath::{
        checksum::{self, Sums},
        direct::{self, Forward},
        trace::{self, Show},
    };

    // An argument that a function does not use would be left out by its callers' compiler, and missed by the verifier. The
    // context is recognised by the name of its type, and a function must return a number.

    #[inline(never)]
    #[unsafe(no_mangle)]
    pub extern "C" fn netfast_show(skb: *mut __sk_buff, reason: u32, out_ifindex: u32) -> u32 {
        trace::show(&TcContext::new(skb), reason, out_ifindex);
        0
    }

    #[inline(never)]
    #[unsafe(no_mangle)]
    pub extern "C" fn netfast_wanted(skb: *mut __sk_buff, reason: u32, out_ifindex: u32) -> u32 {
        trace::is_wanted(&TcContext::new(skb), reason, out_ifindex).into()
    }

    #[inline(never)]
    #[unsafe(no_mangle)]
    pub extern "C" fn netfast_sound(skb: *mut __sk_buff, field: u32, pseudo: u32, offset: u32, length: u32) -> u32 {
        checksum::examine(&TcContext::new(skb), field, pseudo, offset, length).into()
    }

    #[inline(never)]
    #[unsafe(no_mangle)]
    pub extern "C" fn netfast_sum(skb: *mut __sk_buff, offset: u32, parts: u32) -> u32 {
        checksum::sum_parts(&TcContext::new(skb), offset, parts)
    }

    #[inline(never)]
    #[unsafe(no_mangle)]
    pub extern "C" fn netfast_rest(skb: *mut __sk_buff, offset: u32, length: u32) -> u32 {
        checksum::sum_rest(&TcContext::new(skb), offset, length)
    }

    #[inline(never)]
    #[unsafe(no_mangle)]
    pub extern "C" fn netfast_direct(skb: *mut __sk_buff) -> u64 {
        direct::forward(&TcContext::new(skb)).number()
    }

    #[inline(never)]
    #[unsafe(no_mangle)]
    pub extern "C" fn netfast_xshow(xdp: *mut xdp_md, reason: u32, out_ifindex: u32) -> u32 {
        trace::show(&XdpContext::new(xdp), reason, out_ifindex);
        0
    }

    #[inline(never)]
    #[unsafe(no_mangle)]
    pub extern "C" fn netfast_xwanted(xdp: *mut xdp_md, reason: u32, out_ifindex: u32) -> u32 {
        trace::is_wanted(&XdpContext::new(xdp), reason, out_ifindex).into()
    }

    #[inline(never)]
    #[unsafe(no_mangle)]
    pub extern "C" fn netfast_xsound(xdp: *mut xdp_md, field: u32, pseudo: u32, offset: u32, length: u32) -> u32 {
        checksum::examine(&XdpContext::new(xdp), field, pseudo, offset, length).into()
    }

    #[inline(never)]
    #[unsafe(no_mangle)]
    pub extern "C" fn netfast_xsum(xdp: *mut xdp_md, offset: u32, parts: u32) -> u32 {
        checksum::sum_parts(&XdpContext::new(xdp), offset, parts)
    }

    #[inline(never)]
    #[unsafe(no_mangle)]
    pub extern "C" fn netfast_xrest(xdp: *mut xdp_md, offset: u32, length: u32) -> u32 {
        checksum::sum_rest(&XdpContext::new(xdp), offset, length)
    }

    impl Show for XdpContext {
        #[inline(always)]
        fn show(&self, reason: u32, out_ifindex: u32) {
            netfast_xshow(self.ctx, reason, out_ifindex);
        }
        #[inline(always)]
        fn is_wanted(&self, reason: u32, out_ifindex: u32) -> bool {
            netfast_xwanted(self.ctx, reason, out_ifindex) != 0
        }
    }

    impl Sums for XdpContext {
        #[inline(always)]
        fn has_sound_checksum(&self, field: u32, pseudo: u32, offset: u32, length: u32) -> bool {
            netfast_xsound(self.ctx, field, pseudo, offset, length) != 0
        }
        #[inline(always)]
        fn sum_parts(&self, offset: u32, parts: u32) -> u32 {
            netfast_xsum(self.ctx, offset, parts)
        }
        #[inline(always)]
        fn sum_rest(&self, offset: u32, length: u32) -> u32 {
            netfast_xrest(self.ctx, offset, length)
        }
    }

    impl Forward for TcContext {
        #[inline(always)]
        fn forward(&self) -> u64 {
            netfast_direct(self.skb.skb)
        }
    }

    impl Show for TcContext {
        #[inline(always)]
        fn show(&self, reason: u32, out_ifindex: u32) {
            netfast_show(self.skb.skb, reason, out_ifindex);
        }
        #[inline(always)]
        fn is_wanted(&self, reason: u32, out_ifindex: u32) -> bool {
            netfast_wanted(self.skb.skb, reason, out_ifindex) != 0
        }
    }

    impl Sums for TcContext {
        #[inline(always)]
        fn has_sound_checksum(&self, field: u32, pseudo: u32, offset: u32, length: u32) -> bool {
            netfast_sound(self.skb.skb, field, pseudo, offset, length) != 0
        }
        #[inline(always)]
        fn sum_parts(&self, offset: u32, parts: u32) -> u32 {
            netfast_sum(self.skb.skb, offset, parts)
        }
        #[inline(always)]
        fn sum_rest(&self, offset: u32, length: u32) -> u32 {
            netfast_rest(self.skb.skb, offset, length)
        }
    }
}

#[cfg(not(target_arch = "bpf"))]
mod host {
    use crate::{
        ctx::fake::FakeSkb,
        fastpath::{
            checksum::{self, Sums},
            direct::{self, Forward},
            trace::{self, Show},
        },
    };

    impl Forward for FakeSkb {
        fn forward(&self) -> u64 {
            direct::forward(self).number()
        }
    }

    impl Show for FakeSkb {
        fn show(&self, reason: u32, out_ifindex: u32) {
            trace::show(self, reason, out_ifindex);
        }
        fn is_wanted(&self, reason: u32, out_ifindex: u32) -> bool {
            trace::is_wanted(self, reason, out_ifindex)
        }
    }

    impl Sums for FakeSkb {
        fn has_sound_checksum(&self, field: u32, pseudo: u32, offset: u32, length: u32) -> bool {
            checksum::examine(self, field, pseudo, offset, length)
        }
        fn sum_parts(&self, offset: u32, parts: u32) -> u32 {
            checksum::sum_parts(self, offset, parts)
        }
        fn sum_rest(&self, offset: u32, length: u32) -> u32 {
            checksum::sum_rest(self, offset, length)
        }
    }
}
