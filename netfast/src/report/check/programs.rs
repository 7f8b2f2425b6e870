//! What the kernel's verifier says to netfast's programs.

use netfast_common::abi::{HookKind, Program};

use super::{Area, Check, Level, Line};
use crate::{apply::lacks::Lack, exit::Exit, probe};

/// What the programs together are called.
const SUBJECT: &str = "netfast's programs";

/// Adds what the verifier said to each program. One that netfast can do without is a note, with what is lost and what to do.
pub fn programs(tried: &[(Program, Result<(), Lack>)], check: &mut Check) {
    let refused = || {
        tried
            .iter()
            .filter_map(|(program, outcome)| Some((*program, outcome.as_ref().err()?)))
    };
    if let Some((_, lack)) = refused().find(|(program, _)| program.without().is_none()) {
        return fail(&lack.why, check);
    }
    // Where no program can trace, that has been said.
    let is_said =
        |program: Program| matches!(program.hook(), HookKind::Fentry(_)) && check.has(Level::Note, probe::WATCH);
    let (said, news): (Vec<_>, Vec<_>) = refused().partition(|(program, _)| is_said(*program));
    let loadable = tried.len() - said.len();
    let detail = match (loadable == Program::ALL.len(), news.len()) {
        (true, 0) => format!("the verifier accepts all {loadable}"),
        (false, 0) => format!("the verifier accepts all {loadable} that this kernel has a place for"),
        (_, number) => format!("the verifier accepts {} of {loadable}", loadable - number),
    };
    check.lines.push(Line::new(Area::Kernel, Level::Ok, SUBJECT, detail));
    for (program, Lack { why, lost, remedy, .. }) in news {
        let detail = format!("{why}; without it, {lost}");
        let line = Line::new(Area::Kernel, Level::Note, program.name(), detail);
        check.lines.push(line.remedy(remedy.clone()));
    }
}

/// Adds why netfast cannot run with its programs at all.
pub fn fail(why: &str, check: &mut Check) {
    check.fail(Exit::Unsupported);
    let line = Line::new(Area::Kernel, Level::Fail, SUBJECT, first_line(why));
    check
        .lines
        .push(line.remedy("Report it with the output of `netfast run` and the kernel's version."));
}

/// The verifier's log follows on further lines; `run` shows it.
fn first_line(why: &str) -> &str {
    why.lines().next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::apply::{Mode, lacks::loadable};

    fn lack(program: Program) -> Lack {
        Lack {
            program: Some(program),
            why: format!("the kernel does not take {}", program.name()),
            lost: program.without().unwrap_or("all"),
            remedy: "A newer kernel.".into(),
        }
    }

    fn checked(refuse: &[Program]) -> Check {
        let tried: Vec<_> = Program::ALL
            .iter()
            .map(|program| {
                let outcome = if refuse.contains(program) {
                    Err(lack(*program))
                } else {
                    Ok(())
                };
                (*program, outcome)
            })
            .collect();
        let mut check = Check::default();
        programs(&tried, &mut check);
        check
    }

    #[test]
    fn all_programs_are_counted() {
        let check = checked(&[]);
        assert_eq!(check.lines[0].detail, "the verifier accepts all 28");
        assert_eq!((check.lines.len(), check.fails_with), (1, None));
    }

    #[test]
    fn a_program_that_can_be_missed_is_a_note_with_what_is_lost_and_what_to_do() {
        let check = checked(&[Program::Answer, Program::Queued]);
        assert_eq!(check.fails_with, None);
        assert_eq!(check.lines[0].detail, "the verifier accepts 26 of 28");
        let notes: Vec<_> = check.lines[1..]
            .iter()
            .map(|line| (line.level, line.subject.as_str(), line.detail.as_str()))
            .collect();
        let answer = "the kernel does not take netfast_answer; without it, Docker's resolver answers for aliases as it \
                      does without netfast, and aliases get no virtual addresses";
        let queued = "the kernel does not take netfast_queued; without it, a rule that sends packets to NFQUEUE keeps \
                      flows from being learned";
        assert_eq!(
            notes,
            [
                (Level::Note, "netfast_answer", answer),
                (Level::Note, "netfast_queued", queued)
            ]
        );
        let remedies = check.lines[1..].iter().map(|line| line.remedy.as_deref());
        assert!(remedies.clone().all(|remedy| remedy == Some("A newer kernel.")));
        assert_eq!(remedies.count(), 2);
    }

    #[test]
    fn tracing_that_is_missing_is_said_once() {
        let mut check = Check::default();
        let tracing = Line::new(Area::Kernel, Level::Note, probe::WATCH, "not here");
        check.lines.push(tracing);
        programs(
            &[(Program::Answer, Ok(())), (Program::Queued, Err(lack(Program::Queued)))],
            &mut check,
        );
        let said: Vec<_> = check.lines[1..].iter().map(|line| line.detail.as_str()).collect();
        assert_eq!(said, ["the verifier accepts all 1 that this kernel has a place for"]);
    }

    #[test]
    fn a_kernel_without_tcx_is_one_note_and_what_it_has_no_place_for_is_not_missed_again() {
        let mut check = Check::default();
        check.add_tried(&probe::no_tcx());
        let tried: Vec<_> = loadable(Mode::Clsact).map(|program| (program, Ok(()))).collect();
        programs(&tried, &mut check);
        let [tcx, programs] = check.lines.as_slice() else {
            panic!("{:?}", check.lines)
        };
        assert_eq!((tcx.level, check.fails_with), (Level::Note, None));
        assert!(
            tcx.detail.contains("(clsact)") && tcx.detail.ends_with("aliases get no virtual addresses"),
            "{}",
            tcx.detail
        );
        assert_eq!(tcx.remedy.as_deref(), Some("It is in Linux 6.6 and later."));
        assert_eq!(
            programs.detail,
            "the verifier accepts all 18 that this kernel has a place for"
        );
    }

    #[test]
    fn a_program_that_cannot_be_missed_fails() {
        let check = checked(&[Program::EndpointIngress, Program::Answer]);
        assert_eq!(check.fails_with, Some(Exit::Unsupported));
        assert_eq!(check.lines.len(), 1);
        assert_eq!(check.lines[0].detail, "the kernel does not take netfast_ep_in");
    }
}
