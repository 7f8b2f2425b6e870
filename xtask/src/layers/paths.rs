//! The paths that a source names.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, bail};
use proc_macro2::{Span, TokenStream, TokenTree};
use syn::{
    Attribute, File, ItemMod, ItemUse, Macro, Meta, UseTree,
    spanned::Spanned as _,
    visit::{self, Visit},
};

/// All paths of a module's file that begin with `crate`, `super` or `self`, from the crate's root on, with their lines; of its
/// tests none. It is an error to give the crate's root or a parent another name (`use crate as root`, `use super::super as up`,
/// `use crate::*`): paths that begin with that name would not be seen.
pub fn of(module: &[String], text: &str) -> Result<Vec<(usize, Vec<String>)>> {
    let file: File = syn::parse_file(text).context("it is not Rust")?;
    let mut reader = Reader {
        here: module.to_vec(),
        found: Vec::new(),
        renamed: None,
    };
    reader.visit_file(&file);
    if let Some(line) = reader.renamed {
        bail!("line {line}: the crate's root, or a module above, gets another name: name what is in it instead");
    }
    Ok(reader.found)
}

/// What the crate's root names with `use`, by the names that it has there, each with the path that it leads to.
pub fn exported(text: &str) -> Result<BTreeMap<String, Vec<String>>> {
    fn read(tree: &UseTree, before: &[String], found: &mut BTreeMap<String, Vec<String>>) {
        let within = |ident: &proc_macro2::Ident| [before, &[ident.to_string()]].concat();
        match tree {
            UseTree::Path(path) => read(&path.tree, &within(&path.ident), found),
            UseTree::Group(group) => group.items.iter().for_each(|tree| read(tree, before, found)),
            UseTree::Name(name) => drop(found.insert(name.ident.to_string(), within(&name.ident))),
            UseTree::Rename(rename) => drop(found.insert(rename.rename.to_string(), within(&rename.ident))),
            // The names in it are not known here.
            UseTree::Glob(_) => {}
        }
    }
    let file: File = syn::parse_file(text).context("it is not Rust")?;
    let mut found = BTreeMap::new();
    for item in &file.items {
        if let syn::Item::Use(item) = item {
            read(&item.tree, &[], &mut found);
        }
    }
    for path in found.values_mut() {
        if path
            .first()
            .is_some_and(|first| ["crate", "self"].contains(&first.as_str()))
        {
            path.remove(0);
        }
    }
    Ok(found)
}

struct Reader {
    /// The module that is being read, inline ones included.
    here: Vec<String>,
    found: Vec<(usize, Vec<String>)>,
    /// The line where a module gets another name that is above, and not one in it.
    renamed: Option<usize>,
}

impl Reader {
    fn note(&mut self, span: Span, path: &[String]) {
        if let Some(path) = absolute(&self.here, path) {
            self.found.push((span.start().line, path));
        }
    }

    fn tree(&mut self, tree: &UseTree, before: &mut Vec<String>) {
        match tree {
            UseTree::Path(path) => {
                before.push(path.ident.to_string());
                self.tree(&path.tree, before);
                before.pop();
            }
            UseTree::Group(group) => group.items.iter().for_each(|tree| self.tree(tree, before)),
            UseTree::Name(name) => self.leaf(&name.ident, before),
            UseTree::Rename(rename) => {
                let is_up = |word: &str| ["crate", "self", "super"].contains(&word);
                if is_up(&rename.ident.to_string()) && before.iter().all(|word| is_up(word)) {
                    self.renamed.get_or_insert(rename.span().start().line);
                }
                self.leaf(&rename.ident, before);
            }
            UseTree::Glob(glob) => {
                if before.iter().eq(["crate"]) {
                    self.renamed.get_or_insert(glob.span().start().line);
                }
                self.note(glob.span(), before);
            }
        }
    }

    fn leaf(&mut self, ident: &proc_macro2::Ident, before: &[String]) {
        let mut path = before.to_vec();
        if ident != "self" {
            path.push(ident.to_string());
        }
        self.note(ident.span(), &path);
    }

    /// Arguments of macros are not parsed: what looks like a path there is one.
    fn tokens(&mut self, tokens: TokenStream) {
        let mut path: Vec<String> = Vec::new();
        let mut span = Span::call_site();
        let mut after_colons = false;
        for token in tokens {
            match token {
                TokenTree::Ident(ident) if after_colons && !path.is_empty() => path.push(ident.to_string()),
                TokenTree::Ident(ident) => {
                    self.note(span, &path);
                    span = ident.span();
                    path = vec![ident.to_string()];
                }
                TokenTree::Punct(punct) if punct.as_char() == ':' => {
                    after_colons = true;
                    continue;
                }
                TokenTree::Group(group) => {
                    self.note(span, &path);
                    path.clear();
                    self.tokens(group.stream());
                }
                TokenTree::Punct(_) | TokenTree::Literal(_) => {
                    self.note(span, &path);
                    path.clear();
                }
            }
            after_colons = false;
        }
        self.note(span, &path);
    }
}

impl<'ast> Visit<'ast> for Reader {
    fn visit_item_mod(&mut self, item: &'ast ItemMod) {
        if item.attrs.iter().any(is_test) {
            return;
        }
        self.here.push(item.ident.to_string());
        visit::visit_item_mod(self, item);
        self.here.pop();
    }

    fn visit_item_use(&mut self, item: &'ast ItemUse) {
        self.tree(&item.tree, &mut Vec::new());
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        let segments: Vec<String> = path.segments.iter().map(|segment| segment.ident.to_string()).collect();
        self.note(path.span(), &segments);
        visit::visit_path(self, path);
    }

    fn visit_macro(&mut self, item: &'ast Macro) {
        self.tokens(item.tokens.clone());
        visit::visit_macro(self, item);
    }
}

/// `#[cfg(test)]`, alone or with others.
fn is_test(attribute: &Attribute) -> bool {
    fn says(tokens: TokenStream, word: &str) -> bool {
        tokens.into_iter().any(|token| match token {
            TokenTree::Ident(ident) => ident == word,
            TokenTree::Group(group) => says(group.stream(), word),
            TokenTree::Punct(_) | TokenTree::Literal(_) => false,
        })
    }
    let is_only_in_tests = |tokens: &TokenStream| says(tokens.clone(), "test") && !says(tokens.clone(), "not");
    attribute.path().is_ident("cfg") && matches!(&attribute.meta, Meta::List(list) if is_only_in_tests(&list.tokens))
}

/// A path from the crate's root on; `None` if it does not say where it begins, or leads out of the crate.
fn absolute(here: &[String], path: &[String]) -> Option<Vec<String>> {
    let (first, mut rest) = path.split_first()?;
    let mut from = match first.as_str() {
        "crate" | "$crate" => Vec::new(),
        "self" => here.to_vec(),
        "super" => here[..here.len().checked_sub(1)?].to_vec(),
        _ => return None,
    };
    while let Some((word, others)) = rest.split_first().filter(|(word, _)| *word == "super") {
        debug_assert_eq!(word, "super");
        from.pop()?;
        rest = others;
    }
    from.extend_from_slice(rest);
    Some(from)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(text: &str) -> Vec<String> {
        let here = ["a".to_owned(), "b".to_owned()];
        let found = of(&here, text).expect("Rust");
        found.iter().map(|(_, path)| path.join("::")).collect()
    }

    /// Found: what was named by another name of the crate's root was not seen.
    #[test]
    fn modules_above_keep_their_names() {
        for text in [
            "use crate::{self as root}; fn f() { root::cli::g() }",
            "use crate as root;",
            "use super::super as up;",
            "use super::{self as up};",
            "use crate::*;",
        ] {
            assert!(of(&["a".to_owned(), "b".to_owned()], text).is_err(), "{text}");
        }
        assert_eq!(
            named("use crate::x as y; use crate::z::{self as w}; use crate::v::*;"),
            ["x", "z", "v"]
        );
    }

    #[test]
    fn every_way_to_name_a_module_is_read() {
        assert_eq!(named("use crate::{x::{self, Y}, z::*};"), ["x", "x::Y", "z"]);
        assert_eq!(named("use super::{c, super::d as e};"), ["a::c", "d"]);
        assert_eq!(
            named("fn f(p: crate::x::P) -> super::Q { self::r() }"),
            ["x::P", "a::Q", "a::b::r"]
        );
        assert_eq!(named("mod inner { use super::super::c; }"), ["a::c"]);
        assert_eq!(
            named("fn f() { say!(1, crate::x::y(super::z::W)); }"),
            ["x::y", "a::z::W"]
        );
        assert_eq!(named("use std::fmt; use other::crate_x; fn f() { g(1) }"), [""; 0]);
        assert_eq!(
            named("#[cfg(test)] mod t { use crate::x; } #[cfg(all(test, unix))] mod u { use crate::x; }"),
            [""; 0]
        );
        assert_eq!(
            named("#[cfg(not(target_arch = \"bpf\"))] mod t { use crate::x; }"),
            ["x"]
        );
    }
}
