//! A configuration that comes while the daemon runs, and the end of what it was for.

use std::time::Duration;

use tokio::time::Instant;
use tracing::{error, info, warn};

use super::{Daemon, words};
use crate::{
    config::Config,
    host::{Link, LinkKind},
};

/// For this long the namespace of an overlay network may be without a VXLAN device.
const DESERTED: Duration = Duration::from_millis(1500);

impl Daemon {
    /// Reads the configuration anew; a wrong one changes nothing.
    pub(super) fn reload(&mut self) {
        let new = match self.settings.config() {
            Ok(new) => new,
            Err(error) => {
                error!("the configuration stays as it was: {:#}", anyhow::Error::new(error));
                return;
            }
        };
        let old = &self.config;
        if (new.runtime, &new.docker_host, new.flows) != (old.runtime, &old.docker_host, old.flows) {
            warn!("runtime, docker_host and flows take effect at the next start");
        }
        let new = Config {
            runtime: old.runtime,
            docker_host: old.docker_host.clone(),
            flows: old.flows,
            ..new
        };
        self.configure(new);
    }

    /// Takes a new one.
    pub(super) fn configure(&mut self, new: Config) {
        info!("configuration reloaded: {}", words::changes(&self.config, &new));
        self.config = new;
    }

    /// Whether this is the namespace of an overlay network, and the engine has taken the network's VXLAN device away: it takes
    /// the namespace away, too, which goes when nobody is in it.
    pub(super) fn is_deserted(&mut self) -> bool {
        let is_port = |link: &Link| matches!(link.kind, LinkKind::Vxlan(_)) && link.master.is_some();
        if self.config.sandbox.is_none() || self.host.served().links.values().any(is_port) {
            self.deserted = None;
            return false;
        }
        let since = *self.deserted.get_or_insert_with(Instant::now);
        since.elapsed() >= DESERTED
    }
}
