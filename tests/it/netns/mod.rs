//! The namespace ring: where packets really go.
//!
//! Real sockets in namespaces that play containers, with the kernel's rules between them and netfast running: data is
//! bit-exact and takes the fast path, connections open and close as without netfast, and whatever changes under a
//! flow's feet is noticed.

mod changes;
mod closing;
mod counting;
mod echo;
mod handed_on;
mod hostile;
pub mod judges;
mod kernel;
mod kinds;
pub mod lab;
mod lists;
mod one_way;
mod openvswitch;
mod own_rules;
mod paths;
mod quiet;
mod rates;
mod says;
mod six;
mod staleness;
mod trace;
mod transfer;
mod tunnel;
mod uplinks;
mod verbs;
mod xdp;
