//! netfast.toml(5), made of the file that is installed: each key is there with its default and what it does.

use std::fmt::Write as _;

/// The file, every key of it in a comment.
const SHIPPED: &str = include_str!("../../../dist/netfast.toml");

/// A key as the file explains it.
#[derive(Debug, PartialEq, Eq)]
struct Key<'a> {
    name: &'a str,
    default: &'a str,
    words: String,
}

/// The page.
pub fn page() -> String {
    let mut page = format!(
        ".TH netfast.toml 5 \"\" \"netfast {}\" \"netfast\"\n\
         .SH NAME\nnetfast.toml \\- configuration of netfast(8)\n\
         .SH SYNOPSIS\n/etc/netfast/netfast.toml\n\
         .SH DESCRIPTION\n\
         A file in TOML, read by \\fBnetfast run \\-\\-config\\fR, which the unit netfast.service is started with. A key that is left \
         out has its default. An unknown key, or a value that is out of its range, is an error: \\fBnetfast config check \
         FILE\\fR says which, and what would be in force.\n\
         .PP\n\
         \\fBsystemctl reload netfast\\fR applies a changed file without touching flows; \\fIruntime\\fR, \\fIdocker_host\\fR and \
         \\fIflows\\fR take effect at the next start. Options of \\fBnetfast run\\fR override the keys of the same meaning. Labels on \
         networks and containers override the file; what the file switches off altogether, they do not switch on.\n\
         .SH KEYS\n",
        env!("CARGO_PKG_VERSION")
    );
    for key in keys(SHIPPED) {
        // Writing to a string cannot fail.
        let _ = write!(
            page,
            ".TP\n\\fB{}\\fR = {}\n{}\n",
            escaped(key.name),
            escaped(key.default),
            escaped(&key.words)
        );
    }
    page.push_str(
        ".SH FILES\n\
         .TP\n/etc/netfast/netfast.toml\nThe file.\n\
         .TP\n/usr/share/doc/netfast/netfast.toml\nAll keys with their defaults.\n\
         .SH EXAMPLE\n.nf\nuplinks = [\"bond0\"]\ndisabled_networks = [\"backup\"]\nmetrics = \"\"\n.fi\n\
         .SH SEE ALSO\n.BR netfast (8),\n.BR netfast\\-run (8),\n.BR netfast\\-config\\-check (8)\n",
    );
    page
}

/// The keys in the order of the file: a paragraph of comments that ends with `#NAME = DEFAULT`.
fn keys(file: &str) -> Vec<Key<'_>> {
    file.split("\n\n")
        .filter_map(|text| {
            let (words, line) = text.trim_end().rsplit_once('\n')?;
            let (name, default) = line.strip_prefix('#')?.split_once(" = ")?;
            let words = words.lines().map(|line| line.trim_start_matches('#').trim());
            let words = words.collect::<Vec<_>>().join(" ");
            Some(Key { name, default, words })
        })
        .collect()
}

/// Text for roff: no line begins with a request, and hyphens are those that one types.
fn escaped(text: &str) -> String {
    let text = text.replace('\\', "\\e").replace('-', "\\-");
    if text.starts_with(['.', '\'']) {
        format!("\\&{text}")
    } else {
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    #[test]
    fn every_key_is_on_the_page_with_its_default() {
        let config = serde_json::to_value(Config::default()).expect("JSON");
        let keys = keys(SHIPPED);
        let names: Vec<&str> = keys.iter().map(|key| key.name).collect();
        let wanted: Vec<&str> = config.as_object().expect("keys").keys().map(String::as_str).collect();
        let mut sorted = names.clone();
        sorted.sort_unstable();
        assert_eq!(sorted, wanted);
        for key in &keys {
            assert!(key.words.len() > 40, "{key:?}");
        }
        let page = page();
        assert!(page.contains("\\fBrevalidate_ms\\fR = 1000\n"), "{page}");
        assert!(page.lines().all(|line| !line.starts_with('\'')), "{page}");
    }
}
