//! Docker's rules for its resolver: which go, and which come back.

use crate::{
    diff::{Action, Attachment, Realized, attach},
    host::InsideRules,
    plan::{Desired, Inside},
};
use netfast_common::abi::Program;

/// What comes back first, then what goes. A program goes only after the rules have come back, and rules go only after it has
/// come.
pub fn resolvers(desired: &Desired, realized: &Realized, actions: &mut Vec<Action>) {
    let wanted = &desired.resolvers;
    for (loopback, rules) in &realized.resolvers {
        let is_attached = realized.attachments.contains(&Attachment::of_resolver(*loopback));
        let why = match wanted.get(loopback) {
            None => "it is not wanted any more".into(),
            Some(Inside {
                rules: InsideRules::Other(text),
                ..
            }) => text.clone(),
            Some(_) if !is_attached => "the program in their place is gone".into(),
            Some(_) => continue,
        };
        actions.push(Action::PutBack {
            loopback: *loopback,
            rules: Box::new(rules.clone()),
            why,
        });
    }
    let is_program = |found: &&Attachment| found.program == Program::Resolver;
    for found in realized.attachments.iter().filter(is_program) {
        let inside = found.loopback().and_then(|loopback| wanted.get(&loopback));
        if inside.is_none_or(|inside| matches!(inside.rules, InsideRules::Other(_))) {
            actions.push(Action::Detach(*found));
        }
    }
    for (loopback, inside) in wanted {
        let InsideRules::Resolver(rules) = &inside.rules else {
            continue;
        };
        attach(Attachment::of_resolver(*loopback), &inside.container, realized, actions);
        actions.push(Action::TakeOut {
            loopback: *loopback,
            container: inside.container.clone(),
            rules: Box::new(rules.clone()),
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{host::ResolverRules, plan::Loopback};

    const AT: Loopback = Loopback { netns: 4, pid: 17 };

    fn rules(udp: u16) -> ResolverRules {
        ResolverRules {
            udp,
            tcp: 2,
            chains: Vec::new(),
            rules: Vec::new(),
        }
    }

    /// What is done, in words, if this is found in a container that should be without; `None`: it should not.
    fn done(found: Option<InsideRules>, realized: &mut Realized) -> Vec<String> {
        let mut desired = Desired::default();
        if let Some(rules) = found {
            let container = "web".into();
            desired.resolvers.insert(AT, Inside { container, rules });
        }
        let mut actions = Vec::new();
        resolvers(&desired, realized, &mut actions);
        for action in &actions {
            realized.note(action);
        }
        let words = actions.iter().map(ToString::to_string);
        words
            .map(|text| text.split(' ').next().unwrap_or_default().to_owned())
            .collect()
    }

    #[test]
    fn rules_go_after_the_program_has_come_and_come_back_before_it_goes() {
        let mut realized = Realized::default();
        let here = || Some(InsideRules::Resolver(rules(1)));
        let other = || Some(InsideRules::Other("somebody's".into()));
        assert_eq!(done(other(), &mut realized), [""; 0], "others are left alone");
        assert_eq!(
            done(Some(InsideRules::None), &mut realized),
            [""; 0],
            "there is nothing to do"
        );
        assert_eq!(done(here(), &mut realized), ["attach", "take"]);
        assert_eq!(
            done(Some(InsideRules::None), &mut realized),
            [""; 0],
            "all is as it should be"
        );
        // Docker has written others.
        assert_eq!(done(Some(InsideRules::Resolver(rules(9))), &mut realized), ["take"]);
        assert_eq!(realized.resolvers[&AT].udp, 9);
        assert_eq!(done(other(), &mut realized), ["put", "detach"]);
        assert_eq!(done(here(), &mut realized), ["attach", "take"]);
        assert_eq!(done(None, &mut realized), ["put", "detach"]);
        assert_eq!(realized, Realized::default(), "nothing is left");
    }

    #[test]
    fn without_the_program_the_rules_come_back() {
        let mut realized = Realized::default();
        assert_eq!(
            done(Some(InsideRules::Resolver(rules(1))), &mut realized),
            ["attach", "take"]
        );
        realized.attachments.clear();
        assert_eq!(done(Some(InsideRules::None), &mut realized), ["put"]);
        assert_eq!(
            done(Some(InsideRules::Resolver(rules(1))), &mut realized),
            ["attach", "take"]
        );
    }
}
