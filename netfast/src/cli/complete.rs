//! What a shell offers to complete: `netfast` itself is asked, with the variable `COMPLETE` set, so that containers and
//! networks are those that there are.
//!
//! Names come from the daemon's state, which the package's service lets nobody but root read: for others there are the
//! options and the reasons.

use std::{collections::BTreeSet, env, ffi::OsStr, path::PathBuf};

use clap_complete::{CompleteEnv, CompletionCandidate};
use netfast_common::reason::Reason;

use super::DEFAULT_RUN_DIR;
use crate::{report::explain::reasons::Reasons, state::State};

/// The words of a filter of `trace`.
const FILTER_WORDS: [&str; 14] = [
    "tcp", "udp", "icmp", "icmp6", "fast", "slow", "reason", "src", "dst", "host", "net", "port", "and", "not",
];

/// If a shell asks, answers and ends the process.
pub fn answer() {
    CompleteEnv::with_factory(super::command).complete();
}

/// Containers with an endpoint.
pub fn containers() -> Vec<CompletionCandidate> {
    candidates(state().iter().flat_map(container_names))
}

/// Networks.
pub fn networks() -> Vec<CompletionCandidate> {
    candidates(state().iter().flat_map(network_names))
}

/// Both.
pub fn networks_and_containers() -> Vec<CompletionCandidate> {
    let state = state();
    candidates(
        state
            .iter()
            .flat_map(|state| network_names(state).chain(container_names(state))),
    )
}

/// Names that several containers share.
pub fn aliases() -> Vec<CompletionCandidate> {
    candidates(state().iter().flat_map(alias_names))
}

/// What `explain` takes for a destination, besides addresses.
pub fn destinations() -> Vec<CompletionCandidate> {
    let state = state();
    candidates(
        state
            .iter()
            .flat_map(|state| container_names(state).chain(alias_names(state))),
    )
}

/// Reasons and causes.
pub fn reasons() -> Vec<CompletionCandidate> {
    let all = Reasons::all()
        .reasons
        .into_iter()
        .map(|reason| (reason.name, reason.text));
    all.chain([("all".to_owned(), "all of them")])
        .map(|(name, text)| CompletionCandidate::new(name).help(Some(text.into())))
        .collect()
}

/// Words of a filter: after `reason` one of these, after `host` and the like a container.
pub fn filter() -> Vec<CompletionCandidate> {
    match before_last().as_deref() {
        Some("reason") => candidates(
            Reason::ALL
                .iter()
                .filter(|reason| reason.is_slow())
                .map(|reason| reason.name()),
        ),
        Some("host") => containers(),
        Some("src" | "dst") => candidates(["host", "net", "port"]),
        _ => candidates(FILTER_WORDS),
    }
}

fn container_names(state: &State) -> impl Iterator<Item = &str> {
    let endpoints = state.networks.iter().flat_map(|network| &network.endpoints);
    endpoints.map(|endpoint| endpoint.container.as_str())
}

fn network_names(state: &State) -> impl Iterator<Item = &str> {
    state.networks.iter().map(|network| network.name.as_str())
}

fn alias_names(state: &State) -> impl Iterator<Item = &str> {
    state.aliases.iter().map(|alias| alias.alias.as_str())
}

/// Each once, in order.
fn candidates<'a>(names: impl IntoIterator<Item = &'a str>) -> Vec<CompletionCandidate> {
    let names: BTreeSet<&str> = names.into_iter().filter(|name| !name.is_empty()).collect();
    names.into_iter().map(CompletionCandidate::new).collect()
}

/// What the daemon of the instance that is being typed about wrote down, if it may be read.
fn state() -> Option<State> {
    let words: Vec<_> = env::args_os().collect();
    State::read(&run_dir(&words, env::var_os("NETFAST_RUN_DIR").map(Into::into))).ok()?
}

/// The run directory as typed, else as the environment says.
fn run_dir(words: &[impl AsRef<OsStr>], from_environment: Option<PathBuf>) -> PathBuf {
    let mut words = words.iter().map(AsRef::as_ref);
    while let Some(word) = words.next() {
        if word == "--run-dir"
            && let Some(dir) = words.next()
        {
            return dir.into();
        }
        if let Some(dir) = word.to_str().and_then(|word| word.strip_prefix("--run-dir=")) {
            return dir.into();
        }
    }
    from_environment.unwrap_or_else(|| DEFAULT_RUN_DIR.into())
}

/// The word before the one that is being completed.
fn before_last() -> Option<String> {
    let words: Vec<_> = env::args().collect();
    // Bash says which word it is; for the others it is the last.
    let at = env::var("_CLAP_COMPLETE_INDEX")
        .ok()
        .and_then(|text| text.parse::<usize>().ok());
    let first = words.iter().position(|word| word == "--")? + 1;
    let at = at.map_or(words.len() - 1, |at| first + at);
    words.get(at.checked_sub(1)?).cloned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_run_directory_is_as_typed() {
        let words = ["netfast", "--", "netfast", "status", "--run-dir", "/typed", ""];
        assert_eq!(run_dir(&words, Some("/env".into())), PathBuf::from("/typed"));
        assert_eq!(run_dir(&["netfast", "--run-dir=/typed"], None), PathBuf::from("/typed"));
        assert_eq!(
            run_dir(&["netfast", "status"], Some("/env".into())),
            PathBuf::from("/env")
        );
        assert_eq!(run_dir(&["netfast", "--run-dir"], None), PathBuf::from(DEFAULT_RUN_DIR));
    }
}
