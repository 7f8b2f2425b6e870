//! ARCHITECTURE.md has the table of what rules look at; here it is compared with the one that is used.

use std::fmt::Write as _;
use std::{env, fs, path::Path};

use super::field::{FIELDS, Nature};
use super::table::rows;

/// Where the tables begin and end in the document.
const BEGIN: &str = "<!-- rules: begin -->\n";
const END: &str = "<!-- rules: end -->\n";

/// Both tables as they are to be written down.
fn tables() -> String {
    let mut text = "| where | name | verdict | why |\n| --- | --- | --- | --- |\n".to_owned();
    for row in rows() {
        let names: Vec<_> = row.names.iter().map(|name| format!("`{name}`")).collect();
        let (place, verdict) = (row.place.name(), row.class.name());
        let _ = writeln!(text, "| {place} | {} | {verdict} | {} |", names.join(", "), row.reason);
    }
    text.push_str("\n| header field | bits from the start | verdict | why |\n| --- | --- | --- | --- |\n");
    for field in &FIELDS {
        let verdict = match field.nature {
            Nature::Constant => "repeatable".to_owned(),
            Nature::Fixed(value) => format!("repeatable: {value}, or slow"),
            Nature::Varies => "judges by the packet".to_owned(),
        };
        let last = field.start + field.bits - 1;
        let _ = writeln!(
            text,
            "| {} | {}-{last} | {verdict} | {} |",
            field.name, field.start, field.reason
        );
    }
    text
}

/// With `NETFAST_WRITE_TABLES=1` it writes them there.
#[test]
fn the_document_has_the_tables_that_are_used() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../ARCHITECTURE.md");
    let text = fs::read_to_string(&path).expect("the document");
    let (before, rest) = text.split_once(BEGIN).expect("a beginning");
    let (found, after) = rest.split_once(END).expect("an end");
    if env::var_os("NETFAST_WRITE_TABLES").is_some() {
        fs::write(&path, format!("{before}{BEGIN}{}{END}{after}", tables())).expect("written");
        return;
    }
    assert!(
        found == tables(),
        "it should be (NETFAST_WRITE_TABLES=1 writes it):\n{}",
        tables()
    );
}
