//! `netfast detach`.

use std::fmt::Write as _;

use crate::{
    cli::{CliError, DetachArgs, Exit, Global, output, run::absolute},
    daemon::{
        detach::{DetachError, Detached, detach, preview},
        lock::LockError,
    },
};

/// Runs the command.
pub fn run(args: &DetachArgs, global: &Global) -> Result<(), CliError> {
    let (pin_dir, run_dir) = (absolute(&global.dirs.pin_dir)?, absolute(&global.dirs.run_dir)?);
    if args.dry_run {
        let would = preview(&pin_dir, &run_dir)?;
        return output::print_report(global.json, &would, |_| preview_text(&would));
    }
    let done = detach(&pin_dir, &run_dir)?;
    output::print_report(global.json, &done, |_| text(&done))
}

fn preview_text(would: &Detached) -> String {
    if would.is_nothing() {
        return "Nothing of netfast is attached: there is nothing to do.\n".into();
    }
    let mut text = String::from("This is what `netfast detach` would do now; nothing is changed.\n");
    let mut say = |line: String| writeln!(text, "{line}").expect("a String takes everything");
    if let Some(pid) = would.stopped {
        say(format!("Stop the daemon (process {pid})."));
    }
    say(format!("Remove {} links and their pins.", would.links));
    for name in &would.clsact {
        say(format!("Remove the clsact qdisc from {name}."));
    }
    for (name, value) in &would.sysctls {
        say(format!(
            "Restore {name} = {value}, if it still is what netfast made it."
        ));
    }
    if would.segments > 0 {
        say(format!(
            "Set the usual size of segments on {} interfaces.",
            would.segments
        ));
    }
    if would.gro > 0 {
        say(format!("Switch GRO off again in {} containers.", would.gro));
    }
    if would.ways > 0 {
        say(format!(
            "Remove the routes and neighbour entries for virtual addresses of {} interfaces; their connections over IPv4 \
             continue, translated in the containers' namespaces, and those over IPv6, and of containers with themselves, end.",
            would.ways
        ));
    }
    if would.resolvers > 0 {
        say(format!(
            "Put Docker's rules for its resolver back into {} containers.",
            would.resolvers
        ));
    }
    text
}

fn text(done: &Detached) -> String {
    if done.is_nothing() {
        return "Nothing of netfast is attached.\n".into();
    }
    let mut text = String::new();
    let mut say = |line: String| writeln!(text, "{line}").expect("a String takes everything");
    if let Some(pid) = done.stopped {
        if done.killed {
            say(format!(
                "The daemon (process {pid}) did not end and was killed. If a service manager starts it again, stop it \
                 there."
            ));
        } else {
            say(format!("Stopped the daemon (process {pid})."));
        }
    }
    say(format!("Removed {} links and their pins.", done.links));
    for name in &done.clsact {
        say(format!("Removed the clsact qdisc from {name}."));
    }
    for (name, value) in &done.sysctls {
        say(format!("Restored {name} = {value}."));
    }
    if done.resolvers > 0 {
        say(format!(
            "Put Docker's rules for its resolver back into {} containers.",
            done.resolvers
        ));
    }
    if done.segments > 0 {
        say(format!(
            "Set the usual size of segments on {} interfaces.",
            done.segments
        ));
    }
    if done.gro > 0 {
        say(format!("Switched GRO off again in {} containers.", done.gro));
    }
    if done.ways > 0 {
        say(format!(
            "Removed the routes and neighbour entries for virtual addresses of {} interfaces.",
            done.ways
        ));
    }
    if done.handed_over > 0 {
        say(format!(
            "{} connections to virtual addresses go on in their containers.",
            done.handed_over
        ));
    }
    if done.ended > 0 {
        say(format!(
            "{} connections to virtual addresses end: those over IPv6, and of containers with themselves, cannot go on.",
            done.ended
        ));
    }
    if done.connections > 0 {
        say(format!("{} TCP connections go on in the kernel.", done.connections));
    }
    text
}

impl From<DetachError> for CliError {
    fn from(error: DetachError) -> Self {
        let again = "What could be removed is removed; `netfast detach` can be run again.";
        let (exit, remedy) = match &error {
            _ if error.is_permission() => (Exit::Privileges, "Run it as root."),
            DetachError::StillRunning { .. } => (Exit::AlreadyRunning, "Kill it, then run `netfast detach` again."),
            DetachError::Lock(LockError::Held { .. }) => (Exit::AlreadyRunning, again),
            DetachError::OtherNamespace(_) => (
                Exit::Failed,
                "Run it in that namespace, or name this one's --pin-dir and --run-dir.",
            ),
            DetachError::Instance(_) => (Exit::Failed, "Name the directories of one instance."),
            DetachError::Resolver { .. } => (
                Exit::Failed,
                "Names are still resolved there, by the program in the rules' place; `netfast detach` can be run again.",
            ),
            DetachError::CannotStop { .. }
            | DetachError::Lock(LockError::Io { .. })
            | DetachError::Pins { .. }
            | DetachError::Filters { .. }
            | DetachError::Clsact { .. }
            | DetachError::Segments { .. }
            | DetachError::Gro { .. }
            | DetachError::Way { .. }
            | DetachError::Pool(_)
            | DetachError::Older(_)
            | DetachError::State(_) => (Exit::Failed, again),
        };
        Self::new(exit, error).remedy(remedy)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn says_what_would_be_done() {
        let nothing = preview_text(&Detached::default());
        assert!(nothing.contains("nothing to do"), "{nothing}");
        let would = Detached {
            stopped: Some(4711),
            links: 8,
            clsact: vec!["eth0".into()],
            sysctls: vec![("net.netfilter.nf_conntrack_tcp_be_liberal".into(), 0)],
            segments: 3,
            gro: 2,
            ways: 2,
            ..Detached::default()
        };
        assert_eq!(
            preview_text(&would),
            "This is what `netfast detach` would do now; nothing is changed.\n\
             Stop the daemon (process 4711).\n\
             Remove 8 links and their pins.\n\
             Remove the clsact qdisc from eth0.\n\
             Restore net.netfilter.nf_conntrack_tcp_be_liberal = 0, if it still is what netfast made it.\n\
             Set the usual size of segments on 3 interfaces.\n\
             Switch GRO off again in 2 containers.\n\
             Remove the routes and neighbour entries for virtual addresses of 2 interfaces; their connections over IPv4 \
             continue, translated in the containers' namespaces, and those over IPv6, and of containers with themselves, end.\n"
        );
    }

    #[test]
    fn says_what_was_done() {
        assert_eq!(text(&Detached::default()), "Nothing of netfast is attached.\n");
        let done = Detached {
            stopped: Some(4711),
            killed: false,
            links: 8,
            pin_directories: 1,
            clsact: vec!["eth0".into()],
            sysctls: vec![("net.netfilter.nf_conntrack_tcp_be_liberal".into(), 0)],
            connections: 3,
            segments: 3,
            gro: 2,
            ways: 2,
            handed_over: 5,
            ended: 1,
            resolvers: 4,
        };
        assert_eq!(
            text(&done),
            "Stopped the daemon (process 4711).\n\
             Removed 8 links and their pins.\n\
             Removed the clsact qdisc from eth0.\n\
             Restored net.netfilter.nf_conntrack_tcp_be_liberal = 0.\n\
             Put Docker's rules for its resolver back into 4 containers.\n\
             Set the usual size of segments on 3 interfaces.\n\
             Switched GRO off again in 2 containers.\n\
             Removed the routes and neighbour entries for virtual addresses of 2 interfaces.\n\
             5 connections to virtual addresses go on in their containers.\n\
             1 connections to virtual addresses end: those over IPv6, and of containers with themselves, cannot go on.\n\
             3 TCP connections go on in the kernel.\n"
        );
        let killed = Detached {
            stopped: Some(4711),
            killed: true,
            ..Detached::default()
        };
        assert!(text(&killed).starts_with("The daemon (process 4711) did not end and was killed."));
    }
}
