//! What becomes of answers that are torn, cut, or cannot be read.

use netlink_packet_core::{NLM_F_DUMP_INTR, NLM_F_MULTIPART, NLMSG_DONE};

use super::*;
use crate::sys::netlink::testing::{Receipt, Said, Script, socket};
use crate::sys::netlink::{Attrs, DUMP, NLM_F_REQUEST, message};

const KIND: u16 = 16;

fn entry(number: u8, flags: u16) -> Said {
    (KIND, NLM_F_MULTIPART | flags, vec![number, 0, 0, 0])
}

fn done(flags: u16) -> Said {
    (NLMSG_DONE, NLM_F_MULTIPART | flags, vec![0; 4])
}

fn refused(errno: i32) -> Said {
    (NLMSG_ERROR, 0, (-errno).to_ne_bytes().to_vec())
}

/// Lists the first bytes of the messages; those from 200 on lack something.
fn list(socket: &mut NetlinkSocket<Script>) -> Result<Vec<u8>, NetlinkError> {
    socket.dump(
        "things",
        &Request::new(18, DUMP, &[0; 4]),
        |found: &mut Vec<u8>, message| {
            if message.payload[0] >= 200 {
                return Err(Malformed::missing("a name"));
            }
            found.push(message.payload[0]);
            Ok(())
        },
    )
}

fn whole() -> [Receipt; 2] {
    [
        Receipt::Whole(vec![entry(3, 0)]),
        Receipt::Whole(vec![entry(4, 0), done(0)]),
    ]
}

#[test]
fn a_torn_dump_is_repeated() {
    // The flag may come with any message, or with the last one only.
    let torn = [
        Receipt::Whole(vec![entry(1, NLM_F_DUMP_INTR)]),
        Receipt::Whole(vec![entry(2, 0), done(0)]),
        Receipt::Whole(vec![entry(1, 0), entry(2, 0)]),
        Receipt::Whole(vec![done(NLM_F_DUMP_INTR)]),
    ];
    let mut socket = socket(torn.into_iter().chain(whole()));
    assert_eq!(list(&mut socket).expect("whole at last"), [3, 4]);
    assert_eq!(socket.transport.sent.len(), 3);
}

#[test]
fn a_dump_that_is_torn_each_time_is_an_error() {
    let mut socket = socket((0..DUMP_TRIES).map(|_| Receipt::Whole(vec![entry(1, 0), done(NLM_F_DUMP_INTR)])));
    let error = list(&mut socket).expect_err("torn");
    assert!(matches!(error, NetlinkError::Interrupted { what: "things" }), "{error}");
}

#[test]
fn a_message_without_what_is_needed_is_an_error() {
    let odd = [
        Receipt::Whole(vec![entry(1, 0), entry(200, 0)]),
        Receipt::Whole(vec![done(0)]),
    ];
    let mut socket = socket(odd.into_iter().chain(whole()));
    let error = list(&mut socket).expect_err("odd");
    assert_eq!(
        error.to_string(),
        "the kernel's message about things cannot be read: a name is missing"
    );
    // That answer was read to its end, and the socket is as good as before.
    assert_eq!(list(&mut socket).expect("whole"), [3, 4]);
    assert_eq!(socket.transport.reopened, 0);
}

#[test]
fn a_length_that_lies_is_an_error_and_not_an_end() {
    let mut socket = socket([Receipt::Lying(vec![entry(1, 0), done(0)])].into_iter().chain(whole()));
    let error = list(&mut socket).expect_err("a lie");
    assert!(
        matches!(error, NetlinkError::Malformed { what: "things", .. }),
        "{error}"
    );
    // What may still come of that answer is nobody's.
    assert_eq!(list(&mut socket).expect("whole"), [3, 4]);
    assert_eq!(socket.transport.reopened, 1);
}

#[test]
fn a_datagram_that_was_cut_is_an_error() {
    // Between two messages, so that what is left of it makes sense.
    let cut = Receipt::Cut(vec![entry(1, 0), done(0)], 20);
    let mut socket = socket([cut].into_iter().chain(whole()));
    let error = list(&mut socket).expect_err("cut");
    assert!(matches!(error, NetlinkError::Overflow), "{error}");
    assert_eq!(list(&mut socket).expect("whole"), [3, 4]);
    assert_eq!(socket.transport.reopened, 1);
}

#[test]
fn an_overflow_is_an_error() {
    let lost = [Receipt::Whole(vec![entry(1, 0)]), Receipt::Errno(libc::ENOBUFS)];
    let mut socket = socket(lost.into_iter().chain(whole()));
    let error = list(&mut socket).expect_err("lost");
    assert!(matches!(error, NetlinkError::Overflow), "{error}");
    assert_eq!(list(&mut socket).expect("whole"), [3, 4]);
    assert_eq!(socket.transport.reopened, 1);
}

#[test]
fn an_interrupted_call_is_made_again_and_a_refusal_leaves_the_socket_good() {
    let script = [
        Receipt::Errno(libc::EINTR),
        Receipt::Whole(vec![refused(libc::EOPNOTSUPP)]),
    ];
    let mut socket = socket(script.into_iter().chain(whole()));
    assert_eq!(
        list(&mut socket).expect_err("refused").refused(),
        Some(libc::EOPNOTSUPP)
    );
    assert_eq!(list(&mut socket).expect("whole"), [3, 4]);
    assert_eq!(socket.transport.reopened, 0);
}

#[test]
fn a_question_has_one_answer_and_must_have_it() {
    let request = Request::new(18, NLM_F_REQUEST, &[0; 4]);
    let first = |message: Message<'_>| Ok(message.payload[0]);
    let mut socket = socket([Receipt::Whole(vec![entry(5, 0)]), Receipt::Whole(vec![done(0)])]);
    assert_eq!(socket.ask("a thing", &request, first).expect("an answer"), 5);
    let error = socket.ask("a thing", &request, first).expect_err("none");
    assert!(matches!(error, NetlinkError::Malformed { .. }), "{error}");
}

fn ask_each(socket: &mut NetlinkSocket<Script>, things: &[u8]) -> Result<Vec<(u8, u8)>, NetlinkError> {
    let mut found = Vec::new();
    socket.ask_each(
        "things",
        things,
        |thing, bytes| message::append(bytes, 18, NLM_F_REQUEST, &[*thing; 4], &[(1, &[*thing])]),
        |thing, message| {
            Attrs::after(message.payload, 4)?;
            found.push((*thing, message.payload[0]));
            Ok(())
        },
    )?;
    Ok(found)
}

#[test]
fn many_questions_go_in_one_datagram_and_a_refusal_is_no_answer() {
    let things: Vec<u8> = (0..40).collect();
    let answers = |things: &[u8]| {
        let answer = |thing: &u8| {
            if *thing == 7 {
                refused(libc::ENODEV)
            } else {
                entry(*thing, 0)
            }
        };
        Receipt::Whole(things.iter().map(answer).collect())
    };
    let mut socket = socket([answers(&things[..BATCH]), answers(&things[BATCH..])]);
    let found = ask_each(&mut socket, &things).expect("answers");
    let expected: Vec<(u8, u8)> = things
        .iter()
        .filter(|thing| **thing != 7)
        .map(|thing| (*thing, *thing))
        .collect();
    assert_eq!(found, expected);
    let sent: Vec<usize> = socket.transport.sent.iter().map(Vec::len).collect();
    assert_eq!(sent, [BATCH, things.len() - BATCH]);
}

#[test]
fn one_of_many_answers_that_cannot_be_read_is_an_error() {
    let lying = vec![1, 2, 3, 4, 200, 0, 1, 0];
    let mut socket = socket([Receipt::Whole(vec![(KIND, 0, lying), entry(2, 0)])]);
    let error = ask_each(&mut socket, &[1, 2]).expect_err("a lie");
    assert!(
        matches!(error, NetlinkError::Malformed { what: "things", .. }),
        "{error}"
    );
}
