//! The differential test: the oracle is the kernel.
//!
//! Each case is a topology, a rule set and a script of packets and events. It runs once with netfast off and once with
//! it on, and everything must be the same: what each station received, byte for byte where it matters; who received
//! nothing; the errors that senders got; and what conntrack knows at the end. Scripts first bring their flows onto the
//! fast path, and fail if that does not happen; then the odd packets come.
//!
//! - [`wire`], [`describe`], [`ip`]: packets to bytes, and bytes to lines that can be compared;
//! - [`station`], [`fence`], [`world`]: who sends and observes, and when a step is over;
//! - [`conversation`]: flows that scripts keep up by hand;
//! - [`runner`]: off, on, compare;
//! - [`generated`]: cases made from seeds, thousands if need be;
//! - the others: cases, by subject.

mod conversation;
mod describe;
mod fence;
mod generated;
mod headers;
mod helper;
mod icmp;
mod ip;
mod judged;
mod programs;
mod queue;
mod routes;
mod rules;
mod runner;
pub(crate) mod station;
mod tcp;
mod window;
mod wire;
mod world;
