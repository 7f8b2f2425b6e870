//! What netfast has to do without on this kernel: programs that the kernel has no place for, or that its verifier refuses.

use std::{error::Error as _, fmt, io};

use aya::programs::ProgramError;
use aya_obj::VerifierLog;
use netfast_common::abi::Program;

use super::{ApplyError, Mode};

/// What netfast is to do without although the kernel has it: other kernels, for tests.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Without {
    /// tcx.
    pub tcx: bool,
    /// Programs that are taken for refused.
    pub programs: Vec<Program>,
}

impl Without {
    /// Says what a kernel says whose verifier gives up, if this program is to be missed.
    pub fn refuse(&self, program: Program) -> Result<(), ApplyError> {
        if !self.programs.contains(&program) {
            return Ok(());
        }
        let log = "BPF program is too large. Processed 1000001 insn\nprocessed 1000001 insns (limit 1000000)\n";
        Err(ApplyError::Program {
            name: program.name(),
            source: Box::new(ProgramError::LoadError {
                io_error: io::Error::from_raw_os_error(libc::E2BIG),
                verifier_log: VerifierLog::new(log.into()),
            }),
        })
    }
}

/// Something that this kernel does not do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lack {
    /// The program that is refused; `None`: those that only tcx has a place for.
    pub program: Option<Program>,
    /// What, and why, in one line.
    pub why: String,
    /// What is lost by it.
    pub lost: &'static str,
    /// What can be done about it.
    pub remedy: String,
}

impl Lack {
    /// A program that the kernel does not take.
    pub fn refused(program: Program, error: &ApplyError) -> Self {
        Self {
            program: Some(program),
            why: one_line(error),
            lost: program.without().unwrap_or("netfast does not start"),
            remedy: remedy(error).into(),
        }
    }

    /// Programs that only tcx has a place for.
    pub fn no_tcx() -> Self {
        Self {
            program: None,
            why: "the kernel has no tcx (Linux 6.6)".into(),
            lost: Program::Answer.without().unwrap_or_default(),
            remedy: "A newer kernel has it.".into(),
        }
    }
}

impl fmt::Display for Lack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { why, lost, remedy, .. } = self;
        write!(f, "{why}; without it, {lost}. {remedy}")
    }
}

/// The programs that are loaded where programs are attached in this way.
pub fn loadable(mode: Mode) -> impl Iterator<Item = Program> {
    let all = Program::ALL.iter().copied();
    all.filter(move |program| mode == Mode::Tcx || !program.needs_tcx())
}

/// An error without the verifier's log, but with what the log comes to.
pub fn one_line(error: &ApplyError) -> String {
    match complaint(error) {
        Some(Complaint::TooComplex(words)) => {
            format!("{error}: it is too complex for this kernel's verifier ({words})")
        }
        Some(Complaint::Other(words)) => format!("{error}: {words}"),
        None => {
            let chain = causes(error);
            chain.lines().next().unwrap_or_default().into()
        }
    }
}

fn remedy(error: &ApplyError) -> &'static str {
    match complaint(error) {
        Some(Complaint::TooComplex(_)) => {
            "Verifiers of later kernels need fewer steps for the same program: netfast's programs fit those of Linux 6.1 and \
             later."
        }
        Some(Complaint::Other(_)) | None => "Report it with this line and the kernel's version.",
    }
}

enum Complaint {
    /// The verifier has given up, whatever the program does.
    TooComplex(String),
    Other(String),
}

/// What the kernel has against a program.
fn complaint(error: &ApplyError) -> Option<Complaint> {
    let ApplyError::Program { source, .. } = error else {
        return None;
    };
    let ProgramError::LoadError { io_error, verifier_log } = &**source else {
        return None;
    };
    let log = verifier_log.to_string();
    let words = last_words(&log).map_or_else(|| io_error.to_string(), str::to_owned);
    // "BPF program is too large. Processed N insn", "The sequence of N jumps is too complex."; without words in the log
    // E2BIG is the verifier's own, as a program of that many instructions would be refused by the loader.
    let is_complex = ["too large", "too complex"].iter().any(|text| words.contains(text));
    Some(if is_complex || io_error.raw_os_error() == Some(libc::E2BIG) {
        Complaint::TooComplex(words)
    } else {
        Complaint::Other(words)
    })
}

/// What the verifier's log ends with, before its statistics.
fn last_words(log: &str) -> Option<&str> {
    let is_statistics = |line: &&str| {
        ["processed ", "verification time ", "stack depth "]
            .iter()
            .any(|start| line.starts_with(start))
    };
    log.lines()
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .rfind(|line| !is_statistics(line))
}

/// An error with its causes, as errors are shown.
fn causes(error: &ApplyError) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

/// What it means that the kernel does not let `nf_queue` be watched (fentry).
pub(super) fn without_queue_watch(why: &str) -> String {
    format!(
        "packets that user space holds (NFQUEUE) are not distinguishable from others: no flow is learned while a program \
         listens on a queue ({why})"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(io_error: i32, log: &str) -> ApplyError {
        ApplyError::Program {
            name: Program::Answer.name(),
            source: Box::new(ProgramError::LoadError {
                io_error: io::Error::from_raw_os_error(io_error),
                verifier_log: VerifierLog::new(log.into()),
            }),
        }
    }

    #[test]
    fn a_program_that_is_too_complex_is_one_line_with_its_name_what_is_lost_and_a_remedy() {
        let pretended = Without {
            tcx: false,
            programs: vec![Program::Answer],
        };
        assert!(pretended.refuse(Program::VipIngress).is_ok());
        let error = pretended.refuse(Program::Answer).unwrap_err();
        let lack = Lack::refused(Program::Answer, &error);
        assert_eq!(
            lack.to_string(),
            "the kernel does not take the BPF program netfast_answer: it is too complex for this kernel's verifier (BPF \
             program is too large. Processed 1000001 insn); without it, Docker's resolver answers for aliases as it does \
             without netfast, and aliases get no virtual addresses. Verifiers of later kernels need fewer steps for the \
             same program: netfast's programs fit those of Linux 6.1 and later."
        );
        let jumps = refused(libc::EFAULT, "The sequence of 8193 jumps is too complex.\n");
        assert!(one_line(&jumps).contains("too complex for this kernel's verifier"));
    }

    #[test]
    fn other_refusals_are_told_in_the_verifier_s_last_words_without_its_log() {
        let log = "func#0 @0\n0: R1=ctx() R10=fp0\nR1 invalid mem access 'scalar'\nverification time 7 usec\nstack depth 8\n\
                   processed 1 insns (limit 1000000) max_states_per_insn 0\n";
        assert_eq!(
            one_line(&refused(libc::EACCES, log)),
            "the kernel does not take the BPF program netfast_answer: R1 invalid mem access 'scalar'"
        );
        let lack = Lack::refused(Program::Answer, &refused(libc::EACCES, log));
        assert_eq!(lack.remedy, "Report it with this line and the kernel's version.");
        assert_eq!(
            one_line(&refused(libc::EPERM, "")),
            "the kernel does not take the BPF program netfast_answer: Operation not permitted (os error 1)"
        );
        assert_eq!(
            one_line(&ApplyError::Attach {
                at: crate::diff::Attachment::QUEUE_WATCH.at,
                source: super::super::AttachError::Gone,
            }),
            format!("{}: the interface is gone", crate::diff::Attachment::QUEUE_WATCH.at)
        );
    }

    #[test]
    fn without_tcx_only_the_programs_of_devices_and_tracing_are_loaded() {
        let loaded: Vec<Program> = loadable(Mode::Clsact).collect();
        assert_eq!(loaded.len(), Program::ALL.len() - 10, "those of cgroups need no tcx");
        assert!(loaded.iter().all(|program| !program.needs_tcx()));
        assert_eq!(loadable(Mode::Tcx).count(), Program::ALL.len());
        // One that netfast cannot do without never needs it.
        let needed = Program::ALL.iter().filter(|program| program.without().is_none());
        assert!(needed.into_iter().all(|program| !program.needs_tcx()));
    }

    #[test]
    fn a_refused_fentry_is_said_with_its_consequence_and_without_the_verifier_s_log() {
        let refused = Without {
            programs: vec![Program::Queued],
            ..Without::default()
        };
        let said = without_queue_watch(&one_line(&refused.refuse(Program::Queued).unwrap_err()));
        assert!(
            said.contains("no flow is learned while a program listens on a queue") && said.contains("netfast_queued"),
            "{said}"
        );
        assert!(!said.contains("processed"), "{said}");
    }
}
