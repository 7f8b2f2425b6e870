//! Global functions: the verifier looks at each once, and not on each path that calls it.

use aya_ebpf::{bindings::__sk_buff, programs::TcContext};

use crate::{checksum, dns, dns::Step, maps};

/// A global function, which the verifier looks at once and not on each path that calls it: that would cost forty
/// times as much. Its first argument is the context by the name of its type; it must return a number.
#[inline(never)]
#[unsafe(no_mangle)]
pub extern "C" fn netfast_show(skb: *mut __sk_buff, reason: u32, out_ifindex: u32) -> u32 {
    crate::trace::show(&TcContext::new(skb), reason, out_ifindex);
    0
}

/// As above.
#[inline(never)]
#[unsafe(no_mangle)]
pub extern "C" fn netfast_wanted(skb: *mut __sk_buff, reason: u32, out_ifindex: u32) -> u32 {
    crate::trace::is_wanted(&TcContext::new(skb), reason, out_ifindex).into()
}

/// As above: it has one way for each way that a checksum can be right.
#[inline(never)]
#[unsafe(no_mangle)]
pub extern "C" fn netfast_sound(skb: *mut __sk_buff, field: u32, pseudo: u32, offset: u32, length: u32) -> u32 {
    checksum::examine(&TcContext::new(skb), field, pseudo, offset, length).into()
}

/// As above: a loop over the packet.
#[inline(never)]
#[unsafe(no_mangle)]
pub extern "C" fn netfast_sum(skb: *mut __sk_buff, offset: u32, parts: u32) -> u32 {
    checksum::sum_parts(&TcContext::new(skb), offset, parts)
}

/// As above.
#[inline(never)]
#[unsafe(no_mangle)]
pub extern "C" fn netfast_rest(skb: *mut __sk_buff, offset: u32, length: u32) -> u32 {
    checksum::sum_rest(&TcContext::new(skb), offset, length)
}

/// As above, for each step of [`dns`]: they loop over bytes. An argument that a function does not use would be left
/// out by its callers' compiler, and missed by the verifier.
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
    netfast_dns_virtual() Step::Virtual;
    netfast_dns_shorten() Step::Shorten;
    netfast_dns_sum() Step::Sum;
}

/// As above: once, and not for each way that its result leads to.
#[inline(never)]
#[unsafe(no_mangle)]
pub extern "C" fn netfast_vip_member(opens: u32, flags: u32) -> u32 {
    crate::vip::member(opens, flags)
}

/// As above.
#[inline(never)]
#[unsafe(no_mangle)]
pub extern "C" fn netfast_vip_talk(skb: *mut __sk_buff, way: u32) -> u32 {
    crate::vip::talk(&TcContext::new(skb), way)
}

/// As above.
#[inline(never)]
#[unsafe(no_mangle)]
pub extern "C" fn netfast_vip_icmp(skb: *mut __sk_buff, way: u32) -> u32 {
    crate::vip::icmp::message(&TcContext::new(skb), way)
}

/// As above.
#[inline(never)]
#[unsafe(no_mangle)]
pub extern "C" fn netfast_vip_choose() -> u32 {
    crate::vip::choose::choose()
}

/// Runs [`choose`](crate::vip::choose::choose) out of line.
#[inline(always)]
pub fn vip_choose() -> u32 {
    netfast_vip_choose()
}

/// As above.
#[inline(never)]
#[unsafe(no_mangle)]
pub extern "C" fn netfast_vip_another() -> u32 {
    crate::vip::retry::another()
}

/// Runs [`another`](crate::vip::retry::another) out of line.
#[inline(always)]
pub fn vip_another() -> u32 {
    netfast_vip_another()
}

/// As above.
#[inline(never)]
#[unsafe(no_mangle)]
pub extern "C" fn netfast_vip_retry(skb: *mut __sk_buff) -> u32 {
    crate::vip::retry::refused(&TcContext::new(skb))
}
