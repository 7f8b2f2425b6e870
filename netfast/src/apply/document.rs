//! ARCHITECTURE.md has the tables of programs and of maps; here they are compared with those of the ABI.

use std::fmt::Write as _;

use netfast_common::abi::{Hook, HookKind, Program, map};

use crate::document::assert_section;

#[test]
fn the_document_has_the_table_of_programs() {
    let mut text = "| hook | of | program | does | without it |\n| --- | --- | --- | --- | --- |\n".to_owned();
    for program in Program::ALL {
        let hook = match program.hook() {
            HookKind::Tcx(Hook::Ingress) => "ingress",
            HookKind::Tcx(Hook::Egress) => "egress",
            HookKind::Fentry(_) => "fentry",
            HookKind::RawTracepoint(_) => "tracepoint",
            HookKind::SockAddr(name) => name,
            HookKind::Xdp => "XDP",
        };
        let without = program.without().unwrap_or("netfast does not start");
        let (of, name, does) = (program.of(), program.name(), program.does());
        let _ = writeln!(text, "| {hook} | {of} | `{name}` | {does} | {without} |");
    }
    assert_section("programs", &text);
}

#[test]
fn the_document_has_the_table_of_maps() {
    let mut text = "| map | what is in it | pinned |\n| --- | --- | --- |\n".to_owned();
    for map in map::ALL {
        let pinned = match map.keeping {
            map::Keeping::Pinned => "yes",
            map::Keeping::Unpinned => "no",
        };
        let _ = writeln!(text, "| `{}` | {} | {pinned} |", map.name, plain(map.what));
    }
    assert_section("maps", &text);
}

/// The text of a documentation comment without the targets of its links.
fn plain(what: &str) -> String {
    let mut text = String::new();
    let mut rest = what.trim();
    while let Some((before, after)) = rest.split_once("[`") {
        text.push_str(before);
        let (name, after) = after.split_once("`](").expect("a link");
        let (_, after) = after.split_once(')').expect("its target");
        let _ = write!(text, "`{name}`");
        rest = after;
    }
    text + rest
}
