//! Which congestion control TCP's bulk transfers have.

use std::{ffi::OsString, fs};

use anyhow::{Context as _, Result};
use nix::sys::socket::{AddressFamily, SetSockOpt as _, SockFlag, SockType, socket, sockopt::TcpCongestion};

/// What Linux has unless somebody chose otherwise. A machine's own default may be one that paces by timers: these then
/// cost a virtual machine more than the packets' way, and hide how the ways differ.
pub const USUAL: &str = "cubic";

/// The kernel's list, for messages. It leaves out modules that are loaded when they are asked for.
const AVAILABLE: &str = "/proc/sys/net/ipv4/tcp_available_congestion_control";
/// The machine's own default.
const OWN: &str = "/proc/sys/net/ipv4/tcp_congestion_control";

/// The name that was typed, if the kernel has it; else [`USUAL`], or on a kernel without it the machine's own.
pub fn choose(typed: Option<&str>) -> Result<String> {
    if let Some(name) = typed {
        try_out(name).with_context(|| {
            let available = fs::read_to_string(AVAILABLE).unwrap_or_default();
            format!("--congestion {name}: this kernel has {}", available.trim())
        })?;
        return Ok(name.to_owned());
    }
    if try_out(USUAL).is_ok() {
        return Ok(USUAL.to_owned());
    }
    let own = fs::read_to_string(OWN).with_context(|| format!("cannot read {OWN}"))?;
    let own = own.trim().to_owned();
    eprintln!("this kernel has no TCP congestion control {USUAL}: measuring with {own}");
    Ok(own)
}

/// Sets it on a socket, which also loads a module.
fn try_out(name: &str) -> Result<()> {
    let socket = socket(AddressFamily::Inet, SockType::Stream, SockFlag::SOCK_CLOEXEC, None).context("a socket")?;
    TcpCongestion
        .set(&socket, &OsString::from(name))
        .context("the kernel refuses it")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_kernel_has_is_taken_and_nothing_else() {
        // Every kernel has Reno built in.
        assert_eq!(choose(Some("reno")).expect("it has"), "reno");
        let error = choose(Some("nagle")).expect_err("there is none");
        assert!(
            format!("{error:#}").contains("--congestion nagle: this kernel has "),
            "{error:#}"
        );
        let usual = choose(None).expect("every kernel has some");
        assert!(try_out(&usual).is_ok(), "{usual}");
    }
}
