//! Other load balancers of connections: nginx (stream module) and `HAProxy`, in a container's network namespace.

use std::{
    fmt::Write as _,
    fs,
    net::Ipv4Addr,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use netfast_tests::{
    cmd::{self, Background},
    netns::NsHandle,
};

use crate::{
    measure::{
        lab::{CRR, RR, SINK},
        metric::is_bound,
    },
    workspace::target_dir,
};

/// Which one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Proxy {
    /// nginx's stream module: TCP and UDP.
    Nginx,
    /// TCP only.
    HaProxy,
}

/// Where Debian's package has the module.
const NGINX_STREAM: &str = "/usr/lib/nginx/modules/ngx_stream_module.so";

impl Proxy {
    /// What tables call it.
    pub fn title(self) -> &'static str {
        match self {
            Self::Nginx => "nginx",
            Self::HaProxy => "HAProxy",
        }
    }

    /// Starts it in a namespace, before these members, each in turn, and waits until it listens.
    pub fn start(self, namespace: &NsHandle, members: &[Ipv4Addr]) -> Result<Background> {
        let dir = target_dir()?.join("balance");
        fs::create_dir_all(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
        let (file, text) = match self {
            Self::Nginx => ("nginx.conf", nginx(&dir, members)?),
            Self::HaProxy => ("haproxy.cfg", haproxy(members)?),
        };
        let file = dir.join(file);
        fs::write(&file, text).with_context(|| format!("cannot write {}", file.display()))?;
        let file = file.display().to_string();
        let mut process = match self {
            Self::Nginx => namespace.spawn(&["nginx", "-c", &file, "-p", &dir.display().to_string()])?,
            Self::HaProxy => namespace.spawn(&["haproxy", "-db", "-f", &file])?,
        };
        cmd::poll(self.title(), Duration::from_secs(5), || {
            (!process.is_running() || is_bound(namespace, CRR)).then_some(())
        })?;
        if !process.is_running() {
            let done = process.stop()?;
            bail!(
                "{} ended ({}): {}",
                self.title(),
                cmd::how_it_ended(done.status),
                done.stderr.trim()
            );
        }
        Ok(process)
    }
}

/// Its defaults, and what is needed for many short connections; no log.
fn nginx(dir: &Path, members: &[Ipv4Addr]) -> Result<String> {
    let pid: PathBuf = dir.join("nginx.pid");
    let mut text = format!(
        "load_module {NGINX_STREAM};\ndaemon off;\nuser root;\nworker_processes auto;\npid {};\nerror_log stderr error;\n\
         events {{ worker_connections 16384; }}\nstream {{\n",
        pid.display()
    );
    for (port, listen) in [(CRR, ""), (RR, ""), (SINK, " udp")] {
        write!(text, "upstream u{port} {{")?;
        for member in members {
            write!(text, " server {member}:{port};")?;
        }
        writeln!(text, " }}\nserver {{ listen {port}{listen}; proxy_pass u{port}; }}")?;
    }
    text.push_str("}\n");
    Ok(text)
}

fn haproxy(members: &[Ipv4Addr]) -> Result<String> {
    let mut text = "global\n  maxconn 8000\ndefaults\n  mode tcp\n  timeout connect 5s\n  timeout client 60s\n  timeout server 60s\n\
                    \x20 balance roundrobin\n"
        .to_owned();
    for port in [CRR, RR] {
        writeln!(text, "listen l{port}\n  bind :{port}")?;
        for (number, member) in members.iter().enumerate() {
            writeln!(text, "  server m{number} {member}:{port}")?;
        }
    }
    Ok(text)
}
