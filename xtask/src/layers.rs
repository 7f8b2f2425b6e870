//! Layers: a module names only modules of its own layer or a lower one, and no two modules name each other, not even by
//! way of others. The list of layers is in ARCHITECTURE.md, which says what each is.
//!
//! What a module names is read from its paths (`crate::…`, `super::…`, `self::…`), in declarations, code and macros'
//! arguments alike; tests are left out. A module and those within it are one to the others: `fastpath` and
//! `fastpath::lookup` may name each other, `fastpath` and `packet` may not.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt, fs,
    path::Path,
};

use anyhow::{Context as _, Result, bail, ensure};

use crate::{tidy, workspace::root};

mod paths;

/// The document that has the list.
const DOCUMENT: &str = "ARCHITECTURE.md";
/// Begins the list there; it ends as all code blocks do. A line is `crate: lowest < … < highest`, modules of one layer with
/// commas between them.
const BEGIN: &str = "```layers\n";

/// A module's path within its crate.
type Module = Vec<String>;

/// A place where one module names another.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Site {
    file: String,
    line: usize,
    path: String,
}

impl fmt::Display for Site {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{} names {}", self.file, self.line, self.path)
    }
}

/// Which of the modules beside each other names which, with the first place where it does.
type Graph = BTreeMap<(String, String), Site>;

/// Checks every crate that the document lists.
pub fn check() -> Result<()> {
    let document = root().join(DOCUMENT);
    let text = fs::read_to_string(&document).with_context(|| format!("cannot read {}", document.display()))?;
    let mut findings = Vec::new();
    for (name, layers) in listed(&text)? {
        let graphs = graphs(&root().join(&name))?;
        let top = graphs.get(&Module::new()).cloned().unwrap_or_default();
        findings.extend(against(&name, &layers, &top));
        for (parent, graph) in &graphs {
            let within = [std::slice::from_ref(&name), parent].concat().join("::");
            findings.extend(circle(graph).map(|circle| format!("a circle in {within}: {circle}")));
        }
    }
    ensure!(
        findings.is_empty(),
        "{} findings:\n{}",
        findings.len(),
        findings.join("\n")
    );
    Ok(())
}

/// The list: crates with their layers, the lowest first.
fn listed(document: &str) -> Result<Vec<(String, Vec<Vec<String>>)>> {
    let list = document
        .split_once(BEGIN)
        .and_then(|(_, rest)| rest.split_once("```"))
        .with_context(|| {
            format!(
                "{DOCUMENT} has no list of layers (a code block that begins with {})",
                BEGIN.trim()
            )
        })?
        .0;
    let crates = list.lines().filter(|line| !line.trim().is_empty()).map(|line| {
        let (name, layers) = line
            .split_once(':')
            .with_context(|| format!("{DOCUMENT}: a line of layers without a crate: {line}"))?;
        let words = |layer: &str| layer.split(',').map(|module| module.trim().to_owned()).collect();
        Ok((name.trim().to_owned(), layers.split('<').map(words).collect()))
    });
    crates.collect()
}

/// What does not fit the list.
fn against(name: &str, layers: &[Vec<String>], top: &Graph) -> Vec<String> {
    let mut findings = Vec::new();
    let height: BTreeMap<&str, usize> = layers
        .iter()
        .enumerate()
        .flat_map(|(height, layer)| layer.iter().map(move |module| (module.as_str(), height)))
        .collect();
    let mut unlisted = BTreeSet::new();
    for ((from, to), site) in top {
        match (height.get(from.as_str()), height.get(to.as_str())) {
            (Some(lower), Some(higher)) if higher > lower => findings.push(format!(
                "{name}: {from} names {to}, which is of a higher layer by the list in {DOCUMENT}: {site}"
            )),
            (Some(_), Some(_)) => {}
            (None, _) => drop(unlisted.insert(from)),
            (_, None) => drop(unlisted.insert(to)),
        }
    }
    findings.extend(
        unlisted
            .into_iter()
            .map(|module| format!("{name}: {module} is in no layer of the list in {DOCUMENT}")),
    );
    findings
}

/// The graphs of a crate, by the module that theirs are in.
fn graphs(package: &Path) -> Result<BTreeMap<Module, Graph>> {
    let source = package.join("src");
    let mut files = BTreeMap::new();
    for path in tidy::files(&source)? {
        let within = path.strip_prefix(&source).unwrap_or(&path);
        // A program beside its library is a crate of its own, that names the library from outside.
        if within == Path::new("main.rs") && source.join("lib.rs").exists() {
            continue;
        }
        if let Some(module) = module_of(within) {
            let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
            let shown = path.strip_prefix(root()).unwrap_or(&path).display().to_string();
            files.insert(module, (shown, text));
        }
    }
    if files.is_empty() {
        bail!("{} has no sources", package.display());
    }
    graphs_of(&files)
}

/// The module that a file is, by its path from `src` on; `None` for tests and what is no source.
fn module_of(file: &Path) -> Option<Module> {
    let mut parts: Module = file
        .with_extension("")
        .iter()
        .map(|part| part.to_string_lossy().into_owned())
        .collect();
    if file.extension().is_none_or(|kind| kind != "rs") || parts.iter().any(|part| part == "tests") {
        return None;
    }
    if ["lib", "main"].contains(&parts.last()?.as_str()) && parts.len() == 1 || parts.last()? == "mod" {
        parts.pop();
    }
    Some(parts)
}

/// By module: the file's name to show, and its text.
fn graphs_of(files: &BTreeMap<Module, (String, String)>) -> Result<BTreeMap<Module, Graph>> {
    let known: BTreeSet<&[String]> = files
        .keys()
        .flat_map(|module| (0..=module.len()).map(|length| &module[..length]))
        .collect();
    let mut graphs: BTreeMap<Module, Graph> = BTreeMap::new();
    // What the root gives another place (`pub use`) is what it names: `crate::Name` leads to there.
    let root = files.get(&Module::new());
    let exported = root.map_or_else(|| Ok(BTreeMap::new()), |(_, text)| paths::exported(text))?;
    for (module, (file, text)) in files {
        let named = paths::of(module, text).with_context(|| format!("cannot read {file}"))?;
        for (line, path) in named {
            let path = match path
                .split_first()
                .and_then(|(first, rest)| Some((exported.get(first)?, rest)))
            {
                Some((place, rest)) if !module.is_empty() && known.contains(&place[..1]) => [place, rest].concat(),
                _ => path,
            };
            let length = (0..=path.len()).rev().find(|length| known.contains(&path[..*length]));
            let target = &path[..length.unwrap_or_default()];
            let common = module.iter().zip(target).take_while(|(a, b)| a == b).count();
            if let (Some(from), Some(to)) = (module.get(common), target.get(common)) {
                let site = Site {
                    file: file.clone(),
                    line,
                    path: path.join("::"),
                };
                let graph = graphs.entry(module[..common].to_vec()).or_default();
                graph.entry((from.clone(), to.clone())).or_insert(site);
            }
        }
    }
    Ok(graphs)
}

/// A circle, if there is one, with the places that close it.
fn circle(graph: &Graph) -> Option<String> {
    let mut left: BTreeSet<&str> = graph
        .keys()
        .flat_map(|(from, to)| [from.as_str(), to.as_str()])
        .collect();
    // Who names nobody who is left is in no circle; and who is named by nobody.
    loop {
        let edges = || {
            graph
                .keys()
                .filter(|(from, to)| left.contains(from.as_str()) && left.contains(to.as_str()))
        };
        let from: BTreeSet<&str> = edges().map(|(from, _)| from.as_str()).collect();
        let to: BTreeSet<&str> = edges().map(|(_, to)| to.as_str()).collect();
        let kept: BTreeSet<&str> = from.intersection(&to).copied().collect();
        if kept.len() == left.len() {
            break;
        }
        left = kept;
    }
    // From any of them on, each names another one that is left, until one comes again.
    let mut way = vec![*left.first()?];
    loop {
        let here = *way.last()?;
        let next = graph
            .keys()
            .find(|(from, to)| from == here && left.contains(to.as_str()))
            .map(|(_, to)| to.as_str())?;
        if let Some(begin) = way.iter().position(|module| *module == next) {
            way.drain(..begin);
            break;
        }
        way.push(next);
    }
    let sites: Vec<String> = (0..way.len())
        .filter_map(|index| {
            let (from, to) = (way[index], way[(index + 1) % way.len()]);
            let site = graph.get(&(from.to_owned(), to.to_owned()))?;
            Some(format!("  {from} -> {to}: {site}"))
        })
        .collect();
    Some(format!("{}\n{}", way.join(" -> "), sites.join("\n")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn crate_of(files: &[(&str, &str)]) -> BTreeMap<Module, Graph> {
        let files = files.iter().map(|(path, text)| {
            let module = module_of(Path::new(path)).expect("a module");
            (module, ((*path).to_owned(), (*text).to_owned()))
        });
        graphs_of(&files.collect()).expect("sources")
    }

    fn top(files: &[(&str, &str)]) -> Graph {
        crate_of(files).remove(&Module::new()).unwrap_or_default()
    }

    #[test]
    fn a_module_that_names_a_higher_layer_is_found() {
        let graph = top(&[
            ("lib.rs", "pub mod low; pub mod high;"),
            ("low.rs", "fn f() { crate::high::g(); }"),
            ("high.rs", "use crate::low::f;"),
        ]);
        let layers = [vec!["low".to_owned()], vec!["high".to_owned()]];
        let findings = against("c", &layers, &graph);
        assert_eq!(findings.len(), 1, "{findings:?}");
        assert!(
            findings[0].contains("low names high") && findings[0].contains("low.rs:1"),
            "{findings:?}"
        );
        let unlisted = against("c", &layers[..1], &graph);
        assert!(unlisted[0].contains("high is in no layer"), "{unlisted:?}");
    }

    /// Found: what the crate's root gives out was not taken for what it is.
    #[test]
    fn what_the_root_gives_out_is_of_its_own_layer() {
        let graph = top(&[
            (
                "lib.rs",
                "pub mod low; pub mod high; pub use high::{deep::g, h as Escaped};",
            ),
            ("low.rs", "fn f() { crate::Escaped::x(); }"),
            ("high.rs", "use crate::low::f;"),
        ]);
        assert!(graph.contains_key(&("low".to_owned(), "high".to_owned())), "{graph:?}");
        // What the root takes from another crate hides no module of that name.
        let graph = top(&[
            ("lib.rs", "pub mod low; pub mod high; use other::high;"),
            ("low.rs", "fn f() { crate::high::g(); }"),
            ("high.rs", ""),
        ]);
        assert!(graph.contains_key(&("low".to_owned(), "high".to_owned())), "{graph:?}");
    }

    #[test]
    fn circles_are_found_however_long_and_deep() {
        let graphs = crate_of(&[
            ("lib.rs", "mod a;"),
            ("a/x.rs", "use super::y::Y;"),
            ("a/y.rs", "fn f() -> crate::a::z::Z { loop {} }"),
            ("a/z/deep.rs", "use super::super::x;"),
            ("a/out.rs", "use super::x::X;"),
        ]);
        let found = circle(&graphs[&vec!["a".to_owned()]]).expect("a circle");
        assert!(found.starts_with("x -> y -> z\n"), "{found}");
        assert!(!found.contains("out"), "{found}");
    }

    #[test]
    fn parents_children_and_tests_make_no_circle() {
        let graphs = crate_of(&[
            ("lib.rs", ""),
            (
                "a.rs",
                "pub use self::x::X; use crate::a::x::Y; #[cfg(test)] mod tests { use crate::b; }",
            ),
            ("a/x.rs", "use super::Thing;"),
            ("b.rs", "use crate::a::X;"),
        ]);
        let top = &graphs[&Module::new()];
        assert_eq!(
            top.keys().cloned().collect::<Vec<_>>(),
            [("b".to_owned(), "a".to_owned())]
        );
        assert!(graphs.values().all(|graph| circle(graph).is_none()));
        assert_eq!(module_of(Path::new("a/tests/b.rs")), None);
    }

    #[test]
    fn the_list_is_read() {
        let text = "x\n```layers\none: a < b, c\ntwo: d\n```\n";
        let listed = listed(text).expect("a list");
        assert_eq!(
            listed[0].1,
            [vec!["a".to_owned()], vec!["b".to_owned(), "c".to_owned()]]
        );
        assert_eq!(listed[1], ("two".to_owned(), vec![vec!["d".to_owned()]]));
        assert!(super::listed("nothing").is_err());
    }
}
