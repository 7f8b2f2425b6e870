//! Links of packaged documents: in the package files lie elsewhere than in the sources, and not all of them are there.

use super::FILES;

/// Where the sources can be read, for links to what is not packaged.
const SOURCES: &str = "https://github.com/netfast/netfast/blob/main/";
/// Where documents lie in the package as they do in the sources.
const DOCUMENTS: &str = "usr/share/doc/netfast/";

/// A document of the sources, named by its path there, with links that lead to what the package has, or to the sources.
pub fn with_installed_links(text: &str, document: &str) -> String {
    let mut parts = text.split("](");
    let mut changed = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        changed.push_str("](");
        match part.split_once(')') {
            Some((link, rest)) => {
                changed.push_str(&installed(link, document));
                changed.push(')');
                changed.push_str(rest);
            }
            None => changed.push_str(part),
        }
    }
    changed
}

/// Where a link of a document leads in the package.
fn installed(link: &str, document: &str) -> String {
    if link.starts_with('#') || link.contains("://") {
        return link.to_owned();
    }
    let (path, anchor) = link.split_at(link.find('#').unwrap_or(link.len()));
    let source = from_root(path, document);
    let found = FILES.iter().find(|(_, file, _)| *file == source);
    match found {
        Some((_, _, target)) if target.strip_prefix(DOCUMENTS) == Some(source.as_str()) => link.to_owned(),
        Some((_, _, target)) => format!("/{target}{anchor}"),
        None => format!("{SOURCES}{source}{anchor}"),
    }
}

/// The path of what a link means, from the root of the sources.
fn from_root(path: &str, document: &str) -> String {
    let mut parts: Vec<&str> = document.split('/').collect();
    parts.pop();
    for part in path.split('/') {
        match part {
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    parts.join("/")
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::{super::From, *};
    use crate::workspace::root;

    #[test]
    fn links_lead_to_what_is_installed_or_to_the_sources() {
        let text = "[a](docs/aliases.md#virtual-addresses), [c](netfast/dist/netfast.toml), [d](CONTRIBUTING.md), \
                    [e](#build-it), [f](https://docker.com)";
        assert_eq!(
            with_installed_links(text, "README.md"),
            "[a](docs/aliases.md#virtual-addresses), [c](/usr/share/doc/netfast/netfast.toml), \
             [d](https://github.com/netfast/netfast/blob/main/CONTRIBUTING.md), [e](#build-it), [f](https://docker.com)"
        );
        assert_eq!(
            with_installed_links("[v](virtual-addresses.md) [a](../ARCHITECTURE.md)", "docs/aliases.md"),
            "[v](virtual-addresses.md) [a](https://github.com/netfast/netfast/blob/main/ARCHITECTURE.md)"
        );
    }

    /// Whatever README and the packaged documents link to is there: beside them, or where the package puts it.
    #[test]
    fn no_packaged_document_links_to_what_is_not_there() {
        let documents = FILES.iter().filter(|(from, ..)| matches!(from, From::Documents));
        let documents: Vec<&str> = documents.map(|(_, source, _)| *source).collect();
        assert!(
            documents.contains(&"docs/aliases.md"),
            "the only text on virtual addresses"
        );
        for document in documents {
            let text = fs::read_to_string(root().join(document)).expect("a document");
            for part in with_installed_links(&text, document).split("](").skip(1) {
                let link = part.split(')').next().unwrap_or_default();
                let path = link.split('#').next().unwrap_or_default();
                let is_there = |target: &str| FILES.iter().any(|(_, _, file)| *file == target);
                let beside = format!("{DOCUMENTS}{}", from_root(path, document));
                assert!(
                    path.is_empty()
                        || path.contains("://")
                        || path.strip_prefix('/').map_or_else(|| is_there(&beside), is_there),
                    "{document}: {link}"
                );
            }
        }
    }
}
