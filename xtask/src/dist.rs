//! `cargo xtask dist`: a Debian package and a tarball, in `target/dist`.

mod changelog;
mod documents;
pub mod files;
mod musl;
mod notices;
mod rpm;

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, ensure};
use netfast_tests::{cmd, programs};

use self::files::{compress, empty, glibc, place, size, strip, sums, write};
use crate::{
    build,
    cross::Processor,
    setup::{self, Scope},
    workspace::{Profile, root, show, target_dir},
};

/// Options of `dist`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The package's version, where it is not to be that of the sources (a snapshot, a test of upgrades).
    #[arg(long, value_name = "VERSION", default_value = env!("CARGO_PKG_VERSION"))]
    version: String,
    /// The processor that it is for, instead of this machine's.
    #[arg(long, value_enum)]
    arch: Option<Processor>,
    /// Make an RPM, too; needs cargo-generate-rpm (`cargo install cargo-generate-rpm`).
    #[arg(long)]
    rpm: bool,
    /// Make a tarball of the program linked statically with musl, too, which runs without a C library; for this machine's processor.
    #[arg(long)]
    musl: bool,
}

/// The verb.
pub fn run(args: &Args) -> Result<()> {
    setup::ensure(Scope::Build)?;
    let other = args.arch.filter(|arch| arch.name() != std::env::consts::ARCH);
    ensure!(
        !args.musl || other.is_none(),
        "--musl is for this machine's processor only"
    );
    let parts = match other {
        None => Parts::make(&build::build_for_packages()?)?,
        Some(processor) => {
            let program = processor
                .cargo()?
                .build(Profile::Packaged, &["netfast"])?
                .join("netfast");
            if !processor.starts(&program, concat!("netfast ", env!("CARGO_PKG_VERSION")))? {
                println!(
                    "The program was not started: there is no emulator of its processor here (Debian package qemu-user-static)"
                );
            }
            // What it says of itself must come from one that runs here.
            let generate = build::build(false)?.netfast;
            Parts::for_processor(&generate, &program, Some(processor))?
        }
    };
    let version = &args.version;
    let deb = parts.deb(version)?;
    if programs::find("lintian").is_some() {
        show(
            Command::new("lintian")
                .args(["--allow-root", "--fail-on", "error,warning"])
                .arg(&deb),
        )?;
    }
    let mut files = vec![deb, parts.tarball(version)?, parts.bill(version)?];
    if args.rpm {
        files.push(parts.rpm(version)?);
    }
    if args.musl {
        files.push(parts.with_musl()?.tarball(version)?);
    }
    println!(
        "{} KiB: the program, stripped",
        fs::metadata(&parts.program)?.len() >> 10
    );
    print!("{}", files::checksums(&parts.dir, &files)?);
    Ok(())
}

/// Everything that is packed, built.
pub struct Parts {
    /// `target/dist`.
    dir: PathBuf,
    /// The program without what only a debugger reads.
    program: PathBuf,
    /// `None`: this machine's.
    processor: Option<Processor>,
    /// What the tarball's name ends in: which C library is linked, if it is not the distribution's.
    suffix: &'static str,
}

/// Who answers for the packages: the workspace's author, who is that of its commits.
const MAINTAINER: &str = env!("CARGO_PKG_AUTHORS");

/// Where the program goes, below the root directory.
const PROGRAM: &str = "usr/bin/netfast";

/// What goes where: below `target/dist` or the sources, then below the root directory.
const FILES: [(From, &str, &str); 18] = [
    (
        From::Sources,
        "netfast/dist/netfast.service",
        "usr/lib/systemd/system/netfast.service",
    ),
    // Without keys, so that no release changes it: dpkg asks an administrator who has changed theirs, too, and
    // unattended-upgrades then leaves the package as it is.
    (
        From::Sources,
        "netfast/dist/etc/netfast.toml",
        "etc/netfast/netfast.toml",
    ),
    (
        From::Sources,
        "netfast/dist/netfast.toml",
        "usr/share/doc/netfast/netfast.toml",
    ),
    (
        From::Sources,
        "netfast/dist/prometheus/netfast.rules.yml",
        "usr/share/netfast/prometheus/netfast.rules.yml",
    ),
    (
        From::Sources,
        "netfast/dist/grafana/netfast.json",
        "usr/share/netfast/grafana/netfast.json",
    ),
    (
        From::Sources,
        "netfast/dist/grafana/provisioning-dashboards.yml",
        "usr/share/netfast/grafana/provisioning-dashboards.yml",
    ),
    (
        From::Sources,
        "netfast/dist/grafana/provisioning-datasource.yml",
        "usr/share/netfast/grafana/provisioning-datasource.yml",
    ),
    (
        From::Sources,
        "netfast/dist/prometheus/scrape.yml",
        "usr/share/netfast/prometheus/scrape.yml",
    ),
    (
        From::Sources,
        "netfast/dist/override.conf",
        "usr/share/doc/netfast/examples/override.conf",
    ),
    (From::Documents, "README.md", "usr/share/doc/netfast/README.md"),
    (
        From::Documents,
        "docs/before-you-switch-it-on.md",
        "usr/share/doc/netfast/docs/before-you-switch-it-on.md",
    ),
    (
        From::Documents,
        "docs/at-3-am.md",
        "usr/share/doc/netfast/docs/at-3-am.md",
    ),
    (
        From::Documents,
        "docs/monitoring.md",
        "usr/share/doc/netfast/docs/monitoring.md",
    ),
    (
        From::Documents,
        "docs/aliases.md",
        "usr/share/doc/netfast/docs/aliases.md",
    ),
    (
        From::Documents,
        "docs/virtual-addresses.md",
        "usr/share/doc/netfast/docs/virtual-addresses.md",
    ),
    (
        From::Built,
        "completions/netfast.bash",
        "usr/share/bash-completion/completions/netfast",
    ),
    (
        From::Built,
        "completions/_netfast",
        "usr/share/zsh/vendor-completions/_netfast",
    ),
    (
        From::Built,
        "completions/netfast.fish",
        "usr/share/fish/vendor_completions.d/netfast.fish",
    ),
];

#[derive(Debug, Clone, Copy)]
enum From {
    Sources,
    Built,
    /// The sources, with links that lead to what is installed.
    Documents,
}

impl Parts {
    /// Makes man pages, completions and the stripped program.
    pub fn make(program: &Path) -> Result<Self> {
        // By the program that was built: nothing is compiled for that.
        Self::for_processor(program, program, None)
    }

    /// The same around a program for another processor; `generate` is one that runs here.
    fn for_processor(generate: &Path, program: &Path, processor: Option<Processor>) -> Result<Self> {
        let dir = target_dir()?.join("dist");
        empty(&dir)?;
        show(Command::new(generate).arg("generate").arg(&dir))?;
        let stripped = dir.join("netfast");
        let tool = processor.map_or_else(|| "strip".to_owned(), |processor| processor.tool("strip"));
        strip(&tool, program, &stripped)?;
        Ok(Self {
            dir,
            program: stripped,
            processor,
            suffix: "",
        })
    }

    /// The same around another program.
    pub fn with_program(&self, program: &Path) -> Result<Self> {
        let stripped = self.dir.join("netfast-other");
        strip("strip", program, &stripped)?;
        Ok(Self {
            dir: self.dir.clone(),
            program: stripped,
            processor: None,
            suffix: "",
        })
    }

    /// The same around the program linked with musl, which is built.
    pub fn with_musl(&self) -> Result<Self> {
        let parts = self.with_program(&musl::build()?)?;
        Ok(Self {
            suffix: musl::SUFFIX,
            ..parts
        })
    }

    /// Lays out the files below `to`, with their modes.
    fn lay_out(&self, to: &Path) -> Result<()> {
        place(&self.program, &to.join(PROGRAM), 0o755)?;
        for (from, source, target) in FILES {
            let target = to.join(target);
            match from {
                From::Sources => place(&root().join(source), &target, 0o644)?,
                From::Built => place(&self.dir.join(source), &target, 0o644)?,
                From::Documents => {
                    let text = fs::read_to_string(root().join(source))?;
                    write(&target, &documents::with_installed_links(&text, source))?;
                }
            }
        }
        let pages = self.dir.join("man");
        for page in fs::read_dir(&pages)? {
            let page = page?;
            let name = page.file_name();
            let section = Path::new(&name)
                .extension()
                .context("a page without a section")?
                .to_string_lossy()
                .into_owned();
            let target = to.join(format!("usr/share/man/man{section}")).join(name);
            place(&page.path(), &target, 0o644)?;
            compress(&target)?;
        }
        let notices = to.join("usr/share/doc/netfast/NOTICES");
        let mut text = notices::text(&self.linked()?)?;
        if self.suffix == musl::SUFFIX {
            text = fs::read_to_string(root().join(musl::NOTICE))? + "\n" + &text;
        }
        write(&notices, &text)?;
        compress(&notices)
    }

    /// Other authors' crates in the program.
    fn linked(&self) -> Result<Vec<notices::Package>> {
        notices::linked(self.processor.map(Processor::triple))
    }

    /// What is in the program, for who keeps lists of that.
    fn bill(&self, version: &str) -> Result<PathBuf> {
        let file = self.dir.join(format!("netfast-{version}.cdx.json"));
        write(&file, &notices::bill(&self.linked()?, version)?)?;
        Ok(file)
    }

    /// The Debian package.
    pub fn deb(&self, version: &str) -> Result<PathBuf> {
        ensure!(
            programs::find("dpkg-deb").is_some(),
            "no dpkg-deb: a Debian package is made on Debian or Ubuntu"
        );
        let stage = self.dir.join("deb");
        empty(&stage)?;
        self.lay_out(&stage)?;
        let sources = root().join("netfast/dist/deb");
        let mut copyright = fs::read_to_string(sources.join("copyright"))?;
        for line in fs::read_to_string(root().join("LICENSE-MIT"))?.lines() {
            copyright += if line.is_empty() { " ." } else { " " };
            copyright += line;
            copyright.push('\n');
        }
        write(&stage.join("usr/share/doc/netfast/copyright"), &copyright)?;
        let control = fs::read_to_string(sources.join("control"))?;
        let changes = fs::read_to_string(root().join("CHANGELOG.md"))?;
        let changes = changelog::debian(&changes, version, MAINTAINER)?;
        let file = stage.join("usr/share/doc/netfast/changelog");
        write(&file, &changes)?;
        compress(&file)?;
        let architecture = match self.processor {
            Some(processor) => processor.debian().to_owned(),
            None => cmd::run(Command::new("dpkg").arg("--print-architecture"))?,
        };
        let control = control
            .replace("@VERSION@", version)
            .replace("@MAINTAINER@", MAINTAINER)
            .replace("@ARCHITECTURE@", &architecture)
            .replace("@GLIBC@", &glibc(&fs::read(&self.program)?))
            .replace("@SIZE@", &(size(&stage)? / 1024).to_string());
        let sums = sums(&stage)?;
        write(&stage.join("DEBIAN/control"), &control)?;
        write(&stage.join("DEBIAN/md5sums"), &sums)?;
        write(&stage.join("DEBIAN/conffiles"), "/etc/netfast/netfast.toml\n")?;
        for script in ["postinst", "prerm", "postrm"] {
            place(&sources.join(script), &stage.join("DEBIAN").join(script), 0o755)?;
        }
        let file = self.dir.join(format!("netfast_{version}_{architecture}.deb"));
        let mut pack = Command::new("dpkg-deb");
        pack.args(["--build", "--root-owner-group"]).arg(&stage).arg(&file);
        // Compressing takes as long as it takes: no limit of time.
        show(&mut pack)?;
        fs::remove_dir_all(&stage)?;
        Ok(file)
    }

    /// The same files for other distributions, with the licenses, in one directory.
    pub fn tarball(&self, version: &str) -> Result<PathBuf> {
        let processor = self.processor.map_or(std::env::consts::ARCH, Processor::name);
        let name = format!("netfast-{version}-{processor}-linux{}", self.suffix);
        let stage = self.dir.join(&name);
        empty(&stage)?;
        self.lay_out(&stage)?;
        let changes = stage.join("usr/share/doc/netfast/CHANGELOG.md");
        place(&root().join("CHANGELOG.md"), &changes, 0o644)?;
        for license in ["LICENSE-MIT", "LICENSE-APACHE"] {
            place(&root().join(license), &stage.join(license), 0o644)?;
        }
        let file = self.dir.join(format!("{name}.tar.gz"));
        let mut pack = Command::new("tar");
        pack.args(["--create", "--gzip", "--sort=name", "--owner=0", "--group=0"]);
        pack.arg("--directory")
            .arg(&self.dir)
            .arg("--file")
            .arg(&file)
            .arg(&name);
        show(&mut pack)?;
        fs::remove_dir_all(&stage)?;
        Ok(file)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The script, as dpkg runs it before a removal, where `netfast detach` does not work.
    #[test]
    fn a_failing_detach_does_not_block_the_removal() {
        let script = fs::read_to_string(root().join("netfast/dist/deb/prerm")).expect("the script");
        assert!(script.contains("\n    netfast detach"));
        let script = script
            .replace("\n    netfast detach", "\n    sh -c 'echo broken >&2; exit 1' detach")
            .replace("deb-systemd-invoke", "true");
        let run = |action| {
            let mut command = Command::new("sh");
            command.args(["-c", &script, "prerm", action]);
            command.output().expect("a shell")
        };
        let done = run("remove");
        let said = String::from_utf8_lossy(&done.stderr);
        assert!(done.status.success(), "{said}");
        assert!(
            said.contains("broken") && said.contains("still attached"),
            "it is not silent: {said}"
        );
        assert!(run("upgrade").stderr.is_empty(), "an upgrade detaches nothing");
    }

    /// Not even a default, which the next release might change: see the list of files.
    #[test]
    fn the_installed_configuration_has_no_keys() {
        let text = fs::read_to_string(root().join("netfast/dist/etc/netfast.toml")).expect("a file");
        assert!(
            !text.is_empty() && text.lines().all(|line| line.starts_with("# ")),
            "{text}"
        );
        let shipped = FILES.iter().filter(|(_, _, to)| to.starts_with("etc/"));
        let shipped: Vec<&str> = shipped.map(|(_, from, _)| *from).collect();
        assert_eq!(shipped, ["netfast/dist/etc/netfast.toml"]);
    }

    /// What the unit starts is where the package puts it, and where README says that it is put by hand.
    #[test]
    fn the_unit_starts_what_is_installed() {
        let read = |file: &str| fs::read_to_string(root().join(file)).expect("a file");
        let unit = read("netfast/dist/netfast.service");
        let started: Vec<&str> = unit
            .lines()
            .filter_map(|line| line.strip_prefix("ExecStart=")?.split(' ').next())
            .collect();
        assert_eq!(started, [format!("/{PROGRAM}")]);
        let readme = read("README.md");
        let places: Vec<&str> = readme
            .lines()
            .filter(|line| line.contains("install target/release/netfast"))
            .collect();
        assert!(!places.is_empty(), "README tells no way by hand");
        for place in places {
            assert!(place.contains("target/release/netfast /usr/bin/"), "{place}");
        }
        // The way with the package comes before it.
        let at = |text: &str| readme.find(text).unwrap_or_else(|| panic!("README has no {text:?}"));
        assert!(at("systemctl enable --now netfast") < at("install target/release/netfast"));
    }

    #[test]
    fn the_newest_symbol_version_counts() {
        assert_eq!(glibc(b"\0GLIBC_2.2.5\0GLIBC_2.34\0GLIBC_2.4\0GLIBC_PRIVATE"), "2.34");
    }
}
