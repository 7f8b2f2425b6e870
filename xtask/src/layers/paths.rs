//! The paths that a source names.

use anyhow::{Context as _, Result};
use proc_macro2::{Span, TokenStream, TokenTree};
use syn::{
    Attribute, File, ItemMod, ItemUse, Macro, Meta, UseTree,
    spanned::Spanned as _,
    visit::{self, Visit},
};

/// All paths of a module's file that begin with `crate`, `super` or `self`, from the crate's root on, with their lines; of its
/// tests none.
pub fn of(module: &[String], text: &str) -> Result<Vec<(usize, Vec<String>)>> {
    let file: File = syn::parse_file(text).context("it is not Rust")?;
    let mut reader = Reader {
        here: module.to_vec(),
        found: Vec::new(),
    };
    reader.visit_file(&file);
    Ok(reader.found)
}

struct Reader {
    /// The module that is being read, inline ones included.
    here: Vec<String>,
    found: Vec<(usize, Vec<String>)>,
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
            UseTree::Rename(rename) => self.leaf(&rename.ident, before),
            UseTree::Glob(glob) => self.note(glob.span(), before),
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
