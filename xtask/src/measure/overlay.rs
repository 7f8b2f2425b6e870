//! An overlay network of two hosts, with netfast on both.

use std::{path::Path as File, time::Duration};

use anyhow::{Context as _, Result};
use netfast_tests::{
    cmd,
    docker_host::{DockerHost, Options},
    netfast_proc::{self, NetfastProc},
    swarm,
};
use serde_json::Value;

use super::lab::Ends;

const NETWORK: &str = "ov";
const CLIENT: &str = "ov-client";
const SERVER: &str = "ov-server";
/// For so long at most netfast gets into the network's namespaces.
const PATIENCE: Duration = Duration::from_mins(1);

/// The other host, with the server; the client is on the first.
#[derive(Debug)]
pub struct Overlay {
    far: DockerHost,
}

impl Overlay {
    /// Makes the other host, the network and the containers.
    pub fn new(host: &DockerHost, options: Options) -> Result<Self> {
        let far = DockerHost::start(options)?;
        swarm::join([host, &far])?;
        swarm::create_network(host, NETWORK, "10.9.0.0/24")?;
        host.run_container(CLIENT, NETWORK, &[], &[])?;
        far.run_container(SERVER, NETWORK, &[], &[])?;
        let overlay = Self { far };
        overlay.meet(host)?;
        Ok(overlay)
    }

    /// Client and server.
    pub fn ends(&self, host: &DockerHost) -> Result<Ends> {
        Ok(Ends {
            client: host.container_netns(CLIENT)?,
            servers: vec![self.far.container_netns(SERVER)?],
            address: self.far.container_ip(SERVER, NETWORK)?.into(),
        })
    }

    fn meet(&self, host: &DockerHost) -> Result<()> {
        swarm::meet(host, CLIENT, self.far.container_ip(SERVER, NETWORK)?)
    }

    /// Starts netfast on the other host, too, and waits until both are in the network's namespaces.
    pub fn start(&self, host: &DockerHost, here: &NetfastProc, program: Option<&File>) -> Result<NetfastProc> {
        let options = netfast_proc::Options::docker(self.far.docker_host());
        let mut there = NetfastProc::prepare(self.far.host(), options)?;
        if let Some(program) = program {
            there.use_program(program);
        }
        there.launch()?;
        for (netfast, container) in [(here, CLIENT), (&there, SERVER)] {
            let is_fast = || {
                // A bridge that has just been asked about knows who has spoken.
                self.meet(host).ok()?;
                let status: Value = netfast.status().ok()?;
                let networks = status["networks"].as_array()?;
                let network = networks.iter().find(|network| network["name"] == NETWORK)?;
                let endpoints = network["endpoints"].as_array()?;
                let endpoint = endpoints.iter().find(|endpoint| endpoint["container"] == container)?;
                (endpoint["path"] == "fast" && !endpoint["traffic"].is_null()).then_some(())
            };
            cmd::poll("an overlay network on the fast path", PATIENCE, is_fast)
                .with_context(|| format!("netfast said:\n{}", netfast.log()))?;
        }
        Ok(there)
    }
}
