//! ARCHITECTURE.md has the table of what rules look at; here it is compared with the one that is used.

use std::fmt::Write as _;

use super::field::{FIELDS, Nature};
use super::table::rows;
use crate::document::assert_section;

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

#[test]
fn the_document_has_the_tables_that_are_used() {
    assert_section("rules", &tables());
}
