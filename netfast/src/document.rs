//! ARCHITECTURE.md has tables of what the code has tables of; here they are compared.

use std::{
    env, fs,
    path::Path,
    sync::{Mutex, PoisonError},
};

/// Tests run at the same time, and each writes the whole document.
static WRITING: Mutex<()> = Mutex::new(());

/// The section between the marks of this name must be this text. With `NETFAST_WRITE_TABLES=1` it is written there.
pub fn assert_section(name: &str, text: &str) {
    let _alone = WRITING.lock().unwrap_or_else(PoisonError::into_inner);
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../ARCHITECTURE.md");
    let document = fs::read_to_string(&path).expect("the document");
    let (begin, end) = (format!("<!-- {name}: begin -->\n"), format!("<!-- {name}: end -->\n"));
    let (before, rest) = document.split_once(&begin).expect("a beginning");
    let (found, after) = rest.split_once(&end).expect("an end");
    if env::var_os("NETFAST_WRITE_TABLES").is_some() {
        fs::write(&path, format!("{before}{begin}{text}{end}{after}")).expect("written");
        return;
    }
    assert!(
        found == text,
        "{name}: it should be (NETFAST_WRITE_TABLES=1 writes it):\n{text}"
    );
}
