//! What the operator may decide: one file, few keys, each with a default and a reason.
//!
//! [`RawConfig`] is what the file says, [`Config`] what it means: no value of it needs another look.

use std::{
    collections::BTreeSet,
    fs, io,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    time::Duration,
};

use netfast_common::abi;
use serde::{Deserialize, Serialize};

mod modes;
mod pool;
mod segments;
mod xdp;

pub use modes::{AliasMode, Runtime};
pub use pool::{VipPool, block, block_prefix, plus};
pub use segments::Segments;
pub use xdp::XdpMode;

/// Where Docker's API is by default.
pub const DEFAULT_DOCKER_HOST: &str = "unix:///var/run/docker.sock";
/// Fewer flows than this would be evicted by the handshakes of one busy web server.
const MIN_FLOWS: u32 = 1024;
/// The flow table of an overlay network has this part of the entries.
const SANDBOX_SHARE: u32 = 8;
/// More would take gigabytes: a flow and its place in the table are about 200 bytes.
const MAX_FLOWS: u32 = 16 * 1024 * 1024;
/// Below this most packets would go the slow path just to ask.
const MIN_REVALIDATE_MS: u64 = 10;
/// Conntrack forgets an unreplied UDP conversation after 30 s (`nf_conntrack_udp_timeout`), so flows must ask well
/// within that.
const MAX_REVALIDATE_MS: u64 = 10_000;
/// Where metrics are served by default: to this host only, since they name its containers and networks.
pub const DEFAULT_METRICS: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 9669);
/// A client that keeps an answer for longer than an hour does not take part in any turns.
const MAX_ALIAS_TTL: u32 = 3600;
/// The longest name of an interface (`IFNAMSIZ` less the zero).
const MAX_INTERFACE_NAME: usize = 15;

/// The configuration in force; valid by construction. What an older daemon wrote down lacks keys that are new.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[expect(clippy::struct_excessive_bools, reason = "one key each")]
pub struct Config {
    /// The container runtime that is followed.
    pub runtime: Runtime,
    /// Where its API is.
    pub docker_host: String,
    /// Interfaces that lead off the host; empty: they are found.
    pub uplinks: BTreeSet<String>,
    /// Entries of the flow table.
    pub flows: u32,
    /// Time in milliseconds that a flow may be used before one packet must ask the kernel again.
    pub revalidate_ms: u64,
    /// Packets of each direction that the kernel carries before a TCP connection is learned.
    pub learn_after: u8,
    /// Networks that stay on the slow path, by name or identifier.
    pub disabled_networks: BTreeSet<String>,
    /// Accelerate in spite of packet-filter rules that judge by rate, quota or chance.
    pub allow_rate_rules: bool,
    /// Accelerate in spite of conntrack's accounting, which counts the packets on the slow path only.
    pub allow_accounting: bool,
    /// Send packets direct from container to container where nobody judges them.
    pub direct: bool,
    /// Repeat the outer headers of packets that leave through VXLAN devices.
    pub tunnels: bool,
    /// Accelerate what is forwarded from one uplink to another.
    pub transit: bool,
    /// Do in containers what Docker's NAT rules for its resolver do there, and take these out.
    pub resolver: bool,
    /// Lead the host's own connections to published ports at loopback addresses past docker-proxy.
    pub localhost: bool,
    /// Which networks' containers may hand over bigger segments of TCP.
    pub segments: Segments,
    /// Send datagrams that come in by uplinks to containers by XDP.
    pub xdp: XdpMode,
    /// The namespace is that of an overlay network, served for the daemon of the host's. No key of the file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sandbox: Option<Sandbox>,
    /// Where metrics are served; `None`: nowhere.
    pub metrics: Option<SocketAddr>,
    /// What is done with answers for aliases.
    pub alias_mode: AliasMode,
    /// Time in seconds that a client may keep an answer for an alias.
    pub alias_ttl: u32,
    /// Where IPv4 virtual addresses of aliases are taken from.
    pub vip_pool: VipPool,
    /// Where their IPv6 virtual addresses are taken from.
    pub vip_pool6: VipPool,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            runtime: Runtime::Docker,
            docker_host: DEFAULT_DOCKER_HOST.into(),
            uplinks: BTreeSet::new(),
            flows: abi::DEFAULT_FLOWS,
            revalidate_ms: abi::DEFAULT_REVALIDATE_NS / 1_000_000,
            learn_after: abi::DEFAULT_LEARN_AFTER,
            disabled_networks: BTreeSet::new(),
            allow_rate_rules: false,
            allow_accounting: false,
            direct: true,
            tunnels: false,
            transit: false,
            resolver: false,
            localhost: false,
            segments: Segments::Off,
            xdp: XdpMode::Off,
            sandbox: None,
            metrics: Some(DEFAULT_METRICS),
            alias_mode: AliasMode::Rr,
            alias_ttl: 0,
            vip_pool: VipPool::DEFAULT,
            vip_pool6: VipPool::DEFAULT6,
        }
    }
}

/// What the daemon of the host's namespace tells one that serves an overlay network's.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sandbox {
    /// The network's name.
    pub network: String,
    /// MAC addresses of containers that are switched off.
    pub off: BTreeSet<String>,
}

impl Config {
    /// That of who serves an overlay network's namespace: each bridge port is a container or leads off the host; fewer flows.
    #[must_use]
    pub fn in_sandbox(&self, sandbox: Sandbox) -> Self {
        Self {
            runtime: Runtime::None,
            uplinks: BTreeSet::new(),
            flows: (self.flows / SANDBOX_SHARE).max(MIN_FLOWS),
            disabled_networks: BTreeSet::new(),
            tunnels: false,
            sandbox: Some(sandbox),
            metrics: None,
            alias_mode: AliasMode::Off,
            ..self.clone()
        }
    }

    /// Time that a flow may be used before one packet must ask the kernel again.
    pub fn revalidate(&self) -> Duration {
        Duration::from_millis(self.revalidate_ms)
    }

    /// Reads the file, if one is named, and lays what was typed over it.
    pub fn load(file: Option<&Path>, typed: RawConfig) -> Result<Self, ConfigError> {
        let raw = match file {
            Some(path) => RawConfig::read(path)?,
            None => RawConfig::default(),
        };
        raw.overridden_by(typed).validate(file)
    }

    /// Reads the text of a file; `path` is for the errors.
    pub fn parse(text: &str, path: &Path) -> Result<Self, ConfigError> {
        RawConfig::parse(text, path)?.validate(Some(path))
    }
}

/// What the file says, or what was typed; nothing is checked but the form.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RawConfig {
    /// See [`Config::runtime`].
    pub runtime: Option<Runtime>,
    /// See [`Config::docker_host`].
    pub docker_host: Option<String>,
    /// See [`Config::uplinks`].
    pub uplinks: Option<Vec<String>>,
    /// See [`Config::flows`].
    pub flows: Option<u64>,
    /// See [`Config::revalidate_ms`].
    pub revalidate_ms: Option<u64>,
    /// See [`Config::learn_after`].
    pub learn_after: Option<u64>,
    /// See [`Config::disabled_networks`].
    pub disabled_networks: Option<Vec<String>>,
    /// See [`Config::allow_rate_rules`].
    pub allow_rate_rules: Option<bool>,
    /// See [`Config::allow_accounting`].
    pub allow_accounting: Option<bool>,
    /// See [`Config::direct`].
    pub direct: Option<bool>,
    /// See [`Config::tunnels`].
    pub tunnels: Option<bool>,
    /// See [`Config::transit`].
    pub transit: Option<bool>,
    /// See [`Config::resolver`].
    pub resolver: Option<bool>,
    /// See [`Config::localhost`].
    pub localhost: Option<bool>,
    /// See [`Config::segments`].
    pub segments: Option<Segments>,
    /// See [`Config::xdp`].
    pub xdp: Option<XdpMode>,
    /// See [`Config::metrics`].
    pub metrics: Option<String>,
    /// See [`Config::alias_mode`].
    pub alias_mode: Option<AliasMode>,
    /// See [`Config::alias_ttl`].
    pub alias_ttl: Option<u64>,
    /// See [`Config::vip_pool`].
    pub vip_pool: Option<String>,
    /// See [`Config::vip_pool6`].
    pub vip_pool6: Option<String>,
}

impl RawConfig {
    fn read(path: &Path) -> Result<Self, ConfigError> {
        let text = fs::read_to_string(path).map_err(|source| ConfigError::Unreadable {
            path: path.into(),
            source,
        })?;
        Self::parse(&text, path)
    }

    fn parse(text: &str, path: &Path) -> Result<Self, ConfigError> {
        toml::from_str(text).map_err(|source| ConfigError::Malformed {
            path: path.into(),
            source: Box::new(source),
        })
    }

    fn overridden_by(self, typed: Self) -> Self {
        Self {
            runtime: typed.runtime.or(self.runtime),
            docker_host: typed.docker_host.or(self.docker_host),
            uplinks: typed.uplinks.or(self.uplinks),
            flows: typed.flows.or(self.flows),
            revalidate_ms: typed.revalidate_ms.or(self.revalidate_ms),
            learn_after: typed.learn_after.or(self.learn_after),
            disabled_networks: typed.disabled_networks.or(self.disabled_networks),
            allow_rate_rules: typed.allow_rate_rules.or(self.allow_rate_rules),
            allow_accounting: typed.allow_accounting.or(self.allow_accounting),
            direct: typed.direct.or(self.direct),
            tunnels: typed.tunnels.or(self.tunnels),
            transit: typed.transit.or(self.transit),
            resolver: typed.resolver.or(self.resolver),
            localhost: typed.localhost.or(self.localhost),
            segments: typed.segments.or(self.segments),
            xdp: typed.xdp.or(self.xdp),
            metrics: typed.metrics.or(self.metrics),
            alias_mode: typed.alias_mode.or(self.alias_mode),
            alias_ttl: typed.alias_ttl.or(self.alias_ttl),
            vip_pool: typed.vip_pool.or(self.vip_pool),
            vip_pool6: typed.vip_pool6.or(self.vip_pool6),
        }
    }

    fn validate(self, file: Option<&Path>) -> Result<Config, ConfigError> {
        let default = Config::default();
        let invalid = |key, value: String, expected| ConfigError::Invalid {
            file: file.map(Path::to_path_buf),
            key,
            value,
            expected,
        };
        let docker_host = self.docker_host.unwrap_or(default.docker_host);
        if !["unix://", "tcp://", "http://"]
            .iter()
            .any(|scheme| docker_host.len() > scheme.len() && docker_host.starts_with(scheme))
        {
            return Err(invalid(
                "docker_host",
                format!("{docker_host:?}"),
                "unix:///PATH, tcp://HOST:PORT or http://HOST:PORT",
            ));
        }
        let uplinks: BTreeSet<String> = self.uplinks.unwrap_or_default().into_iter().collect();
        if let Some(name) = uplinks
            .iter()
            .find(|name| name.is_empty() || name.len() > MAX_INTERFACE_NAME || name.contains('/'))
        {
            return Err(invalid(
                "uplinks",
                format!("{name:?}"),
                "names of interfaces, as `ip link` shows them",
            ));
        }
        let flows = self.flows.unwrap_or(default.flows.into());
        let flows = u32::try_from(flows)
            .ok()
            .filter(|flows| (MIN_FLOWS..=MAX_FLOWS).contains(flows))
            .ok_or_else(|| invalid("flows", flows.to_string(), "1024 to 16777216"))?;
        let revalidate_ms = self.revalidate_ms.unwrap_or(default.revalidate_ms);
        if !(MIN_REVALIDATE_MS..=MAX_REVALIDATE_MS).contains(&revalidate_ms) {
            return Err(invalid("revalidate_ms", revalidate_ms.to_string(), "10 to 10000"));
        }
        let learn_after = self.learn_after.unwrap_or(default.learn_after.into());
        let learn_after =
            u8::try_from(learn_after).map_err(|_| invalid("learn_after", learn_after.to_string(), "0 to 255"))?;
        let alias_ttl = self.alias_ttl.unwrap_or(default.alias_ttl.into());
        let alias_ttl = u32::try_from(alias_ttl)
            .ok()
            .filter(|ttl| *ttl <= MAX_ALIAS_TTL)
            .ok_or_else(|| invalid("alias_ttl", alias_ttl.to_string(), "0 to 3600"))?;
        let pool = |text: Option<&str>, default: VipPool, expected| match text {
            None => Ok(default),
            Some(text) => (text.parse().ok())
                .filter(|pool: &VipPool| pool.key() == default.key())
                .ok_or_else(|| invalid(default.key(), format!("{text:?}"), expected)),
        };
        let vip_pool = pool(self.vip_pool.as_deref(), default.vip_pool, pool::EXPECTED)?;
        let vip_pool6 = pool(self.vip_pool6.as_deref(), default.vip_pool6, pool::EXPECTED6)?;
        let metrics = match self.metrics.as_deref() {
            None => default.metrics,
            Some("") => None,
            Some(address) => Some(address.parse().map_err(|_| {
                invalid(
                    "metrics",
                    format!("{address:?}"),
                    "ADDRESS:PORT, [IPV6]:PORT, or nothing between the quotes",
                )
            })?),
        };
        Ok(Config {
            runtime: self.runtime.unwrap_or(default.runtime),
            docker_host,
            uplinks,
            flows,
            revalidate_ms,
            learn_after,
            disabled_networks: self.disabled_networks.unwrap_or_default().into_iter().collect(),
            allow_rate_rules: self.allow_rate_rules.unwrap_or(default.allow_rate_rules),
            allow_accounting: self.allow_accounting.unwrap_or(default.allow_accounting),
            direct: self.direct.unwrap_or(default.direct),
            tunnels: self.tunnels.unwrap_or(default.tunnels),
            transit: self.transit.unwrap_or(default.transit),
            resolver: self.resolver.unwrap_or(default.resolver),
            localhost: self.localhost.unwrap_or(default.localhost),
            segments: self.segments.unwrap_or(default.segments),
            xdp: self.xdp.unwrap_or(default.xdp),
            sandbox: None,
            metrics,
            alias_mode: self.alias_mode.unwrap_or(default.alias_mode),
            alias_ttl,
            vip_pool,
            vip_pool6,
        })
    }
}

/// What is wrong with the configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read the configuration file {}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It is no TOML, a key is unknown, or a value has the wrong type.
    #[error("the configuration file {} is wrong", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// Where and what.
        source: Box<toml::de::Error>,
    },
    /// A value is out of its range.
    #[error("{key} = {value}{}: expected {expected}", file.as_ref().map_or(String::new(), |file| format!(" (in {} or \
             on the command line)", file.display())))]
    Invalid {
        /// The file that was read.
        file: Option<PathBuf>,
        /// The key.
        key: &'static str,
        /// What it was set to.
        value: String,
        /// What it may be.
        expected: &'static str,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(text: &str) -> Result<Config, String> {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("netfast.toml");
        fs::write(&path, text).expect("a file");
        Config::load(Some(&path), RawConfig::default()).map_err(|error| {
            format!("{:#}", anyhow::Error::new(error)).replace(&dir.path().display().to_string(), "DIR")
        })
    }

    #[test]
    fn an_empty_file_is_the_default() {
        assert_eq!(load(""), Ok(Config::default()));
    }

    #[test]
    fn the_shipped_file_is_the_default() {
        let shipped = include_str!("../dist/netfast.toml");
        assert_eq!(load(shipped), Ok(Config::default()));
        // Each key is shown, commented out; switched on, it is still the default.
        let lines: Vec<&str> = shipped
            .lines()
            .map(|line| {
                line.strip_prefix('#')
                    .filter(|rest| !rest.starts_with(' ') && rest.contains(" = "))
                    .unwrap_or(line)
            })
            .collect();
        let switched_on = lines.join("\n");
        assert_eq!(load(&switched_on), Ok(Config::default()));
        assert_eq!(toml::from_str::<toml::Table>(&switched_on).expect("TOML").len(), 21);
    }

    #[test]
    fn what_is_typed_wins() {
        let typed = RawConfig {
            runtime: Some(Runtime::None),
            ..RawConfig::default()
        };
        let file = RawConfig {
            runtime: Some(Runtime::Docker),
            flows: Some(4096),
            ..RawConfig::default()
        };
        let config = file.overridden_by(typed).validate(None).expect("valid");
        assert_eq!((config.runtime, config.flows), (Runtime::None, 4096));
    }

    #[test]
    fn errors_name_thing_value_and_remedy() {
        let error = load("flows = 3").expect_err("too few");
        assert_eq!(
            error,
            "flows = 3 (in DIR/netfast.toml or on the command line): expected 1024 to 16777216"
        );
        let error = load("flow = 3").expect_err("unknown");
        assert!(error.contains("unknown field `flow`") && error.contains("`flows`"));
        let error = load("docker_host = \"/var/run/docker.sock\"").expect_err("no scheme");
        assert!(error.contains("unix:///PATH"), "{error}");
        let error = load("uplinks = [\"eth0/1\"]").expect_err("no name");
        assert!(error.contains("\"eth0/1\""), "{error}");
        let error = load("revalidate_ms = 60000").expect_err("too long");
        assert!(error.contains("10 to 10000"), "{error}");
        let error = load("learn_after = 256").expect_err("too many");
        assert!(error.contains("0 to 255"), "{error}");
        let error = load("alias_ttl = 3601").expect_err("too long");
        assert!(error.contains("0 to 3600"), "{error}");
        let error = load("vip_pool = \"8.8.8.0/24\"").expect_err("of others");
        assert!(
            error.contains("vip_pool = \"8.8.8.0/24\"") && error.contains("198.18.0.0/15"),
            "{error}"
        );
        for other in [
            "vip_pool = \"fd00::/112\"",
            "vip_pool6 = \"10.0.0.0/8\"",
            "vip_pool6 = \"2001:db8::/112\"",
        ] {
            let error = load(other).expect_err("of the other family, or of others");
            assert!(error.contains(other), "{error}");
            assert_eq!(error.contains("fc00::/7"), other.starts_with("vip_pool6"), "{error}");
        }
        let error = load("metrics = \"localhost\"").expect_err("no port");
        assert!(
            error.contains("\"localhost\"") && error.contains("ADDRESS:PORT"),
            "{error}"
        );
    }

    #[test]
    fn metrics_are_served_to_this_host_unless_told_otherwise() {
        let metrics = |text| load(text).expect("valid").metrics;
        assert!(metrics("").expect("served").ip().is_loopback());
        assert_eq!(metrics("metrics = \"\""), None);
        assert_eq!(metrics("metrics = \"[::]:9\""), "[::]:9".parse().ok());
    }
}
