//! What signals tell the daemon, and who has started it to serve an overlay network's namespace.

use tokio::signal::unix::{Signal, SignalKind, signal};

use super::parent::Parent;
use crate::config::Config;

/// The signals that the daemon obeys.
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
    parent: Option<Parent>,
}

impl Signals {
    /// Begins to obey them, and the one that it was started by, if it serves that one.
    pub fn new(parent: Option<Parent>) -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
            parent,
        })
    }

    /// The next order.
    pub async fn next(&mut self) -> Order {
        let Some(parent) = &mut self.parent else {
            return tokio::select! {
                _ = self.terminate.recv() => Order::Stop,
                _ = self.interrupt.recv() => Order::Stop,
                _ = self.hangup.recv() => Order::Reload,
            };
        };
        loop {
            return tokio::select! {
                _ = self.terminate.recv() => Order::Stop,
                _ = self.interrupt.recv() => Order::Stop,
                // It has no file: its configuration is what it is told.
                _ = self.hangup.recv() => continue,
                told = parent.next() => match told {
                    Some(config) => Order::Configure(Box::new(config)),
                    None => Order::Stop,
                },
            };
        }
    }
}

/// What a signal asks for.
pub enum Order {
    /// To end.
    Stop,
    /// To read the configuration anew.
    Reload,
    /// To take this configuration.
    Configure(Box<Config>),
}
