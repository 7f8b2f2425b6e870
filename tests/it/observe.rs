//! What the daemon observes: snapshots hold what is there, hints come when and only when something matters.

use std::{
    collections::BTreeSet,
    future::Future,
    time::{Duration, Instant},
};

use netfast::{
    host::Host,
    observe::{Change, Observer, ObserverConfig},
};
use netfast_tests::netns::NsHandle;
use tokio::{runtime::Builder, sync::mpsc::Receiver, time::timeout};

mod docker;
mod few;
mod matches;
mod netlink;
mod netns;
mod rules;
mod software;

/// Time enough for a hint, polled ones included.
const SOON: Duration = Duration::from_secs(5);
/// How long it must be quiet to count as quiet: more than one poll.
const QUIET: Duration = Duration::from_millis(400);

/// An observer at work, and its hints.
struct Watch {
    observer: Observer,
    hints: Receiver<Change>,
}

impl Watch {
    /// Hints until there are none for a while, and whether one of them was `wanted`. Waits for it.
    async fn hints(&mut self, wanted: Option<Change>) -> BTreeSet<Change> {
        let mut seen = BTreeSet::new();
        let deadline = Instant::now() + SOON;
        loop {
            let done = wanted.is_none_or(|wanted| seen.contains(&wanted));
            let patience = if done { QUIET } else { deadline - Instant::now() };
            match timeout(patience, self.hints.recv()).await {
                Ok(Some(change)) => {
                    seen.insert(change);
                }
                Ok(None) => panic!("the observer ended"),
                Err(_) => return seen,
            }
        }
    }

    async fn snapshot(&self) -> Host {
        self.observer.snapshot().await.expect("a snapshot")
    }
}

/// Runs `body` with an observer in the namespace `ns`, on a thread that is there.
fn watch<F: Future<Output = ()>>(ns: &NsHandle, docker_host: Option<String>, body: impl FnOnce(Watch) -> F + Send) {
    ns.run(|| {
        let runtime = Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a tokio runtime");
        runtime.block_on(async {
            let config = ObserverConfig {
                docker_host,
                poll_interval: Duration::from_millis(100),
                ..ObserverConfig::default()
            };
            let (observer, hints) = Observer::start(config).await.expect("an observer");
            body(Watch { observer, hints }).await;
        });
    })
    .expect("the namespace can be entered");
}
