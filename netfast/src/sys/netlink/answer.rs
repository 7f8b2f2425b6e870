//! How the kernel's answer to a request ends: well, or with an errno and words of its own (`NETLINK_EXT_ACK`).

use std::io;

use netlink_packet_core::{
    DoneBuffer, ErrorBuffer, NLM_F_ACK_TLVS, NLM_F_CAPPED, NLM_F_DUMP_INTR, NLMSG_DONE, NLMSG_ERROR, NLMSG_NOOP,
    NLMSG_OVERRUN,
};

use super::message::{self, HEADER};
use super::{Malformed, Message, Messages, NetlinkError};

/// `NLMSGERR_ATTR_MSG`.
const WORDS: u16 = 1;

/// How far an answer has come with a datagram.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// It is whole.
    pub is_over: bool,
    /// The table changed while it was being listed. The flag may come with any message, or with the last one only.
    pub is_torn: bool,
}

/// Reads one datagram of the answer to the request with this number. `each` is called for its messages.
pub fn read<'a>(
    what: &'static str,
    seq: u32,
    datagram: &'a [u8],
    mut each: impl FnMut(Message<'a>),
) -> Result<Progress, NetlinkError> {
    let mut progress = Progress::default();
    for message in Messages(datagram) {
        let message = message.map_err(NetlinkError::malformed(what))?;
        if message.seq != seq {
            continue;
        }
        progress.is_torn |= message.flags & NLM_F_DUMP_INTR != 0;
        match message.kind {
            NLMSG_DONE | NLMSG_ERROR => {
                progress.is_over = true;
                check(what, message)?;
            }
            NLMSG_NOOP => {}
            NLMSG_OVERRUN => return Err(NetlinkError::Overflow),
            _ => each(message),
        }
    }
    Ok(progress)
}

/// `NLMSG_DONE` and `NLMSG_ERROR` both begin with a negative errno, or 0.
fn check(what: &'static str, message: Message<'_>) -> Result<(), NetlinkError> {
    let (code, more) = code(message).map_err(NetlinkError::malformed(what))?;
    if code == 0 {
        return Ok(());
    }
    let words = (message.flags & NLM_F_ACK_TLVS != 0).then(|| {
        let skipped = if message.kind == NLMSG_DONE {
            0
        } else if message.flags & NLM_F_CAPPED != 0 {
            HEADER
        } else {
            // The whole request.
            let request = Messages(more).next()?.ok()?;
            HEADER + request.payload.len().next_multiple_of(4)
        };
        words(more.get(skipped..)?)
    });
    Err(NetlinkError::Refused {
        what,
        source: io::Error::from_raw_os_error(code.saturating_abs()),
        words: words.flatten(),
    })
}

/// The code, and what follows it. The kernel may end a dump without one.
fn code(message: Message<'_>) -> Result<(i32, &[u8]), Malformed> {
    if message.kind == NLMSG_ERROR {
        let error = ErrorBuffer::new_checked(message.payload)?;
        return Ok((error.code().map_or(0, i32::from), error.payload()));
    }
    if message.payload.is_empty() {
        return Ok((0, &[]));
    }
    let done = DoneBuffer::new_checked(message.payload)?;
    Ok((done.code(), done.extended_ack()))
}

/// The kernel's words among the attributes of a refusal.
pub fn words(attributes: &[u8]) -> Option<String> {
    let mut attributes = message::walk(attributes).map_while(Result::ok);
    let words = attributes.find(|attr| attr.kind == WORDS)?.text();
    Some(words).filter(|words| !words.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::netlink::Request;

    const ENOENT: [u8; 4] = (-libc::ENOENT).to_ne_bytes();

    fn refusal(kind: u16, flags: u16, payload: &[u8]) -> NetlinkError {
        let bytes = Request::new(kind, flags, payload).finish(7);
        read("a thing", 7, &bytes, |_| panic!("nothing else")).expect_err("refused")
    }

    fn attribute() -> Vec<u8> {
        let words = Request::new(0, 0, &[]).attr(2, &[0; 4]).attr(WORDS, b"no such thing\0");
        words.finish(0)[HEADER..].to_vec()
    }

    #[test]
    fn a_refusal_carries_the_kernel_s_words() {
        let request = Request::new(18, 5, &[1; 20]).finish(7);
        let whole = [&ENOENT, &request[..], &attribute()].concat();
        let capped = [&ENOENT, &request[..HEADER], &attribute()].concat();
        let done = [&ENOENT[..], &attribute()].concat();
        for (kind, flags, payload) in [
            (NLMSG_ERROR, NLM_F_ACK_TLVS, &whole),
            (NLMSG_ERROR, NLM_F_ACK_TLVS | NLM_F_CAPPED, &capped),
            (NLMSG_DONE, NLM_F_ACK_TLVS, &done),
        ] {
            let error = refusal(kind, flags, payload);
            assert_eq!(error.refused(), Some(libc::ENOENT));
            let text = error.to_string();
            assert!(
                text.starts_with("the kernel refused a request about a thing: "),
                "{text}"
            );
            assert!(text.ends_with(" (no such thing)"), "{kind} {flags:#x}: {text}");
        }
    }

    #[test]
    fn a_refusal_without_words_is_one_all_the_same() {
        let request = Request::new(18, 5, &[1; 20]).finish(7);
        let lying = [&ENOENT, &request[..HEADER], &[200, 0, 1, 0][..]].concat();
        for (flags, payload) in [
            (0, &[&ENOENT, &request[..]].concat()),
            (NLM_F_ACK_TLVS | NLM_F_CAPPED, &lying),
            // It says that there are words, and is cut.
            (NLM_F_ACK_TLVS, &[&ENOENT, &request[..20]].concat()),
        ] {
            let error = refusal(NLMSG_ERROR, flags, payload);
            assert!(matches!(error, NetlinkError::Refused { words: None, .. }), "{error:?}");
        }
    }

    #[test]
    fn an_end_without_its_code_is_an_error() {
        let error = refusal(NLMSG_ERROR, 0, &[]);
        assert!(matches!(error, NetlinkError::Malformed { .. }), "{error:?}");
        let bytes = Request::new(NLMSG_DONE, 0, &[]).finish(7);
        let progress = read("a thing", 7, &bytes, |_| ()).expect("the kernel may do so");
        assert!(progress.is_over && !progress.is_torn);
    }

    #[test]
    fn what_answers_another_request_is_left_out() {
        let bytes = [
            Request::new(NLMSG_DONE, NLM_F_DUMP_INTR, &ENOENT).finish(6),
            Request::new(16, 0, &[]).finish(7),
        ];
        let mut found = 0;
        let progress = read("a thing", 7, &bytes.concat(), |_| found += 1).expect("no error of ours");
        assert_eq!((progress, found), (Progress::default(), 1));
    }
}
