//! Published ports at loopback addresses: whose connections are led past docker-proxy.

use netfast_common::abi::Program;

use crate::{
    diff::{Action, Attachment, Realized, Target, attach},
    plan::Desired,
};

/// Nobody is led anywhere before all programs are there, nor while they go.
pub(super) fn localhost(desired: &Desired, realized: &Realized, actions: &mut Vec<Action>) {
    let wanted = &desired.localhost;
    if wanted.is_on {
        for program in Program::of_localhost() {
            attach(Attachment::of_localhost(program), "the root cgroup", realized, actions);
        }
    }
    if wanted.led != realized.led {
        actions.push(Action::SetLocalhost {
            from: Box::new(realized.led.clone()),
            to: Box::new(wanted.led.clone()),
        });
    }
    if !wanted.is_on {
        let programs = realized.attachments.iter().filter(|found| found.at == Target::Cgroup);
        actions.extend(programs.map(|found| Action::Detach(*found)));
    }
}

#[cfg(test)]
mod tests {
    use netfast_common::abi::HookKind;

    use super::*;
    use crate::{
        host::{Protocol, Proxy},
        plan::Localhost,
    };

    fn steps(wanted: Localhost, realized: &mut Realized) -> Vec<Action> {
        let desired = Desired {
            localhost: wanted,
            ..Desired::default()
        };
        let mut actions = Vec::new();
        localhost(&desired, realized, &mut actions);
        for action in &actions {
            realized.note(action);
        }
        actions
    }

    #[test]
    fn nobody_is_led_while_not_all_programs_are_there() {
        let proxy = Proxy {
            pid: 1,
            inode: 2,
            protocol: Protocol::Tcp,
            listens: "0.0.0.0:8080".parse().expect("an address"),
            target: "172.17.0.2:80".parse().expect("an address"),
        };
        let wanted = Localhost {
            is_on: true,
            led: [proxy].into(),
            ..Localhost::default()
        };
        let mut realized = Realized::default();
        let come = steps(wanted.clone(), &mut realized);
        let programs = Program::ALL.iter();
        let count = programs
            .filter(|program| matches!(program.hook(), HookKind::SockAddr(_)))
            .count();
        assert_eq!(come.len(), count + 1, "{come:?}");
        assert!(matches!(come.last(), Some(Action::SetLocalhost { .. })));
        let connects = |action: &Action| matches!(action, Action::Attach { attachment, .. } if attachment.program == Program::Connect4);
        assert!(
            come.iter().position(connects) > Some(count - 3),
            "what leads comes after what tells: {come:?}"
        );
        assert_eq!(steps(wanted, &mut realized), []);
        let go = steps(Localhost::default(), &mut realized);
        assert!(
            matches!(go.first(), Some(Action::SetLocalhost { .. })) && go.len() == count + 1,
            "{go:?}"
        );
        assert_eq!((realized.attachments.len(), realized.led.len()), (0, 0));
    }
}
