//! What Open vSwitch does with a packet between the hook that it entered by and the one that it leaves by.
//!
//! A datapath is like a bridge to the hooks at its ports: what enters by one leaves by another in the same run of the kernel,
//! and netfast repeats that. But its flows can do more with a packet than that: send copies elsewhere (mirrors, groups), show it to
//! a controller or a sampler, count it in a meter, have conntrack look at it. None of that is seen where the packet leaves, so
//! each action is looked at where it is executed, and a packet with which more happens is not learned from. As each conversation
//! asks the kernel again once a second, what the flows are changed to holds within a second, whoever changed them and
//! whether or not the daemon is alive.
//!
//! Packets that a datapath has shown to `ovs-vswitchd` and gets back to execute (`OVS_PACKET_CMD_EXECUTE`) came in by no
//! interface as far as the kernel says (`skb_iif` is 0), which the candidate tells.

use netfast_common::reason::Reason;

use crate::{fastpath::verdict, learn::candidate, tunnel};

/// The header of an attribute of netlink (`struct nlattr`, linux/netlink.h).
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Attribute {
    /// Bytes of header and content.
    pub length: u16,
    /// Which one it is.
    pub kind: u16,
}

/// `OVS_ACTION_ATTR_OUTPUT` (linux/openvswitch.h, as the others): to one port.
const OUTPUT: u16 = 1;
/// `OVS_ACTION_ATTR_PUSH_VLAN`.
const PUSH_VLAN: u16 = 4;
/// `OVS_ACTION_ATTR_POP_VLAN`.
const POP_VLAN: u16 = 5;
/// `OVS_ACTION_ATTR_SET_MASKED`: bits of headers, which where the packet leaves is compared with what entered.
const SET_MASKED: u16 = 11;

/// A datapath is about to execute an action; `rest` is how many bytes of actions there are from this one on. Of one that the
/// kernel does not show nothing is known.
#[inline(always)]
pub fn at_action(action: Option<Attribute>, rest: i32) {
    if action.is_some_and(|action| hands_on(action, rest)) {
        return;
    }
    if candidate::forget_any() {
        verdict::count(Reason::OvsActions.number(), 0);
    }
    tunnel::forget();
}

/// Whether an action does nothing with a packet that could not be seen where it leaves. What is sent to a port before the last
/// action is a copy (`do_execute_actions`, net/openvswitch/actions.c).
const fn hands_on(action: Attribute, rest: i32) -> bool {
    match action.kind {
        OUTPUT => action.length as i32 == rest,
        SET_MASKED | PUSH_VLAN | POP_VLAN => true,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_seen_where_a_packet_leaves_may_be_repeated() {
        let is_so = |kind, rest| hands_on(Attribute { length: 8, kind }, rest);
        assert!(is_so(OUTPUT, 8), "the last action");
        assert!(!is_so(OUTPUT, 16), "a copy: a mirror, or a group");
        for kind in [SET_MASKED, PUSH_VLAN, POP_VLAN] {
            assert!(is_so(kind, 16));
        }
        let userspace_sample_recirculate_hash_conntrack_truncate_meter_clone_drop = [2, 6, 7, 8, 12, 13, 19, 20, 24];
        for kind in userspace_sample_recirculate_hash_conntrack_truncate_meter_clone_drop {
            assert!(!is_so(kind, 8), "{kind}");
        }
        assert!(!is_so(0, 8) && !is_so(u16::MAX, 8), "not known");
    }
}
