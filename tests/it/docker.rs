//! netfast on real Docker hosts: a real dockerd, real containers, real traffic.
//!
//! What goes well must also have gone by the fast path: every test looks at the counts.

mod aliases;
pub mod bed;
mod broken;
mod cgroup;
mod churn;
mod dual;
mod gateways;
mod instances;
mod life;
mod localhost;
mod macvlan;
mod networks;
mod paths;
mod podman;
mod policy;
mod ports;
mod resolver;
mod says;
mod segments;
mod six;
mod swarm;
mod switches;
mod vips;
mod xdp;
