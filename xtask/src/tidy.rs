//! The project's own rules, which no other tool checks.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail};

use crate::workspace::root;

mod links;
mod named;

/// A file has one subject.
const MAX_LINES: usize = 500;
/// Where the kernel cuts names of programs and maps (`BPF_OBJ_NAME_LEN`, less the final zero).
const MAX_NAME: usize = 15;
/// Words that say that something is not done. Split, so that this file does not have them.
const UNDONE: [&str; 4] = [
    concat!("TO", "DO"),
    concat!("FIX", "ME"),
    concat!("todo", "!("),
    concat!("XX", "X"),
];

/// Crates that one module alone knows; all others use its types.
const KEPT_IN: [(&str, &[&str]); 1] = [(
    "netfast/src/sys/netlink",
    &[
        "netlink_packet_core",
        "netlink_packet_netfilter",
        "netlink_packet_route",
        "netlink_sys",
        "rtnetlink::",
    ],
)];

/// Checks every source and document; the error lists all findings.
pub fn check() -> Result<()> {
    let root = root();
    let mut findings = Vec::new();
    for path in files(&root)? {
        let Some(kind) = path.extension().and_then(|kind| kind.to_str()) else {
            continue;
        };
        if !["rs", "md", "toml"].contains(&kind) {
            continue;
        }
        let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let shown = path.strip_prefix(&root).unwrap_or(&path);
        let mut found = |line: usize, what: String| findings.push(format!("{}:{line}: {what}", shown.display()));
        undone(&text, &mut found);
        match kind {
            "rs" => {
                length(&text, &mut found);
                if shown.starts_with("netfast/src") {
                    kept_in(&text, shown, &mut found);
                }
                if shown.starts_with("netfast-ebpf") || shown.starts_with("netfast-common/src/abi") {
                    object_names(&text, &mut found);
                }
            }
            "md" => links::check(&text, &path, &mut found),
            _ => {}
        }
    }
    findings.extend(named::check(&root).err().map(|error| format!("{error:#}")));
    if findings.is_empty() {
        return Ok(());
    }
    bail!("{} findings:\n{}", findings.len(), findings.join("\n"))
}

/// All files, without those of tools (hidden directories) and of cargo.
pub fn files(dir: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).with_context(|| format!("cannot list {}", dir.display()))? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if name.starts_with('.') || name == "target" {
            continue;
        }
        if path.is_dir() {
            found.extend(files(&path)?);
        } else {
            found.push(path);
        }
    }
    Ok(found)
}

fn length(text: &str, found: &mut impl FnMut(usize, String)) {
    let lines = text.lines().count();
    if lines > MAX_LINES {
        found(
            lines,
            format!("{lines} lines, at most {MAX_LINES}: split it by subject"),
        );
    }
}

/// Crates that are named outside of the module that they are kept in.
fn kept_in(text: &str, file: &Path, found: &mut impl FnMut(usize, String)) {
    for (module, crates) in KEPT_IN {
        if file.to_string_lossy().starts_with(module) {
            continue;
        }
        for (number, line) in text.lines().enumerate() {
            for name in crates.iter().filter(|name| line.contains(*name)) {
                found(
                    number + 1,
                    format!("{name} is for {module} alone: use the types of that"),
                );
            }
        }
    }
}

fn undone(text: &str, found: &mut impl FnMut(usize, String)) {
    for (number, line) in text.lines().enumerate() {
        for word in UNDONE.into_iter().filter(|word| line.contains(word)) {
            found(number + 1, format!("{word}: do it, or say in an issue why not"));
        }
    }
}

/// Names that the kernel knows an object by: the text in `name = "…"` and in the constants of the ABI, and the
/// functions under a program attribute.
fn object_names(text: &str, found: &mut impl FnMut(usize, String)) {
    let mut is_program = false;
    for (number, line) in text.lines().enumerate() {
        let line = line.trim();
        let quoted = (line.starts_with("#[map(") || line.starts_with("pub const") && line.contains("&str"))
            .then(|| line.split('"').nth(1))
            .flatten();
        let function = line
            .strip_prefix("pub fn ")
            .filter(|_| is_program)
            .and_then(|rest| rest.split('(').next());
        for name in quoted.into_iter().chain(function).filter(|name| name.len() > MAX_NAME) {
            found(
                number + 1,
                format!("{name}: {} bytes, the kernel keeps {MAX_NAME}", name.len()),
            );
        }
        is_program = ["#[classifier", "#[fentry", "#[xdp", "#[cgroup"]
            .iter()
            .any(|program| line.starts_with(program));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn findings(check: impl Fn(&mut dyn FnMut(usize, String))) -> Vec<usize> {
        let mut lines = Vec::new();
        check(&mut |line, _| lines.push(line));
        lines
    }

    #[test]
    fn long_names_are_found_in_maps_programs_and_constants() {
        let text = "#[map(name = \"netfast_much_too_long\")]\n#[classifier]\npub fn netfast_much_too_long(x: u32) {\n\
                    pub const A: &str = \"netfast_much_too_long\";\npub fn a_function_of_another_kind() {\n\
                    #[map(name = \"netfast_flows4\")]\n";
        assert_eq!(findings(|mut found| object_names(text, &mut found)), [1, 3, 4]);
    }

    #[test]
    fn crates_of_one_module_are_found_elsewhere() {
        let text = "use std::fmt;\nuse netlink_sys::Socket;\n";
        let in_file = |file: &str| findings(|mut found| kept_in(text, Path::new(file), &mut found));
        assert_eq!(in_file("netfast/src/observe/netlink.rs"), [2]);
        assert_eq!(in_file("netfast/src/sys/netlink/socket.rs"), [0; 0]);
    }

    #[test]
    fn undone_work_is_found() {
        let text = format!("fine\n// {} later\n", UNDONE[0]);
        assert_eq!(findings(|mut found| undone(&text, &mut found)), [2]);
    }
}
