//! For tests of what happens on other kernels: what is to be missed, although this one has it.

use std::env;

use netfast_common::abi::Program;

use crate::apply::lacks::Without;

/// `1`: no tcx, as before Linux 6.6.
const TCX_VARIABLE: &str = "NETFAST_WITHOUT_TCX";
/// Names of programs, with commas between them, that the kernel is taken to refuse. Without effect on those that netfast
/// cannot do without.
const PROGRAMS_VARIABLE: &str = "NETFAST_WITHOUT_PROGRAMS";

/// What the environment says.
pub fn pretended() -> Without {
    Without {
        tcx: env::var_os(TCX_VARIABLE).is_some_and(|value| value == "1"),
        programs: named(&env::var(PROGRAMS_VARIABLE).unwrap_or_default()),
    }
}

fn named(list: &str) -> Vec<Program> {
    let is_named = |program: &Program| list.split(',').any(|name| name == program.name());
    let all = Program::ALL.iter().copied();
    all.filter(|program| program.without().is_some() && is_named(program))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_programs_that_can_be_missed_are_named() {
        assert_eq!(named(""), []);
        assert_eq!(
            named("netfast_ep_in,netfast_answer,netfast_queued,other"),
            [Program::Answer, Program::Queued]
        );
    }
}
