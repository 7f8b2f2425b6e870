//! Published ports at loopback addresses: the programs of the root cgroup, and what they are told.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    io,
    os::fd::{AsFd as _, AsRawFd as _},
    path::PathBuf,
};

use aya::{
    Ebpf,
    maps::{Array, HashMap, MapData, SkStorage},
    programs::{CgroupAttachMode, CgroupSockAddr, links::FdLink},
};
use netfast_common::{
    abi::{Program, map},
    localhost::{LEASE_NS, Name, Published, Switch},
};
use tracing::debug;

use crate::{
    apply::{
        ApplyError, AttachError, Datapath, attach,
        lacks::{Lack, Without},
        lease::now_ns,
        map_error, object,
        pins::Pins,
        resolver::cookie,
        take,
    },
    bpf,
    diff::Attachment,
    host::{Localhost, Protocol, Proxy},
    observe::localhost::{ProxyError, cgroup_root, cgroups, socket_of},
};

/// IANA protocol numbers.
const TCP: u32 = 6;
const UDP: u32 = 17;

/// What the programs are told, and by whom.
pub struct LocalMaps {
    switch: Array<MapData, Switch>,
    published: SkStorage<MapData, Published>,
    cgroups: HashMap<MapData, u64, u64>,
    /// What the switch says.
    now: Switch,
    /// The cgroups that the map has.
    free: BTreeSet<u64>,
    /// Those with programs of others, and the name of one.
    watched: BTreeMap<PathBuf, String>,
    /// Names of programs by their numbers.
    names: BTreeMap<u32, String>,
}

impl LocalMaps {
    /// Takes them out of the loaded object. Nothing holds that an earlier daemon has said.
    pub fn take(ebpf: &mut Ebpf) -> Result<Self, ApplyError> {
        let mut maps = Self {
            switch: take(ebpf, map::LOCALHOST)?,
            published: take(ebpf, map::PUBLISHED)?,
            cgroups: take(ebpf, map::CGROUPS)?,
            now: Switch {
                netns_cookie: cookie().unwrap_or_default(),
                until_ns: 0,
                generation: now_ns(),
            },
            free: BTreeSet::new(),
            watched: BTreeMap::new(),
            names: BTreeMap::new(),
        };
        let known: Result<_, _> = maps.cgroups.keys().collect();
        maps.free = known.map_err(|source| map_error(map::CGROUPS, source))?;
        maps.write(maps.now)?;
        Ok(maps)
    }

    fn write(&mut self, switch: Switch) -> Result<(), ApplyError> {
        self.now = switch;
        let written = self.switch.set(0, switch, 0);
        written.map_err(|source| map_error(map::LOCALHOST, source))
    }

    /// Hangs on the listeners where they lead to, and takes it away from those that are none any more.
    pub fn change(&mut self, from: &BTreeSet<Proxy>, to: &BTreeSet<Proxy>) -> Result<(), ApplyError> {
        for proxy in from.difference(to) {
            // With one that has ended it is gone.
            if let Ok(socket) = socket_of(proxy.pid, proxy.inode) {
                let gone = self.published.remove(&socket.as_raw_fd());
                gone.map_err(|source| map_error(map::PUBLISHED, source))?;
            }
        }
        for proxy in to.difference(from) {
            let socket = match socket_of(proxy.pid, proxy.inode) {
                Ok(socket) => socket,
                Err(ProxyError { source, .. }) if source.kind() == io::ErrorKind::NotFound => continue,
                Err(source) => return Err(ApplyError::Localhost(io::Error::other(source))),
            };
            let published = Published {
                generation: self.now.generation,
                target: Name::new(proxy.target.ip(), proxy.target.port()),
                protocol: if proxy.protocol == Protocol::Tcp { TCP } else { UDP },
            };
            let written = self.published.insert(&socket.as_raw_fd(), published, 0);
            written.map_err(|source| map_error(map::PUBLISHED, source))?;
        }
        Ok(())
    }

    /// Looks at the host's cgroups again, and tells the programs which are without programs of others.
    pub fn look_at_cgroups(&mut self) -> Result<(), ApplyError> {
        let root = cgroup_root().map_err(|why| ApplyError::Localhost(io::Error::other(why)))?;
        let found = cgroups::look(&root, &mut self.names).map_err(ApplyError::Localhost)?;
        for gone in self.free.difference(&found.free) {
            super::aliases::remove(&mut self.cgroups, map::CGROUPS, gone)?;
        }
        for new in found.free.difference(&self.free) {
            // Where there is no more room they go through docker-proxy.
            if let Err(error) = self.cgroups.insert(new, 1, 0) {
                debug!("cgroup {new}: {error}");
            }
        }
        self.free = found.free;
        self.watched = found.watched;
        Ok(())
    }
}

impl Datapath {
    /// Loads the programs; returns why they cannot be used. All else does without.
    pub(super) fn load_localhost(&mut self, without: &Without) -> Option<Lack> {
        let lack = Program::of_localhost().find_map(|program| self.load_optional(program, without));
        self.facts.localhost_off = lack.as_ref().map(|lack| lack.why.clone());
        lack
    }

    /// Lets new connections be led past docker-proxy for a while: to be called by a daemon that has looked at everything that
    /// it has heard of, and only then.
    pub fn renew_localhost(&mut self) {
        if self.realized.led.is_empty() {
            self.end_localhost();
            return;
        }
        let switch = Switch {
            until_ns: now_ns() + LEASE_NS,
            ..self.localhost.now
        };
        if let Err(error) = self.localhost.write(switch) {
            debug!("{error}");
        }
    }

    /// From here on new connections go through docker-proxy.
    pub fn end_localhost(&mut self) {
        if self.localhost.now.until_ns != 0 {
            let switch = Switch {
                until_ns: 0,
                ..self.localhost.now
            };
            if let Err(error) = self.localhost.write(switch) {
                debug!("{error}");
            }
        }
    }

    /// Looks for programs of others on cgroups, which nobody announces, if anybody is led past docker-proxy. Where that cannot
    /// be told nobody is. Whether there are others than before.
    pub fn look_at_cgroups(&mut self) -> bool {
        if self.realized.led.is_empty() {
            return false;
        }
        let before = self.localhost.watched.clone();
        if let Err(error) = self.localhost.look_at_cgroups() {
            self.end_localhost();
            debug!("{error}");
        }
        self.localhost.watched != before
    }

    /// The cgroups with programs of others, whose programs' connections go through docker-proxy.
    pub fn watched_cgroups(&self) -> &BTreeMap<PathBuf, String> {
        &self.localhost.watched
    }

    /// Renews all that only a living daemon lets happen: see [`Self::renew_direct`] and [`Self::renew_localhost`].
    pub fn renew_leases(&mut self) {
        self.renew_direct();
        self.renew_localhost();
    }

    /// Ends all that.
    pub fn end_leases(&mut self) {
        self.end_direct();
        self.end_localhost();
    }

    /// Tells the plan what stands before published ports at loopback addresses.
    pub fn set_localhost(&mut self, seen: Option<Localhost>) {
        self.facts.localhost = seen.map(Box::new);
    }

    /// Attaches one of the programs to the root cgroup.
    pub(super) fn attach_to_cgroup(&mut self, attachment: &Attachment) -> Result<(), ApplyError> {
        let root = cgroup_root().map_err(|why| ApplyError::Localhost(io::Error::other(why)))?;
        let root = File::open(root).map_err(ApplyError::Localhost)?;
        let program: &mut CgroupSockAddr = object::get(&mut self.ebpf, attachment.program)?;
        // Flags of links are none: they are many on each cgroup.
        let link = program.attach(root, CgroupAttachMode::Single);
        let link = link.and_then(|id| program.take_link(id));
        let link = link.map_err(|source| object::program_error(attachment.program, source))?;
        let at = attachment.at;
        let failed = |source| ApplyError::Attach { at, source };
        let link = FdLink::try_from(link).map_err(|source| failed(source.into()))?;
        attach::pin(link, self.pins.link(attachment)).map_err(failed)
    }
}

/// Puts a new program into the pinned link of the root cgroup, at once and without a gap.
pub(super) fn adopt(program: &CgroupSockAddr, pins: &Pins, attachment: &Attachment) -> Result<(), AttachError> {
    let path = pins.link(attachment);
    let replaced = bpf::cgroup::replace(&path, program.fd()?.as_fd());
    replaced.map_err(|source| AttachError::Pin { path, source })
}
