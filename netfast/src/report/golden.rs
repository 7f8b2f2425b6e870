//! Golden files: what users see, as text under version control.

use std::{fs, path::Path};

/// Compares with `testdata/NAME`, or rewrites that when `UPDATE_GOLDEN` is set.
pub(crate) fn assert_golden(name: &str, text: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata").join(name);
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        fs::write(&path, text).expect("the golden file can be written");
        return;
    }
    let golden = fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(
        text,
        golden,
        "{} is different; UPDATE_GOLDEN=1 rewrites it",
        path.display()
    );
}

/// The same of JSON.
pub(crate) fn assert_golden_json(name: &str, report: &impl serde::Serialize) {
    let mut text = serde_json::to_string_pretty(report).expect("a report can be written as JSON");
    text.push('\n');
    assert_golden(name, &text);
}
