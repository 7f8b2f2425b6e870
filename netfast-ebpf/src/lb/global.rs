//! Global functions, see [`Calls`](super::Calls). On the host they are called straight.

#[cfg(target_arch = "bpf")]
mod bpf {
    use aya_ebpf::{bindings::__sk_buff, programs::TcContext};

    use crate::{
        lb::{
            self, Calls, failover, icmp,
            read::{self, Read},
            select,
        },
        packet::{Family as _, V4, V6},
    };

    // An argument that a function does not use would be left out by its callers' compiler, and missed by the verifier. The
    // context is recognised by the name of its type, and a function must return a number.

    #[inline(never)]
    #[unsafe(no_mangle)]
    pub extern "C" fn netfast_vip_member(opens: u32, flags: u32) -> u32 {
        lb::member::<TcContext>(opens, flags)
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
    pub extern "C" fn netfast_vip_read6(skb: *mut __sk_buff, what: u32) -> u32 {
        read::read6(&TcContext::new(skb), what)
    }

    macro_rules! of_both_families {
        ($($name4:ident, $name6:ident($($way:ident: u32)?) $module:ident::$function:ident;)+) => {
            $(
                #[inline(never)]
                #[unsafe(no_mangle)]
                pub extern "C" fn $name4(skb: *mut __sk_buff $(, $way: u32)?) -> u32 {
                    $module::$function::<V4, TcContext>(&TcContext::new(skb) $(, $way)?)
                }

                #[inline(never)]
                #[unsafe(no_mangle)]
                pub extern "C" fn $name6(skb: *mut __sk_buff $(, $way: u32)?) -> u32 {
                    $module::$function::<V6, TcContext>(&TcContext::new(skb) $(, $way)?)
                }
            )+
        };
    }

    of_both_families! {
        netfast_vip_talk, netfast_vip_talk6(way: u32) lb::translate;
        netfast_vip_echo, netfast_vip_echo6(way: u32) icmp::echo_message;
        netfast_vip_retry, netfast_vip_retry6() failover::refused;
        netfast_vip_icmp_error, netfast_vip_icmp_error6(way: u32) icmp::error_message;
    }

    const fn is_v4<F: Read>() -> bool {
        F::NUMBER == V4::NUMBER
    }

    impl Calls for TcContext {
        #[inline(always)]
        fn member(opens: u32, flags: u32) -> u32 {
            netfast_vip_member(opens, flags)
        }
        #[inline(always)]
        fn read6(&self, what: u32) -> u32 {
            netfast_vip_read6(self.skb.skb, what)
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
        fn translate<F: Read>(&self, way: u32) -> u32 {
            if is_v4::<F>() {
                netfast_vip_talk(self.skb.skb, way)
            } else {
                netfast_vip_talk6(self.skb.skb, way)
            }
        }
        #[inline(always)]
        fn refused<F: Read>(&self) -> u32 {
            if is_v4::<F>() {
                netfast_vip_retry(self.skb.skb)
            } else {
                netfast_vip_retry6(self.skb.skb)
            }
        }
        #[inline(always)]
        fn icmp_echo<F: Read>(&self, way: u32) -> u32 {
            if is_v4::<F>() {
                netfast_vip_echo(self.skb.skb, way)
            } else {
                netfast_vip_echo6(self.skb.skb, way)
            }
        }
        #[inline(always)]
        fn icmp_error<F: Read>(&self, way: u32) -> u32 {
            if is_v4::<F>() {
                netfast_vip_icmp_error(self.skb.skb, way)
            } else {
                netfast_vip_icmp_error6(self.skb.skb, way)
            }
        }
    }
}

#[cfg(not(target_arch = "bpf"))]
mod host {
    use crate::{
        ctx::fake::FakeSkb,
        lb::{
            self, Calls, failover, icmp,
            read::{self, Read},
            select,
        },
    };

    impl Calls for FakeSkb {
        fn member(opens: u32, flags: u32) -> u32 {
            lb::member::<Self>(opens, flags)
        }
        fn read6(&self, what: u32) -> u32 {
            read::read6(self, what)
        }
        fn select() -> u32 {
            select::select()
        }
        fn next_backend() -> u32 {
            failover::next_backend::<Self>()
        }
        fn translate<F: Read>(&self, way: u32) -> u32 {
            lb::translate::<F, Self>(self, way)
        }
        fn refused<F: Read>(&self) -> u32 {
            failover::refused::<F, Self>(self)
        }
        fn icmp_echo<F: Read>(&self, way: u32) -> u32 {
            icmp::echo_message::<F, Self>(self, way)
        }
        fn icmp_error<F: Read>(&self, way: u32) -> u32 {
            icmp::error_message::<F, Self>(self, way)
        }
    }
}
