//! What an event of the runtime asks to look at again. What happened is not read from it: events can be missed, and
//! come in any order.

use std::collections::{BTreeSet, HashMap};

use bollard::models::{EventMessage, EventMessageTypeEnum};

/// What a run of events asks to look at again.
#[derive(Debug, Default, PartialEq)]
pub struct Todo {
    /// Containers, by identifier.
    pub containers: BTreeSet<String>,
    /// Those among them that were told to end.
    pub ending: BTreeSet<String>,
    /// The networks.
    pub networks: bool,
    /// Everything.
    pub all: bool,
}

impl Todo {
    /// Takes an event in.
    pub fn add(&mut self, event: EventMessage) {
        let action = event.action.unwrap_or_default();
        let actor = event.actor.unwrap_or_default();
        match (event.typ, actor.id.filter(|id| !id.is_empty())) {
            (Some(EventMessageTypeEnum::CONTAINER), Some(id)) => {
                if action == "kill" && actor.attributes.is_some_and(|attributes| ends(&attributes)) {
                    self.ending.insert(id.clone());
                } else if action == "die" {
                    // It has; if it runs again, it is another run.
                    self.ending.remove(&id);
                }
                if !is_noise(&action) {
                    self.containers.insert(id);
                }
            }
            (Some(EventMessageTypeEnum::NETWORK), _) => {
                let container = actor
                    .attributes
                    .and_then(|mut attributes| attributes.remove("container"));
                match (action.as_str(), container) {
                    ("connect" | "disconnect", Some(container)) => {
                        self.containers.insert(container);
                    }
                    ("connect" | "disconnect", None) => self.all = true,
                    _ => self.networks = true,
                }
            }
            _ => self.all = true,
        }
    }
}

/// Whether the signal of a `kill` is one that programs end by: SIGINT, SIGQUIT, SIGKILL or SIGTERM.
fn ends(attributes: &HashMap<String, String>) -> bool {
    let signal = attributes.get("signal").map(String::as_str);
    matches!(signal, Some("2" | "3" | "9" | "15"))
}

/// Actions on a container that change nothing of what is read of it, the frequent ones at least.
fn is_noise(action: &str) -> bool {
    const NOISE: [&str; 10] = [
        "attach",
        "archive-path",
        "commit",
        "copy",
        "create",
        "detach",
        "export",
        "extract-to-dir",
        "resize",
        "top",
    ];
    action.starts_with("exec_") || NOISE.contains(&action)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(json: &str) -> EventMessage {
        serde_json::from_str(json).expect("an event")
    }

    #[test]
    fn events_say_what_to_ask_for() {
        let check = |json: &str, expected: Todo| {
            let mut todo = Todo::default();
            todo.add(event(json));
            assert_eq!(todo, expected, "{json}");
        };
        let container = |id: &str| Todo {
            containers: BTreeSet::from([id.into()]),
            ..Todo::default()
        };
        check(
            r#"{"Type":"container","Action":"start","Actor":{"ID":"c1"}}"#,
            container("c1"),
        );
        check(
            r#"{"Type":"container","Action":"health_status: healthy","Actor":{"ID":"c1"}}"#,
            container("c1"),
        );
        check(
            r#"{"Type":"container","Action":"exec_start: sh","Actor":{"ID":"c1"}}"#,
            Todo::default(),
        );
        let kill = |signal: &str| {
            let attributes = format!(r#""Attributes":{{"signal":"{signal}"}}"#);
            format!(r#"{{"Type":"container","Action":"kill","Actor":{{"ID":"c1",{attributes}}}}}"#)
        };
        let ending = Todo {
            ending: BTreeSet::from(["c1".into()]),
            ..container("c1")
        };
        check(&kill("15"), ending);
        check(&kill("1"), container("c1"));
        let mut restarted = Todo::default();
        let die = r#"{"Type":"container","Action":"die","Actor":{"ID":"c1"}}"#;
        restarted.add(event(&kill("15")));
        restarted.add(event(die));
        assert_eq!(restarted, container("c1"));
        let connect = r#"{"Type":"network","Action":"connect","Actor":{"ID":"n1","Attributes":{"container":"c2"}}}"#;
        check(connect, container("c2"));
        let create = r#"{"Type":"network","Action":"create","Actor":{"ID":"n1"}}"#;
        check(
            create,
            Todo {
                networks: true,
                ..Todo::default()
            },
        );
        check(
            "{}",
            Todo {
                all: true,
                ..Todo::default()
            },
        );
    }
}
