//! From the Engine API's answers to the host's words. A field that is missing, empty or nonsense is left out: the
//! runtimes differ, podman from Docker most of all.

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, Ipv4Addr};

use bollard::models::{self, ContainerInspectResponse, EndpointSettings, HealthStatusEnum, PortBinding};

use crate::host::{
    Attachment, Container, ContainerId, ContainerState, Health, IpNet, IpamPool, Network, NetworkId, NetworkMode,
    Protocol, PublishedPort,
};

const OPTION_BRIDGE_NAME: &str = "com.docker.network.bridge.name";
const OPTION_DEFAULT_BRIDGE: &str = "com.docker.network.bridge.default_bridge";

/// Who answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Docker, or what does as it does.
    Docker,
    /// podman: it does not tell a network's bridge, and its resolver is at the gateway.
    Podman,
}

/// Who answers, and its name: the product's, if the answer has one. podman has the platform in its place.
pub fn engine(answer: &models::SystemVersion) -> (Kind, String) {
    let component = answer.components.as_deref().unwrap_or_default().first();
    let component = component.map_or("", |component| component.name.as_str());
    if component.starts_with("Podman") {
        return (Kind::Podman, component.into());
    }
    let product = answer.platform.as_ref().map_or("", |platform| platform.name.as_str());
    let name = if product.is_empty() { component } else { product };
    (Kind::Docker, name.into())
}

/// A network; `None` without an identifier.
pub fn network(answer: models::Network, kind: Kind) -> Option<Network> {
    let id = NetworkId(answer.id.filter(|id| !id.is_empty())?);
    let name = answer.name.unwrap_or_default();
    let driver = answer.driver.unwrap_or_default();
    let options = ordered(answer.options);
    let is_podman = kind == Kind::Podman;
    let bridge_name = (driver == "bridge" && !is_podman).then(|| bridge_name(&id, &name, &options));
    let pools = answer.ipam.and_then(|ipam| ipam.config).unwrap_or_default();
    Some(Network {
        bridge_name,
        driver,
        scope: answer.scope.unwrap_or_default(),
        internal: answer.internal.unwrap_or(false),
        enable_ipv6: answer.enable_ipv6.unwrap_or(false),
        attachable: answer.attachable.unwrap_or(false),
        ingress: answer.ingress.unwrap_or(false),
        ipam: pools
            .into_iter()
            .map(|pool| IpamPool {
                subnet: parse(pool.subnet.as_deref()),
                ip_range: parse(pool.ip_range.as_deref()),
                // Some drivers give the gateway with a prefix.
                gateway: parse::<IpNet>(pool.gateway.as_deref()).map(|gateway| gateway.addr),
            })
            .collect(),
        labels: ordered(answer.labels),
        resolved_at_gateway: is_podman,
        options,
        id,
        name,
    })
}

fn bridge_name(id: &NetworkId, name: &str, options: &BTreeMap<String, String>) -> String {
    match options.get(OPTION_BRIDGE_NAME).filter(|name| !name.is_empty()) {
        Some(bridge) => bridge.clone(),
        None if name == "bridge" || options.get(OPTION_DEFAULT_BRIDGE).is_some_and(|value| value == "true") => {
            "docker0".into()
        }
        None => format!("br-{}", id.short()),
    }
}

/// A running, paused or restarting container; `None` for any other. `networks` is for runtimes that name a network
/// where Docker gives its identifier.
pub fn container(answer: ContainerInspectResponse, networks: &BTreeMap<NetworkId, Network>) -> Option<Container> {
    let state = answer.state.unwrap_or_default();
    let yes = |flag: Option<bool>| flag == Some(true);
    let settings = answer.network_settings.unwrap_or_default();
    let mut attachments: Vec<_> = settings
        .networks
        .unwrap_or_default()
        .into_iter()
        .map(|(name, endpoint)| attachment(name, endpoint, networks))
        .collect();
    attachments.sort_by(|a, b| a.network_name.cmp(&b.network_name));
    let mut ports: Vec<_> = settings
        .ports
        .unwrap_or_default()
        .iter()
        .flat_map(|(port, bindings)| bindings.iter().flatten().filter_map(|binding| published(port, binding)))
        .collect();
    ports.sort();
    ports.dedup();
    let network_mode = answer
        .host_config
        .and_then(|config| config.network_mode)
        .map_or(NetworkMode::Bridge, |mode| NetworkMode::parse(&mode));
    // podman says of one that shares a namespace, as all of a pod do, what is another's.
    if let NetworkMode::Container(_) = network_mode {
        attachments.clear();
        ports.clear();
    }
    Some(Container {
        id: ContainerId(answer.id.filter(|id| !id.is_empty())?),
        name: answer.name.unwrap_or_default().trim_start_matches('/').into(),
        pid: state.pid.and_then(|pid| u32::try_from(pid).ok()).unwrap_or(0),
        state: match (yes(state.paused), yes(state.restarting), yes(state.running)) {
            (true, _, _) => ContainerState::Paused,
            (_, true, _) => ContainerState::Restarting,
            (_, _, true) => ContainerState::Running,
            (false, false, false) => return None,
        },
        health: health(state.health.and_then(|health| health.status)),
        network_mode,
        labels: ordered(answer.config.and_then(|config| config.labels)),
        attachments,
        ports,
        netns: None,
        interfaces: Vec::new(),
    })
}

fn attachment(name: String, endpoint: EndpointSettings, networks: &BTreeMap<NetworkId, Network>) -> Attachment {
    let id = NetworkId(endpoint.network_id.unwrap_or_default());
    let network = match networks.values().find(|network| network.name == name) {
        Some(network) if !networks.contains_key(&id) => network.id.clone(),
        _ => id,
    };
    // Before engine 25 the aliases are there, later the names that resolve are.
    let mut aliases = endpoint.aliases.unwrap_or_default();
    aliases.extend(endpoint.dns_names.unwrap_or_default());
    aliases.sort();
    aliases.dedup();
    Attachment {
        network,
        network_name: name,
        endpoint_id: endpoint.endpoint_id.unwrap_or_default(),
        ipv4: with_prefix(endpoint.ip_address.as_deref(), endpoint.ip_prefix_len),
        ipv6: with_prefix(endpoint.global_ipv6_address.as_deref(), endpoint.global_ipv6_prefix_len),
        mac: parse(endpoint.mac_address.as_deref()),
        aliases,
        gateway: parse(endpoint.gateway.as_deref()),
    }
}

fn with_prefix(address: Option<&str>, prefix: Option<i64>) -> Option<IpNet> {
    IpNet::new(parse(address)?, u8::try_from(prefix?).ok()?)
}

/// A published port: `80/tcp` and where it is on the host.
fn published(port: &str, binding: &PortBinding) -> Option<PublishedPort> {
    let (number, protocol) = port.split_once('/').unwrap_or((port, "tcp"));
    let protocol = match protocol {
        "tcp" => Protocol::Tcp,
        "udp" => Protocol::Udp,
        "sctp" => Protocol::Sctp,
        _ => return None,
    };
    let host_ip = binding.host_ip.as_deref().filter(|ip| !ip.is_empty());
    Some(PublishedPort {
        protocol,
        host_ip: host_ip.map_or(Some(Ipv4Addr::UNSPECIFIED.into()), |ip| ip.parse::<IpAddr>().ok())?,
        host_port: parse(binding.host_port.as_deref())?,
        container_port: number.parse().ok()?,
    })
}

fn health(status: Option<HealthStatusEnum>) -> Health {
    match status {
        None | Some(HealthStatusEnum::EMPTY | HealthStatusEnum::NONE) => Health::None,
        Some(HealthStatusEnum::STARTING) => Health::Starting,
        Some(HealthStatusEnum::HEALTHY) => Health::Healthy,
        Some(HealthStatusEnum::UNHEALTHY) => Health::Unhealthy,
    }
}

fn parse<T: std::str::FromStr>(text: Option<&str>) -> Option<T> {
    text?.parse().ok()
}

fn ordered(map: Option<HashMap<String, String>>) -> BTreeMap<String, String> {
    map.unwrap_or_default().into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn inspect(json: &str) -> ContainerInspectResponse {
        serde_json::from_str(json).expect("an answer of the API")
    }

    #[test]
    fn dockers_answer() {
        let answer = inspect(
            r#"{"Id": "c0ffee", "Name": "/web", "State": {"Status": "running", "Running": true, "Pid": 4711,
                "Health": {"Status": "healthy"}},
                "HostConfig": {"NetworkMode": "shop"}, "Config": {"Labels": {"netfast.enable": "no"}},
                "NetworkSettings": {"Ports": {"80/tcp": [{"HostIp": "0.0.0.0", "HostPort": "8080"},
                    {"HostIp": "::", "HostPort": "8080"}], "53/udp": [{"HostIp": "", "HostPort": "53"}], "9/tcp": null},
                "Networks": {"shop": {"NetworkID": "abc", "EndpointID": "e1", "Gateway": "172.18.0.1",
                    "IPAddress": "172.18.0.2", "IPPrefixLen": 16, "GlobalIPv6Address": "", "GlobalIPv6PrefixLen": 0,
                    "MacAddress": "02:42:ac:12:00:02", "Aliases": ["web", "c0ffee"]}}}}"#,
        );
        let container = container(answer, &BTreeMap::new()).expect("a running container");
        assert_eq!((container.name.as_str(), container.pid), ("web", 4711));
        assert_eq!(container.network_mode, NetworkMode::Network("shop".into()));
        assert_eq!(container.health, Health::Healthy);
        assert_eq!(container.labels["netfast.enable"], "no");
        let attachment = &container.attachments[0];
        assert_eq!(attachment.network, NetworkId("abc".into()));
        assert_eq!(
            attachment.ipv4.map(|net| net.to_string()).as_deref(),
            Some("172.18.0.2/16")
        );
        assert_eq!(attachment.ipv6, None);
        assert_eq!(
            attachment.mac.map(|mac| mac.to_string()).as_deref(),
            Some("02:42:ac:12:00:02")
        );
        let ports: Vec<_> = container
            .ports
            .iter()
            .map(|p| (p.host_ip.to_string(), p.host_port))
            .collect();
        assert_eq!(
            ports,
            [("0.0.0.0".into(), 8080), ("::".into(), 8080), ("0.0.0.0".into(), 53)]
        );
    }

    #[test]
    fn podmans_answer() {
        let json = r#"{"Name": "pods", "Id": "0123456789abcdef", "Driver": "bridge", "Options": {},
            "IPAM": {"Config": [{"Subnet": "10.89.0.0/24", "Gateway": "10.89.0.1"}]}}"#;
        let answer = || serde_json::from_str(json).expect("an answer of the API");
        let docker = network(answer(), Kind::Docker).expect("a network");
        assert_eq!(docker.bridge_name.as_deref(), Some("br-0123456789ab"));
        let pods = network(answer(), Kind::Podman).expect("a network");
        assert_eq!(pods.bridge_name, None, "until the links say otherwise");
        assert!(pods.resolved_at_gateway && !docker.resolved_at_gateway);
        let networks = BTreeMap::from([(pods.id.clone(), pods)]);
        let answer = inspect(
            r#"{"Id": "p1", "Name": "web", "State": {"Running": true, "Pid": 1},
                "NetworkSettings": {"Networks": {"pods": {"NetworkID": "pods", "EndpointID": ""}}}}"#,
        );
        let container = container(answer, &networks).expect("a running container");
        assert_eq!(container.attachments[0].network, NetworkId("0123456789abcdef".into()));
    }

    /// podman repeats for each container of a pod what its infra container has.
    #[test]
    fn a_member_of_a_podman_pod_has_no_place_of_its_own() {
        let json = |mode: &str| {
            let networks = r#"{"mine": {"NetworkID": "686b", "MacAddress": "f6:b6:44:76:43:77", "IPAddress": "10.89.0.3",
                "IPPrefixLen": 24, "Aliases": ["39154554d1c0", "pp"]}}"#;
            format!(
                r#"{{"Id": "{mode}", "Name": "/x", "State": {{"Running": true, "Pid": 7}},
                    "HostConfig": {{"NetworkMode": "{mode}"}}, "NetworkSettings": {{"Networks": {networks},
                    "Ports": {{"7001/tcp": [{{"HostIp": "0.0.0.0", "HostPort": "8090"}}]}}}}}}"#
            )
        };
        let read = |mode: &str| container(inspect(&json(mode)), &BTreeMap::new()).expect("it runs");
        let (infra, member) = (read("bridge"), read("container:39154554d1c0"));
        assert_eq!((infra.attachments.len(), infra.ports.len()), (1, 1));
        assert_eq!((member.attachments.len(), member.ports.len()), (0, 0));
        assert_eq!(
            member.network_mode,
            NetworkMode::Container(ContainerId("39154554d1c0".into()))
        );
    }

    #[test]
    fn an_engine_is_called_by_its_product_s_name() {
        let named = |json: &str| engine(&serde_json::from_str(json).expect("an answer of the API"));
        for (json, kind, name) in [
            (
                r#"{"Platform": {"Name": "linux/amd64/debian-unknown"}, "Components": [{"Name": "Podman Engine",
                    "Version": "5.8.6"}, {"Name": "Conmon", "Version": "2.1.13"}]}"#,
                Kind::Podman,
                "Podman Engine",
            ),
            (
                r#"{"Platform": {"Name": "Docker Engine - Community"}, "Components": [{"Name": "Engine", "Version": "28"}]}"#,
                Kind::Docker,
                "Docker Engine - Community",
            ),
            (
                r#"{"Platform": {"Name": ""}, "Components": [{"Name": "Engine", "Version": "20.10.24"}]}"#,
                Kind::Docker,
                "Engine",
            ),
            ("{}", Kind::Docker, ""),
        ] {
            assert_eq!(named(json), (kind, name.to_owned()), "{json}");
        }
    }

    #[test]
    fn what_does_not_run_is_left_out() {
        assert_eq!(
            container(inspect(r#"{"Id": "x", "State": {"Running": false}}"#), &BTreeMap::new()),
            None
        );
        assert_eq!(
            container(inspect(r#"{"State": {"Running": true}}"#), &BTreeMap::new()),
            None
        );
        assert_eq!(network(models::Network::default(), Kind::Docker), None);
    }
}
