//! macvlan networks whose containers and host may reach each other, because their owner wants it.

use std::{collections::BTreeMap, net::IpAddr};

use netfast_common::{
    device::DeviceKey,
    macvlan::{AddressKey, Station, StationKey},
};

use crate::{
    host::{Attachment, Container, Link, Mac, Network},
    plan::{Build, labels},
};

/// The host and the network's containers reach each other.
pub const LABEL: &str = "netfast.macvlan-host";
/// Docker's option that names the parent (drivers/macvlan in moby's libnetwork).
const OPTION_PARENT: &str = "parent";
/// Docker's option that says what the kernel lets its containers do; without it `bridge`.
const OPTION_MODE: &str = "macvlan_mode";

/// Who is behind which parent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Macvlans {
    /// The parents that need the program, with their names.
    pub parents: BTreeMap<DeviceKey, String>,
    /// What the program is told.
    pub table: MacvlanTable,
}

/// The maps.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MacvlanTable {
    /// MAC addresses.
    pub stations: BTreeMap<StationKey, Station>,
    /// IP addresses of containers, with their MAC addresses.
    pub addresses: BTreeMap<AddressKey, [u8; 6]>,
}

/// The interface that a network's containers send by, as the runtime tells it.
pub fn parent(network: &Network) -> Option<&str> {
    let parent = network.options.get(OPTION_PARENT)?;
    matches!(network.driver.as_str(), "macvlan" | "ipvlan").then_some(parent.as_str())
}

/// The parent by which the host and the containers of a network reach each other, or why they do not; `None`: nobody has
/// asked for it.
pub fn wish<'a>(build: &Build<'a>, network: &Network) -> Option<Result<&'a Link, String>> {
    if network.driver != "macvlan" || !labels::is_set(&network.labels, LABEL) {
        return None;
    }
    Some(usable_parent(build, network))
}

fn usable_parent<'a>(build: &Build<'a>, network: &Network) -> Result<&'a Link, String> {
    if let Some(why) = &build.facts.macvlan_off {
        return Err(why.clone());
    }
    if labels::why_off(network, build.config).is_some() {
        return Err("the network is switched off".into());
    }
    if network.internal {
        return Err("the network is internal".into());
    }
    let mode = network.options.get(OPTION_MODE).map_or("bridge", String::as_str);
    if !matches!(mode, "bridge" | "") {
        return Err(format!("its mode is {mode}"));
    }
    let Some(name) = parent(network) else {
        return Err("the runtime does not tell its parent".into());
    };
    let Some(link) = build.netns.link_by_name(name) else {
        return Err(format!("its parent {name} does not exist"));
    };
    if !link.is_ethernet() || link.mac.is_none() {
        return Err(format!("its parent {name} has no MAC address"));
    }
    Ok(link)
}

/// All that the program is told, and where it is needed.
pub fn plan(build: &Build<'_>) -> Macvlans {
    let mut all = Macvlans::default();
    for network in build.host.networks.values() {
        let Some(Ok(link)) = wish(build, network) else {
            continue;
        };
        let Some(Mac(host)) = link.mac else { continue };
        let parent = build.netns.key(link.ifindex);
        let on = |(container, _): &(&Container, &Attachment)| !labels::is_off(&container.labels);
        for (container, place) in build.host.members(&network.id).filter(on) {
            let Some((mac, addresses)) = ends(container, place) else {
                continue;
            };
            let station = |who| Station { who, host };
            // Somebody gave a container the host's own address: then there is nothing to tell them apart by.
            if mac.0 == host || mac.is_multicast() {
                continue;
            }
            all.parents.insert(parent, link.name.clone());
            let stations = &mut all.table.stations;
            stations.insert(StationKey::new(parent, host), station(Station::HOST));
            stations.insert(StationKey::new(parent, mac.0), station(Station::CONTAINER));
            for address in addresses {
                let address = address.into();
                all.table.addresses.insert(AddressKey { parent, address }, mac.0);
            }
        }
    }
    all
}

/// A container's MAC address on a network, and its IP addresses there: what the runtime gave, and what its interface has.
fn ends(container: &Container, place: &Attachment) -> Option<(Mac, Vec<IpAddr>)> {
    let given = || place.ipv4.into_iter().chain(place.ipv6).map(|net| net.addr);
    let is_its = |addresses: &[crate::host::IpNet]| given().any(|ip| addresses.iter().any(|net| net.addr == ip));
    let interfaces = || container.interfaces.iter().filter(|one| one.kind == "macvlan");
    let interface = interfaces()
        .find(|one| one.mac.is_some() && one.mac == place.mac)
        .or_else(|| interfaces().find(|one| is_its(&one.addresses)));
    let mac = interface.and_then(|one| one.mac).or(place.mac)?;
    let more = interface.map(|one| one.addresses.as_slice()).unwrap_or_default();
    let addresses = given().chain(more.iter().map(|net| net.addr));
    Some((
        mac,
        addresses.filter(|ip| !ip.is_loopback() && !ip.is_multicast()).collect(),
    ))
}
