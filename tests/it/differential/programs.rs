//! BPF programs on netfilter's hooks. The kernel does not say in whose namespace they are, so all networks of all hosts of
//! this machine are slow meanwhile: in this ring no other test is running.

use std::{thread, time::Duration};

use netfast_tests::{
    cmd,
    require::{Need, needs},
};

use crate::netns::{
    judges::program::Judge,
    lab::{Echo, Lab, TIMEOUT, ask, at, udp, until_answered, warm},
};

#[test]
fn a_program_on_a_netfilter_hook_sees_every_packet() {
    if !needs(&[Need::Root, Need::Kernel(6, 4)]) {
        return;
    }
    let lab = Lab::start();
    let (a, b) = (lab.topo.container(0, 0), lab.topo.container(0, 1));
    let _echo = Echo::start(&a.ns, 7001);
    let socket = udp(&b.ns, 40_130, at(a.ip, 7001));
    until_answered(&socket, "the first answer");
    warm(&lab, &socket);
    let judge = Judge::on_forward(lab.topo.host());
    // Polled for every second.
    thread::sleep(Duration::from_millis(2500));
    let before = lab.fast();
    for _ in 0..50 {
        assert!(ask(&socket), "it lets everything through");
    }
    assert_eq!(lab.fast(), before, "packets passed it by");
    drop(judge);
    cmd::poll("the fast path", TIMEOUT, || {
        let before = lab.fast();
        let _answered = (0..4).filter(|_| ask(&socket)).count();
        (lab.fast() > before).then_some(())
    })
    .expect("it is gone");
}
