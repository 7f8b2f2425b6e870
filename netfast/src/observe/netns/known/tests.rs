use super::*;
use crate::host::{BridgeInfo, ContainerInterface, NetnsId};

const TTL: Duration = Duration::from_mins(1);

fn link(ifindex: u32, kind: LinkKind) -> Link {
    Link::sample(ifindex, &format!("if{ifindex}"), kind)
}

fn veth(ifindex: u32, netns: Option<i32>) -> Link {
    let kind = LinkKind::Veth {
        peer_ifindex: Some(2),
        peer_netns: netns,
    };
    link(ifindex, kind)
}

/// Containers 1 and 2 with a veth each, 11 and 12, and container 3 without any.
struct Scene {
    host: Host,
    known: Known,
}

fn container(pid: u32) -> Container {
    Container {
        id: ContainerId(format!("c{pid}")),
        pid,
        ..Container::default()
    }
}

fn inside(host_ifindex: Option<u32>) -> ContainerNetns {
    let interface = |host_ifindex| ContainerInterface {
        name: "eth0".into(),
        ifindex: 2,
        mac: None,
        host_ifindex: Some(host_ifindex),
        up: true,
        kind: "veth".into(),
        addresses: Vec::new(),
    };
    ContainerNetns {
        id: NetnsId::default(),
        interfaces: host_ifindex.map(interface).into_iter().collect(),
    }
}

impl Scene {
    fn new() -> Self {
        let mut host = Host::default();
        for pid in 1..=3 {
            let container = container(pid);
            host.containers.insert(container.id.clone(), container);
        }
        let links = &mut host.served_mut().links;
        links.insert(11, veth(11, Some(1)));
        links.insert(12, veth(12, Some(2)));
        links.insert(20, link(20, LinkKind::Bridge(BridgeInfo::default())));
        let mut scene = Self {
            host,
            known: Known::default(),
        };
        assert_eq!(scene.wanted(None, &[]), [1, 2, 3], "nothing is known");
        let found = [(1, inside(Some(11))), (2, inside(Some(12))), (3, inside(None))];
        scene.known.note(found.into(), &[1, 2, 3].into());
        scene
    }

    fn wanted(&mut self, links: Option<&[u32]>, changed: &[u32]) -> Vec<u32> {
        let links = links.map_or(Links::All, |links| Links::Of(links.iter().copied().collect()));
        let changed = changed.iter().map(|pid| ContainerId(format!("c{pid}"))).collect();
        let wanted = self.known.wanted(&self.host, &links, &changed, TTL);
        wanted.into_iter().collect()
    }

    fn set(&mut self, link: Link) {
        self.host.served_mut().links.insert(link.ifindex, link);
    }
}

#[test]
fn without_a_reason_nobody_is_looked_at() {
    let mut scene = Scene::new();
    assert!(scene.wanted(Some(&[]), &[]).is_empty());
    assert!(scene.wanted(Some(&[20]), &[]).is_empty(), "a bridge leads nowhere");
    assert_eq!(scene.wanted(None, &[]), [1, 2, 3], "any link may have changed");
    assert!(scene.wanted(Some(&[]), &[]).is_empty());
    let wanted = scene
        .known
        .wanted(&scene.host, &Links::Of([].into()), &[].into(), Duration::ZERO);
    assert_eq!(wanted, [1, 2, 3].into(), "it is long ago");
}

#[test]
fn a_link_and_a_container_that_changed_are_reasons() {
    let mut scene = Scene::new();
    assert_eq!(scene.wanted(Some(&[12]), &[]), [2]);
    assert_eq!(scene.wanted(Some(&[]), &[1]), [1]);
    scene.host.served_mut().links.remove(&11);
    assert_eq!(scene.wanted(Some(&[11]), &[]), [1], "its interface has gone");
}

#[test]
fn a_container_that_starts_concerns_itself() {
    let mut scene = Scene::new();
    // As the engine makes it: both ends here, one is moved, the container is announced.
    scene.set(veth(13, None));
    scene.set(veth(14, None));
    assert!(scene.wanted(Some(&[13, 14]), &[]).is_empty());
    scene.host.served_mut().links.remove(&14);
    scene.set(veth(13, Some(4)));
    assert_eq!(
        scene.wanted(Some(&[13, 14]), &[]),
        [3],
        "it may lead into one that had no interface"
    );
    let new = container(4);
    scene.host.containers.insert(new.id.clone(), new);
    assert_eq!(scene.wanted(Some(&[]), &[4]), [4]);
    assert_eq!(scene.wanted(Some(&[]), &[]), [4], "it could not be looked into");
    scene.known.note([(4, inside(Some(13)))].into(), &[4].into());
    assert!(scene.wanted(Some(&[]), &[]).is_empty());
}

#[test]
fn a_second_interface_of_a_container_is_seen() {
    let mut scene = Scene::new();
    scene.set(veth(15, Some(2)));
    assert_eq!(scene.wanted(Some(&[15]), &[]), [2]);
}

#[test]
fn what_is_no_veth_may_have_been_moved_into_any() {
    let mut scene = Scene::new();
    scene.set(link(16, LinkKind::Macvlan));
    assert!(scene.wanted(Some(&[16]), &[]).is_empty());
    scene.host.served_mut().links.remove(&16);
    assert_eq!(scene.wanted(Some(&[16]), &[]), [1, 2, 3]);
}
