//! The start: the container runtime may be long in coming.

use std::{future::pending, pin::pin};

use tokio::{
    sync::mpsc::Receiver,
    time::{Duration, Instant, sleep, sleep_until},
};
use tracing::{error, info, warn};

use super::{
    DaemonError, READY_TIMEOUT, Settings,
    retry::Backoff,
    service::{self, Service},
    signals::{Order, Signals},
};
use crate::{
    config::{Config, Runtime},
    observe::{Change, ObserveError, Observer, ObserverConfig},
};

/// The runtime is asked at least this often: its socket is near, and who has just started it is waiting.
const LONGEST: Duration = Duration::from_secs(10);

/// A daemon that waits for its runtime.
pub(super) struct Waiting<'a> {
    settings: &'a Settings,
    config: &'a mut Config,
    signals: &'a mut Signals,
    service: &'a mut Service,
    /// When the service manager hears that the start is done, though it is not: a host without a runtime must get up.
    patience: Option<Instant>,
    /// What is waited for, and why.
    status: String,
    /// The service manager takes it for started, and wants signs of life from then on.
    is_up: bool,
}

impl<'a> Waiting<'a> {
    pub(super) fn new(
        settings: &'a Settings,
        config: &'a mut Config,
        signals: &'a mut Signals,
        service: &'a mut Service,
    ) -> Self {
        Self {
            patience: settings.wait.then(|| Instant::now() + READY_TIMEOUT),
            settings,
            config,
            signals,
            service,
            status: "waiting for the container runtime".into(),
            is_up: false,
        }
    }

    /// Begins to observe. If the runtime does not answer and that is to be waited for, it is asked again and again.
    /// `None`: a signal said to stop.
    pub(super) async fn observer(mut self) -> Result<Option<(Observer, Receiver<Change>)>, DaemonError> {
        let mut backoff = Backoff::default();
        let mut is_told = false;
        loop {
            let docker_host = (self.config.runtime == Runtime::Docker).then(|| self.config.docker_host.clone());
            let start = Observer::start(ObserverConfig {
                docker_host,
                ..ObserverConfig::default()
            });
            let error = match self.alive(start).await {
                Next::Done(Ok(started)) => {
                    if is_told {
                        info!("the container runtime answers");
                    }
                    return Ok(Some(started));
                }
                Next::Done(Err(ObserveError::Docker(error))) if self.settings.wait => anyhow::Error::new(error),
                Next::Done(Err(error)) => return Err(error.into()),
                Next::Again => continue,
                Next::Stop => return Ok(None),
            };
            let status = format!("waiting for the container runtime: {error:#}");
            if self.status != status {
                warn!("{status}");
                self.status.clone_from(&status);
                is_told = true;
            }
            self.service.status(status);
            if let Next::Stop = self.alive(sleep(backoff.failed().min(LONGEST))).await {
                return Ok(None);
            }
        }
    }

    fn up(&mut self) {
        self.service.ready(self.status.clone());
        self.is_up = true;
    }

    /// Waits for something, obeys signals and shows signs of life meanwhile.
    async fn alive<T>(&mut self, what: impl Future<Output = T>) -> Next<T> {
        let mut what = pin!(what);
        loop {
            if self.is_up {
                self.service.beat();
            }
            let patience = self.patience;
            let late = async {
                match patience {
                    Some(patience) => sleep_until(patience).await,
                    None => pending().await,
                }
            };
            tokio::select! {
                biased;
                done = &mut what => return Next::Done(done),
                order = self.signals.next() => match order {
                    Order::Stop => {
                        service::stopping();
                        return Next::Stop;
                    }
                    Order::Reload => {
                        service::reloading();
                        match self.settings.config() {
                            Ok(new) => *self.config = new,
                            Err(error) => error!("the configuration stays as it was: {:#}", anyhow::Error::new(error)),
                        }
                        self.up();
                        // Perhaps of another runtime.
                        return Next::Again;
                    }
                    Order::Configure(new) => {
                        *self.config = *new;
                        return Next::Again;
                    }
                },
                () = late => {
                    self.patience = None;
                    self.up();
                }
                () = self.service.beat_due(), if self.is_up => {}
            }
        }
    }
}

/// How waiting ended.
enum Next<T> {
    /// With what was waited for.
    Done(T),
    /// With another configuration.
    Again,
    /// With a signal to stop.
    Stop,
}
