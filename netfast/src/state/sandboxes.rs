//! What the daemons in the namespaces of overlay networks have said, beside what the host's own has.
//!
//! Each has directories of its own below those of the host's: `overlay/<network>-<namespace>`, twelve characters of the
//! network's identifier and the inode of the namespace.

use std::{
    fs,
    path::{Path as File, PathBuf},
};

use crate::{
    host::{NetnsId, NetworkId},
    plan::report::{EndpointReport, InSandbox, NetworkReport, Path, Slow, Why},
    state::{State, StateError},
};

/// The directory that has them all.
const DIRECTORY: &str = "overlay";

/// What the directories for a namespace are called.
pub fn name(network: &NetworkId, netns: NetnsId) -> String {
    format!("{}-{}", network.short(), netns.ino)
}

/// The directory of a namespace below that of the host's.
pub fn directory(base: &File, name: &str) -> PathBuf {
    base.join(DIRECTORY).join(name)
}

/// The directories that there are below one of the host's, with their names.
pub fn directories(base: &File) -> Vec<(String, PathBuf)> {
    let entries = fs::read_dir(base.join(DIRECTORY)).into_iter().flatten().flatten();
    let mut found: Vec<_> = entries
        .filter_map(|entry| {
            let name = entry.file_name().to_str()?.to_owned();
            let (_, netns) = name.rsplit_once('-')?;
            netns.parse::<u64>().ok()?;
            Some((name, entry.path()))
        })
        .collect();
    found.sort();
    found
}

/// Removes the directory that has them all, if it is empty.
pub fn remove_if_empty(base: &File) {
    let _ = fs::remove_dir(base.join(DIRECTORY));
}

impl State {
    /// Reads the file, and with it what those in overlay networks' namespaces say; `None` if there is none.
    pub fn read_whole(run_dir: &File) -> Result<Option<Self>, StateError> {
        let Some(mut state) = Self::read(run_dir)? else {
            return Ok(None);
        };
        for (name, directory) in directories(run_dir) {
            // One that comes or goes has none.
            if let Ok(Some(sandbox)) = Self::read(&directory) {
                state.merge(&name, &sandbox);
            }
        }
        Ok(Some(state))
    }

    /// What the directories are called for the namespace of the overlay network with this name, or whose identifier begins so.
    pub fn sandbox_of(&self, run_dir: &File, network: &str) -> Option<String> {
        let mut networks = self.networks.iter().filter(|one| one.driver == "overlay");
        let found = networks.find(|one| one.name == network || (network.len() >= 4 && one.id.starts_with(network)))?;
        let mut all = directories(run_dir).into_iter().map(|(name, _)| name);
        all.find(|name| is_of(name, found))
    }

    /// Puts what is said of an overlay network in its namespace in the place of what the host's daemon knows.
    fn merge(&mut self, name: &str, sandbox: &Self) {
        // There is room for so many flows, and so much memory for them.
        self.config.flows = self.config.flows.saturating_add(sandbox.config.flows);
        self.table_bytes += sandbox.table_bytes;
        let mut networks = self.networks.iter_mut().filter(|network| network.driver == "overlay");
        let Some(network) = networks.find(|network| is_of(name, network)) else {
            return;
        };
        // What the operator has switched off stays so.
        if !matches!(network.path, Path::Slow(Slow { why: Why::Overlay, .. })) {
            return;
        }
        // Those in whose bridge nobody is have nothing to say.
        let bridges: Vec<_> = sandbox
            .networks
            .iter()
            .filter(|one| !one.endpoints.is_empty())
            .collect();
        let Some(first) = bridges.first() else { return };
        network.path = first.path.clone();
        network.host = first.host.clone();
        network.ipv6 = first.ipv6.clone();
        network.direct.clone_from(&first.direct);
        network.deciders = first.deciders.clone();
        network.deciders6 = first.deciders6.clone();
        for endpoint in &mut network.endpoints {
            let inside = bridges.iter().flat_map(|bridge| &bridge.endpoints);
            let inside = inside.clone().find(|inside| is_same(inside, endpoint));
            match inside {
                Some(inside) => put(endpoint, name, inside),
                None if is_overlay(&endpoint.path) => endpoint.path = Path::slow(Why::NoMac),
                None => {}
            }
        }
        if let Some(why) = &sandbox.learning_off {
            let text = format!("no flow is learned in its namespace: {why}");
            network.path = Path::slow_since(Why::Overlay, text);
        }
    }
}

/// Whether directories of this name are of a network.
fn is_of(name: &str, network: &NetworkReport) -> bool {
    let digits = name.rsplit_once('-').map(|(digits, _)| digits);
    digits.is_some_and(|digits| !digits.is_empty() && network.id.starts_with(digits))
}

fn is_overlay(path: &Path) -> bool {
    matches!(path, Path::Slow(Slow { why: Why::Overlay, .. }))
}

/// Whether the runtime and the bridge speak of the same interface.
fn is_same(inside: &EndpointReport, endpoint: &EndpointReport) -> bool {
    inside.mac.is_some() && inside.mac == endpoint.mac
}

fn put(endpoint: &mut EndpointReport, name: &str, inside: &EndpointReport) {
    endpoint.veth.clone_from(&inside.veth);
    endpoint.direct.clone_from(&inside.direct);
    endpoint.isolated = inside.isolated;
    endpoint.is_cut_off = inside.is_cut_off;
    endpoint.path = inside.path.clone();
    endpoint.sandbox = inside.ifindex.map(|ifindex| InSandbox {
        directory: name.into(),
        ifindex,
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network(id: &str, driver: &str, path: Path, endpoints: Vec<EndpointReport>) -> NetworkReport {
        NetworkReport {
            id: id.into(),
            name: driver.into(),
            driver: driver.into(),
            path,
            endpoints,
            ..NetworkReport::default()
        }
    }

    fn endpoint(container: &str, mac: Option<&str>, path: Path) -> EndpointReport {
        EndpointReport {
            container: container.into(),
            mac: mac.map(Into::into),
            ifindex: mac.map(|_| 7),
            path,
            ..EndpointReport::default()
        }
    }

    fn state(networks: Vec<NetworkReport>) -> State {
        State {
            networks,
            ..State::default()
        }
    }

    const ID: &str = "kngzndsf3xwverf0om3blx1ay";
    const NAME: &str = "kngzndsf3xwv-4026533872";

    fn outside(path: Path) -> State {
        let containers = vec![
            endpoint("one", Some("02:42:0a:00:09:04"), path.clone()),
            endpoint("quiet", Some("02:42:0a:00:09:05"), path.clone()),
        ];
        state(vec![
            network("ygp2defkt0", "overlay", Path::slow(Why::Overlay), vec![]),
            network(ID, "overlay", path, containers),
        ])
    }

    fn inside() -> State {
        let ports = vec![
            endpoint("veth0", None, Path::slow(Why::NoMac)),
            endpoint("veth1", Some("02:42:0a:00:09:04"), Path::Fast),
        ];
        state(vec![network("", "bridge", Path::Fast, ports)])
    }

    #[test]
    fn an_overlay_network_is_as_its_namespace_says() {
        let mut whole = outside(Path::slow(Why::Overlay));
        whole.merge(NAME, &inside());
        let [other, network] = &whole.networks[..] else {
            panic!("two networks");
        };
        assert!(!other.path.is_fast() && network.path.is_fast());
        let [one, quiet] = &network.endpoints[..] else {
            panic!("two endpoints");
        };
        assert!(one.path.is_fast());
        assert_eq!(
            one.sandbox
                .as_ref()
                .map(|inside| (inside.directory.as_str(), inside.ifindex)),
            Some((NAME, 7))
        );
        assert_eq!(quiet.path, Path::slow(Why::NoMac), "the bridge has not heard from it");
    }

    #[test]
    fn what_is_switched_off_stays_so() {
        let before = outside(Path::slow(Why::DisabledByLabel));
        let mut whole = before.clone();
        whole.merge(NAME, &inside());
        assert_eq!(whole.networks, before.networks);
    }

    #[test]
    fn directories_are_known_by_their_names() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        for name in [NAME, "other", "kngzndsf3xwv-x"] {
            fs::create_dir_all(directory(dir.path(), name)).expect("a directory");
        }
        let network = NetworkId(ID.into());
        assert_eq!(
            name(
                &network,
                NetnsId {
                    dev: 4,
                    ino: 4_026_533_872
                }
            ),
            NAME
        );
        assert_eq!(
            directories(dir.path()),
            [(NAME.to_owned(), directory(dir.path(), NAME))]
        );
        assert!(directories(&dir.path().join("none")).is_empty());
    }
}
