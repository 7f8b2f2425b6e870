//! Inputs that the fuzzer has kept: one file for each target, `tests/corpus/TARGET.corpus`.
//!
//! The file is a sequence of inputs, each of them:
//!
//! | bytes | |
//! |---|---|
//! | 1 | length of the name |
//! | 4 | length of the input, big-endian |
//! | | the name, ASCII |
//! | | the input |
//!
//! An input with a name (`found-…`: the fuzzer's findings; `seed-…`: whole messages as the kernel or an engine sends them)
//! was put there by hand, and stays. One without a name is there for the code that it covers. Named inputs come first, by
//! name, the others by length and content, so that the same inputs are always the same file.

use std::{
    fs,
    io::ErrorKind,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, ensure};

/// An input of a fuzz target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Input {
    /// Its name, if it stays whatever it covers.
    pub name: Option<String>,
    /// What the target is given.
    pub bytes: Vec<u8>,
}

/// The file of a target.
pub fn file(target: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("corpus")
        .join(format!("{target}.corpus"))
}

/// What is kept of a target (nothing, if there is no file), each with a name to tell it by: its own, or its number.
pub fn read(target: &str) -> Result<Vec<(String, Input)>> {
    let path = file(target);
    let bytes = match fs::read(&path) {
        // A new target's.
        Err(error) if error.kind() == ErrorKind::NotFound => Vec::new(),
        bytes => bytes.with_context(|| format!("cannot read {}", path.display()))?,
    };
    let inputs = unpacked(&bytes).with_context(|| path.display().to_string())?;
    let named = inputs.into_iter().enumerate().map(|(number, input)| {
        let name = input.name.clone().unwrap_or_else(|| format!("{number:04}"));
        (name, input)
    });
    Ok(named.collect())
}

/// Writes what is kept of a target.
pub fn write(target: &str, inputs: Vec<Input>) -> Result<()> {
    let path = file(target);
    fs::write(&path, packed(inputs)?).with_context(|| format!("cannot write {}", path.display()))
}

fn packed(mut inputs: Vec<Input>) -> Result<Vec<u8>> {
    inputs.sort_by_key(|input| {
        (
            input.name.is_none(),
            input.name.clone(),
            input.bytes.len(),
            input.bytes.clone(),
        )
    });
    let mut file = Vec::new();
    for Input { name, bytes } in inputs {
        let name = name.unwrap_or_default();
        // It becomes a file's.
        ensure!(
            name.bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte)),
            "{name:?} is no name of an input: letters, digits, '-', '_' and '.'"
        );
        file.push(u8::try_from(name.len()).with_context(|| format!("the name {name} is too long"))?);
        file.extend(
            u32::try_from(bytes.len())
                .context("an input is too long")?
                .to_be_bytes(),
        );
        file.extend(name.as_bytes());
        file.extend(bytes);
    }
    Ok(file)
}

fn unpacked(mut file: &[u8]) -> Result<Vec<Input>> {
    let mut inputs = Vec::new();
    while !file.is_empty() {
        let (name_length, rest) = file.split_first_chunk::<1>().context("no length of a name")?;
        let (length, rest) = rest.split_first_chunk().context("cut short: no length of an input")?;
        let (name, rest) = rest
            .split_at_checked(name_length[0].into())
            .context("cut short in a name")?;
        let length = usize::try_from(u32::from_be_bytes(*length))?;
        let (bytes, rest) = rest.split_at_checked(length).context("cut short in an input")?;
        let name = String::from_utf8(name.to_vec()).context("a name is not ASCII")?;
        inputs.push(Input {
            name: Some(name).filter(|name| !name.is_empty()),
            bytes: bytes.to_vec(),
        });
        file = rest;
    }
    Ok(inputs)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn input(name: Option<&str>, bytes: &[u8]) -> Input {
        Input {
            name: name.map(str::to_owned),
            bytes: bytes.to_vec(),
        }
    }

    #[test]
    fn inputs_are_read_as_they_were_written_in_a_fixed_order() {
        let inputs = vec![
            input(None, b"longer"),
            input(Some("seed-2"), b"z"),
            input(None, b""),
            input(Some("found-1"), &[0, 1, 255]),
            input(None, b"b"),
            input(None, b"a"),
        ];
        let file = packed(inputs.clone()).expect("it can be packed");
        let [longer, seed, empty, found, b, a] = <[Input; 6]>::try_from(inputs.clone()).expect("six");
        assert_eq!(unpacked(&file).expect("whole"), [found, seed, empty, a, b, longer]);
        assert_eq!(file[..15], *b"\x07\0\0\0\x03found-1\0\x01\xff");
        let reversed = inputs.into_iter().rev().collect();
        assert_eq!(packed(reversed).expect("it can be packed"), file);
    }

    #[test]
    fn a_file_that_is_cut_short_is_an_error() {
        let file = packed(vec![input(Some("seed"), b"ab")]).expect("it can be packed");
        for length in 1..file.len() {
            unpacked(&file[..length]).expect_err("cut short");
        }
        packed(vec![input(Some("../seed"), b"")]).expect_err("no name of a file");
    }
}
