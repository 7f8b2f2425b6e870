//! `netfast report`: several texts about a host in one archive, for who is to help without seeing the host.

use std::{fmt::Write as _, io};

use flate2::{Compression, GzBuilder};
use serde::{Serialize, ser::SerializeStruct as _};

use super::{
    Style, Table,
    redact::Redactor,
    table::{Cell, Paint},
};

/// The directory in the archive.
const DIRECTORY: &str = "netfast-report";
/// The text that says what the others are.
const INDEX: &str = "README.txt";

/// What the index says first.
const ABOUT: &str = "\
This is the output of `netfast report`. It was made to be read by others: names, identifiers, addresses and unknown
words were replaced, the same thing by the same pseudonym in all files.

  container-1, network-1, alias-1, host-1, label-1  names that the container runtime, the daemon or the host knows
  ipv4-1, ipv6-1   public addresses of IPv4, and addresses of IPv6; private ones of IPv4 (RFC 1918, RFC 6598) stay
  mac-1, id-1      MAC addresses, identifiers of containers and networks
  word-1           any word that netfast's own messages do not use

What stays: words of netfast's messages, numbers (ports, process numbers and counters among them), times, names of
interfaces as kernels and engines make them (eth0, veth1a2b3c4). Rules of the packet filter are counted, not copied.
Read it before you hand it on: it is yours.
";

/// One text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// The file's name in the archive.
    pub file: &'static str,
    /// What it is.
    pub what: &'static str,
    /// The text, or why there is none.
    pub text: Result<String, String>,
}

/// All texts, redacted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bundle {
    /// Where it was written, as it is told to whoever made it.
    pub file: String,
    parts: Vec<Part>,
    names: usize,
}

impl Bundle {
    /// Redacts the parts.
    pub fn new(file: String, parts: Vec<Part>, redactor: &mut Redactor) -> Self {
        let names = redactor.names();
        let redact = |part: Part| Part {
            text: match part.text {
                Ok(text) => Ok(redactor.redact(&text)),
                Err(why) => Err(redactor.redact(why.trim_end())),
            },
            ..part
        };
        Self {
            file,
            parts: parts.into_iter().map(redact).collect(),
            names,
        }
    }

    /// A gzipped tar archive. `time`: when it was made, in seconds since 1970.
    pub fn archive(&self, time: u64) -> io::Result<Vec<u8>> {
        let packed = GzBuilder::new().write(Vec::new(), Compression::default());
        let mut archive = tar::Builder::new(packed);
        let mut add = |file: &str, text: &str| {
            let mut header = tar::Header::new_gnu();
            header.set_size(text.len() as u64);
            header.set_mode(0o644);
            header.set_mtime(time);
            header.set_entry_type(tar::EntryType::Regular);
            archive.append_data(&mut header, format!("{DIRECTORY}/{file}"), text.as_bytes())
        };
        add(INDEX, &self.index())?;
        for part in &self.parts {
            match &part.text {
                Ok(text) => add(part.file, text)?,
                Err(why) => add(part.file, &format!("{why}\n"))?,
            }
        }
        archive.into_inner()?.finish()
    }

    /// What is in it, for who gets it.
    fn index(&self) -> String {
        let mut text = format!("{ABOUT}\nnetfast {}\n\n", env!("CARGO_PKG_VERSION"));
        text.push_str(&self.table().render(Style::default()));
        text
    }

    fn table(&self) -> Table {
        let mut table = Table::new(&["FILE", ">BYTES", "CONTENTS"]);
        for part in &self.parts {
            match &part.text {
                Ok(text) => table.row([part.file.into(), text.len().to_string().into(), part.what.into()]),
                Err(why) => table.row([
                    part.file.into(),
                    "-".into(),
                    Cell::painted(format!("{}: could not be had: {why}", part.what), Paint::Yellow),
                ]),
            }
        }
        table
    }

    /// The text, for who made it.
    pub fn render(&self, style: Style) -> String {
        let mut text = self.table().render(style);
        let names = match self.names {
            1 => "1 name is".to_owned(),
            number => format!("{number} names are"),
        };
        let _ = writeln!(
            text,
            "\n{names} known and replaced, and so are public addresses, MAC addresses, identifiers, and every word that \
             netfast's own messages do not use.\nWritten to {}. Read it before you hand it on: tar -xzf {0}",
            self.file
        );
        text
    }
}

impl Serialize for Bundle {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Listed<'a> {
            file: &'a str,
            what: &'a str,
            bytes: Option<usize>,
            error: Option<&'a str>,
        }
        let parts: Vec<_> = self
            .parts
            .iter()
            .map(|part| Listed {
                file: part.file,
                what: part.what,
                bytes: part.text.as_ref().ok().map(String::len),
                error: part.text.as_ref().err().map(String::as_str),
            })
            .collect();
        let mut report = serializer.serialize_struct("Bundle", 3)?;
        report.serialize_field("file", &self.file)?;
        report.serialize_field("names", &self.names)?;
        report.serialize_field("parts", &parts)?;
        report.end()
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, io::Read as _};

    use flate2::read::GzDecoder;

    use super::*;
    use crate::report::redact::Kind;

    fn bundle() -> Bundle {
        let mut redactor = Redactor::default();
        redactor.know(Kind::Container, "zaphod");
        let part = |file, what, text| Part { file, what, text };
        let parts = vec![
            part("status.txt", "what `netfast status` says", Ok("zaphod  fast\n".into())),
            part(
                "log.txt",
                "the daemon's last words",
                Err("no log of zaphod at 192.0.2.1\n".into()),
            ),
        ];
        Bundle::new("report.tar.gz".into(), parts, &mut redactor)
    }

    #[test]
    fn the_archive_has_an_index_and_each_part_or_why_it_is_not_there() {
        let archive = bundle().archive(1).expect("an archive");
        let mut found = BTreeMap::new();
        for entry in tar::Archive::new(GzDecoder::new(archive.as_slice()))
            .entries()
            .expect("entries")
        {
            let mut entry = entry.expect("an entry");
            let mut text = String::new();
            entry.read_to_string(&mut text).expect("text");
            found.insert(entry.path().expect("a path").display().to_string(), text);
        }
        let files: Vec<&str> = found.keys().map(String::as_str).collect();
        let wanted = [
            "netfast-report/README.txt",
            "netfast-report/log.txt",
            "netfast-report/status.txt",
        ];
        assert_eq!(files, wanted);
        assert_eq!(found[wanted[2]], "container-1  fast\n");
        assert_eq!(found[wanted[1]], "no log of container-1 at ipv4-1\n");
        let index = &found[wanted[0]];
        assert!(
            index.contains("could not be had: no log of container-1 at ipv4-1\n"),
            "{index}"
        );
        assert_eq!(
            index.lines().filter(|line| line.contains("status.txt")).count(),
            1,
            "{index}"
        );
        let longest = index.lines().map(|line| line.chars().count()).max();
        assert!(longest.is_some_and(|longest| longest <= 120), "{index}");
    }

    #[test]
    fn who_makes_it_is_told_what_is_in_it() {
        let text = bundle().render(Style::default());
        assert_eq!(
            text,
            "FILE        BYTES  CONTENTS\n\
             status.txt     18  what `netfast status` says\n\
             log.txt         -  the daemon's last words: could not be had: no log of container-1 at ipv4-1\n\
             \n\
             1 name is known and replaced, and so are public addresses, MAC addresses, identifiers, and every word that \
             netfast's own messages do not use.\n\
             Written to report.tar.gz. Read it before you hand it on: tar -xzf report.tar.gz\n"
        );
        let json = serde_json::to_value(bundle()).expect("JSON");
        assert_eq!(
            (&json["parts"][0]["bytes"], &json["parts"][1]["bytes"]),
            (&18.into(), &serde_json::Value::Null)
        );
    }
}
