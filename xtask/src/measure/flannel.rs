//! Two hosts with pods as flannel's backend `vxlan` has them, with netfast on both.

use std::path::Path as File;

use anyhow::Result;
use netfast_tests::{
    hosts::{Hosts, Kind},
    netfast_proc::{NetfastProc, Options},
};

use super::lab::Ends;

/// The hosts; the client is on the first.
#[derive(Debug)]
pub struct Flannel {
    hosts: Hosts,
}

impl Flannel {
    /// Makes them, with what flanneld makes of devices, routes, neighbours, forwarding entries and rules.
    pub fn new() -> Result<Self> {
        let hosts = Hosts::new(Kind::Routed, "")?;
        for host in &hosts.hosts {
            host.add_rules_of_flannel()?;
        }
        Ok(Self { hosts })
    }

    /// netfast as it is to be started on one of the hosts.
    pub fn prepare(&self, number: usize) -> Result<NetfastProc> {
        let options = Options {
            config: Some("tunnels = true\n".into()),
            ..Options::no_runtime()
        };
        NetfastProc::prepare(&self.hosts.hosts[number].ns, options)
    }

    /// Client and server.
    pub fn ends(&self) -> Ends {
        let [near, far] = &self.hosts.hosts;
        Ends {
            client: near.container.handle(),
            servers: vec![far.container.handle()],
            address: far.container_ip.into(),
        }
    }

    /// Starts netfast on the other host, too.
    pub fn start(&self, program: Option<&File>) -> Result<NetfastProc> {
        let mut there = self.prepare(1)?;
        if let Some(program) = program {
            there.use_program(program);
        }
        there.launch()?;
        Ok(there)
    }
}
