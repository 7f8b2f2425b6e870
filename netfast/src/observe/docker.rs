//! The container runtime, over the Docker Engine API (<https://docs.docker.com/reference/api/engine/>).
//!
//! A [`Cache`] holds its networks and containers. Events say which of them to ask for anew; everything is listed anew
//! on each connection and on a slow timer. When the runtime is gone the cache stays as it was.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::error::Error as _;
use std::fmt::Write as _;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bollard::errors::Error as ApiError;
use bollard::query_parameters::EventsOptionsBuilder;
use bollard::{API_DEFAULT_VERSION, Docker};
use futures_util::StreamExt as _;

use self::events::Todo;
use super::change::{Change, Hints};
use crate::host::{Container, ContainerId, ContainerState, Network, NetworkId, RuntimeState};

pub(crate) mod convert;
pub(crate) mod events;

/// How long the runtime may take to answer, in seconds.
const ANSWER_TIMEOUT: u64 = 30;
/// The first pause before connecting again; each one is twice as long, up to the last.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LAST_PAUSE: Duration = Duration::from_secs(2);
/// How many events are taken in at once.
const EVENTS: usize = 256;

/// Why the runtime cannot be asked.
#[derive(Debug, thiserror::Error)]
pub enum DockerError {
    /// The address is not one that can be connected to.
    #[error("{host:?} is not a Docker host: expected unix:///PATH, tcp://HOST:PORT or http://HOST:PORT")]
    BadHost {
        /// The address.
        host: String,
    },
    /// It does not answer as a container runtime does.
    #[error("the container runtime at {host} cannot be asked: {}", chain(cause))]
    DockerUnavailable {
        /// Its address.
        host: String,
        /// Why. It is part of the message, since the API client's own texts leave out what caused them; so it is not
        /// the error's source, of which those who print sources would say it again.
        cause: ApiError,
    },
}

/// An error with its causes.
fn chain(error: &ApiError) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        // Writing to a String does not fail.
        let _ = write!(text, ": {error}");
        cause = error.source();
    }
    text
}

/// What is known of the runtime.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Cache {
    /// Whether it answers.
    pub runtime: RuntimeState,
    /// Its networks.
    pub networks: BTreeMap<NetworkId, Network>,
    /// Its running containers.
    pub containers: BTreeMap<ContainerId, Container>,
}

/// What is known, and how often it has changed.
#[derive(Debug, Default)]
struct Versioned {
    version: u64,
    cache: Cache,
}

/// A connection to the runtime, and what is known of it.
#[derive(Clone, Debug)]
pub struct Runtime {
    host: String,
    cache: Arc<Mutex<Versioned>>,
}

/// A connected client, and the time before its first question: events since then are to be heard.
pub struct Session {
    api: Api,
    since: SystemTime,
}

/// A connected client, and who answers it.
struct Api {
    client: Docker,
    kind: convert::Kind,
}

impl Runtime {
    /// Connects to `host` (`unix:///PATH`, `tcp://HOST:PORT`, `http://HOST:PORT`) and lists everything.
    pub async fn connect(host: &str) -> Result<(Self, Session), DockerError> {
        let runtime = Self {
            host: host.into(),
            cache: Arc::default(),
        };
        let session = runtime.open().await?;
        Ok((runtime, session))
    }

    /// What is known now, and its version, if that is another than what was `seen`.
    pub fn newer(&self, seen: Option<u64>) -> Option<(u64, Cache)> {
        let known = self.lock();
        (seen != Some(known.version)).then(|| (known.version, known.cache.clone()))
    }

    fn lock(&self) -> MutexGuard<'_, Versioned> {
        // A panic elsewhere cannot leave the cache half changed in a way that the next listing does not mend.
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn read_cache<T>(&self, f: impl FnOnce(&Cache) -> T) -> T {
        f(&self.lock().cache)
    }

    /// Changes what is known.
    fn with_cache<T>(&self, f: impl FnOnce(&mut Cache) -> T) -> T {
        let mut known = self.lock();
        known.version += 1;
        f(&mut known.cache)
    }

    /// Follows events, with a full listing every `resync`, and connects again whenever the connection is lost, for ever.
    pub async fn run(self, session: Session, resync: Duration, hints: Hints) {
        let mut session = Some(session);
        let mut pause = FIRST_PAUSE;
        loop {
            let error = match session.take() {
                Some(session) => {
                    pause = FIRST_PAUSE;
                    let Err(error) = self.follow(session, resync, &hints).await;
                    self.unavailable(error)
                }
                None => match self.open().await {
                    Ok(opened) => {
                        tracing::info!(host = self.host, "the container runtime answers again");
                        session = Some(opened);
                        hints.send(Change::Runtime);
                        hints.send(Change::Containers);
                        continue;
                    }
                    Err(error) => error,
                },
            };
            if self.disconnected(&error) {
                hints.send(Change::Runtime);
            }
            tokio::time::sleep(pause).await;
            pause = LAST_PAUSE.min(pause * 2);
        }
    }

    /// Notes that the runtime is gone; false if it was so already.
    fn disconnected(&self, error: &DockerError) -> bool {
        let error = error.to_string();
        let news = self.with_cache(|cache| {
            let news = !matches!(cache.runtime, RuntimeState::Disconnected { .. });
            if news {
                cache.runtime = RuntimeState::Disconnected {
                    since: SystemTime::now(),
                    error: error.clone(),
                };
            }
            news
        });
        if news {
            tracing::warn!(
                host = self.host,
                error,
                "the container runtime is gone; its last state is kept"
            );
        }
        news
    }

    fn unavailable(&self, cause: ApiError) -> DockerError {
        DockerError::DockerUnavailable {
            host: self.host.clone(),
            cause,
        }
    }

    /// Connects, and lists everything.
    async fn open(&self) -> Result<Session, DockerError> {
        let since = SystemTime::now();
        let client = match self.host.split_once("://") {
            Some(("unix", path)) if !path.is_empty() => {
                Docker::connect_with_unix(&self.host, ANSWER_TIMEOUT, API_DEFAULT_VERSION)
            }
            Some(("tcp" | "http", address)) if !address.is_empty() => {
                Docker::connect_with_http(&self.host, ANSWER_TIMEOUT, API_DEFAULT_VERSION)
            }
            _ => {
                return Err(DockerError::BadHost {
                    host: self.host.clone(),
                });
            }
        };
        let fill = async {
            // An older engine refuses a newer client's version.
            let client = client?.negotiate_version().await?;
            let version = client.version().await?;
            let (kind, engine) = convert::engine(&version);
            let api = Api { client, kind };
            self.list(&api).await?;
            let runtime = RuntimeState::Connected {
                engine,
                version: version.version.unwrap_or_default(),
                api: version.api_version.unwrap_or_default(),
            };
            self.with_cache(|cache| cache.runtime = runtime);
            Ok(api)
        };
        let api = fill.await.map_err(|error| self.unavailable(error))?;
        Ok(Session { api, since })
    }

    /// Lists everything; true if it differs from what was known. Nothing is changed before all of it has been read.
    async fn list(&self, api: &Api) -> Result<bool, ApiError> {
        let networks = api.networks().await?;
        let mut containers = BTreeMap::new();
        for id in api.running().await? {
            if let Some(container) = api.inspect(&id, &networks).await? {
                containers.insert(container.id.clone(), container);
            }
        }
        Ok(self.with_cache(|cache| {
            let news = cache.networks != networks || cache.containers != containers;
            cache.networks = networks;
            cache.containers = containers;
            news
        }))
    }

    /// Follows events until the connection is lost.
    async fn follow(&self, session: Session, resync: Duration, hints: &Hints) -> Result<Infallible, ApiError> {
        let filters = std::collections::HashMap::from([("type", vec!["container", "network"])]);
        // The subscription begins when the stream is first read, so what happened since the listing is asked for.
        let since = session
            .since
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default()
            .as_secs()
            .to_string();
        let options = EventsOptionsBuilder::default().filters(&filters).since(&since).build();
        let mut events = pin!(session.api.client.events(Some(options)).ready_chunks(EVENTS));
        let mut timer = tokio::time::interval_at(tokio::time::Instant::now() + resync, resync);
        loop {
            let news = tokio::select! {
                events = events.next() => {
                    let Some(events) = events else {
                        return Err(ApiError::DockerStreamError { error: "the event stream ended".into() });
                    };
                    let mut todo = Todo::default();
                    for event in events {
                        todo.add(event?);
                    }
                    self.refresh(&session.api, todo).await?
                }
                _ = timer.tick() => self.list(&session.api).await?,
            };
            if news {
                hints.send(Change::Containers);
            }
        }
    }

    /// Asks anew for what events named; true if it differs from what was known.
    async fn refresh(&self, api: &Api, todo: Todo) -> Result<bool, ApiError> {
        if todo.all {
            return self.list(api).await;
        }
        let mut news = false;
        if todo.networks {
            let networks = api.networks().await?;
            news |= self.with_cache(|cache| std::mem::replace(&mut cache.networks, networks.clone()) != networks);
        }
        let networks = self.read_cache(|cache| cache.networks.clone());
        for id in todo.containers {
            let mut container = api.inspect(&id, &networks).await?;
            if let Some(container) = container.as_mut().filter(|one| one.state == ContainerState::Running) {
                // Until the next listing: one that does not heed its signal is as it was.
                let was = |cache: &Cache| cache.containers.get(&container.id).map(|known| known.state);
                if todo.ending.contains(&id) || self.read_cache(was) == Some(ContainerState::Stopping) {
                    container.state = ContainerState::Stopping;
                }
            }
            news |= self.with_cache(|cache| match container {
                Some(container) => cache.containers.insert(container.id.clone(), container.clone()) != Some(container),
                None => cache.containers.remove(&ContainerId(id)).is_some(),
            });
        }
        Ok(news)
    }
}

impl Api {
    async fn networks(&self) -> Result<BTreeMap<NetworkId, Network>, ApiError> {
        let answers = self.client.list_networks(None).await?.into_iter();
        let networks = answers.filter_map(|answer| convert::network(answer, self.kind));
        Ok(networks.map(|network| (network.id.clone(), network)).collect())
    }

    /// The identifiers of the containers that run.
    async fn running(&self) -> Result<Vec<String>, ApiError> {
        let containers = self.client.list_containers(None).await?;
        Ok(containers.into_iter().filter_map(|summary| summary.id).collect())
    }

    /// Asks for one container; `None` if it does not run.
    async fn inspect(&self, id: &str, networks: &BTreeMap<NetworkId, Network>) -> Result<Option<Container>, ApiError> {
        const GONE: u16 = 404;
        match self.client.inspect_container(id, None).await {
            Ok(answer) => Ok(convert::container(answer, networks)),
            Err(ApiError::DockerResponseServerError { status_code: GONE, .. }) => Ok(None),
            // podman calls it an error of its own (500) if a container goes while it looks at it. A runtime that can list its
            // containers is not gone, and one that is not listed is.
            Err(error @ ApiError::DockerResponseServerError { .. }) => {
                if self.running().await?.iter().any(|running| running == id) {
                    return Err(error);
                }
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }
}

#[cfg(test)]
mod tests;
