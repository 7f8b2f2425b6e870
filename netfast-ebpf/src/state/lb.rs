//! What a program for virtual addresses works on, in memory of the CPU's own: it would not fit the stack.

use netfast_common::{
    alias::MemberKey,
    device::DeviceKey,
    flow::FlowKey,
    net::{Ip4, Ip6},
    vip::{Backend, Conn, ConnKey, Service, SlotKey, Syn},
};

use crate::ctx::Headers;

/// One packet's.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Work {
    /// What the virtual address stands for.
    pub service: Service,
    /// What is known of the packet's direction.
    pub conn: Conn,
    /// What is to be stored of the other one.
    pub other_conn: Conn,
    /// Key of a member.
    pub member: MemberKey,
    /// Key of a slot.
    pub slot: SlotKey,
    /// Key of the packet's direction.
    pub key: ConnKey,
    /// Key of the other one.
    pub other: ConnKey,
    /// Key under which a member would answer.
    pub tried: ConnKey,
    /// Key of the flow that goes straight to a member, of IPv4.
    pub(super) straight4: FlowKey<Ip4>,
    /// The same of IPv6.
    pub(super) straight6: FlowKey<Ip6>,
    /// The interface whose hook runs.
    pub device: DeviceKey,
    /// The member that was chosen.
    pub backend: Backend,
    /// The SYN that opened the connection.
    pub syn: Syn,
    /// Room for headers that are to be written.
    pub headers: Headers,
}

netfast_common::assert_no_padding!(
    Work,
    Service,
    [Conn; 2],
    MemberKey,
    SlotKey,
    [ConnKey; 3],
    FlowKey<Ip4>,
    FlowKey<Ip6>,
    DeviceKey,
    Backend,
    Syn,
    Headers,
);
