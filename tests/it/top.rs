//! `netfast top` in a terminal of 80 columns and 24 lines, as over ssh.

use std::{
    io::{Read as _, Write as _},
    process::Stdio,
    thread,
    time::Duration,
};

use netfast_tests::{
    netfast_proc::{NetfastProc, Options},
    programs as tools,
    require::{Need, needs},
    topo,
};

/// What tells a terminal to go back to the screen that was there before (xterm's `rmcup`).
const BACK: &str = "\x1b[?1049l";

#[test]
fn top_shows_rates_in_a_small_terminal_and_gives_it_back() {
    if !needs(&[Need::Root, Need::Kernel(6, 6), Need::Program("script")]) {
        return;
    }
    let topo = topo::Topo::new(&topo::Options::default()).expect("a topology");
    let (one, two) = (topo.container(0, 0), topo.container(0, 1));
    let ping = format!("busybox ping -c1 -W2 {}", two.ip);
    one.ns.sh(&ping).expect("they reach each other");
    let netfast = NetfastProc::start(topo.host(), Options::no_runtime()).expect("netfast starts");
    let tool = tools::traffic().expect("the traffic tool").display().to_string();
    let _server = two.ns.spawn(&[&tool, "rr-server", "7000"]).expect("a server");
    thread::sleep(Duration::from_millis(300));
    let to = format!("{}:7000", two.ip);
    let client = ["paced", &to, "--rate", "1000", "--seconds", "600"];
    let _client = one
        .ns
        .spawn(&[&[tool.as_str()], &client[..]].concat())
        .expect("a client");
    thread::sleep(Duration::from_secs(1));

    let program = tools::netfast().expect("the binary");
    let line = format!(
        "stty cols 80 rows 24 && exec {} top --interval 0.5 --pin-dir {} --run-dir {}",
        program.display(),
        netfast.pin_dir().display(),
        netfast.run_dir().display()
    );
    let mut top = topo
        .host()
        .command("script")
        .args(["--quiet", "--return", "--command", &line, "/dev/null"])
        .env("TERM", "xterm-256color")
        .env("NO_COLOR", "1")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("it starts");
    thread::sleep(Duration::from_secs(3));
    let mut keys = top.stdin.take().expect("a pipe");
    keys.write_all(b"q").expect("a key");
    keys.flush().expect("a key");
    let mut drawn = String::new();
    let mut screen = top.stdout.take().expect("a pipe");
    screen.read_to_string(&mut drawn).expect("text");
    assert!(top.wait().expect("it ends").success(), "{drawn:?}");
    for word in ["veth0x0", "br-0", "fast"] {
        assert!(drawn.contains(word), "no {word} in {drawn:?}");
    }
    assert!(drawn.trim_end().ends_with(BACK) || drawn.contains(BACK), "{drawn:?}");
    // Where the cursor goes (`ESC [ LINE ; COLUMN H`), nothing is outside.
    let mut places = 0;
    for place in drawn.split("\x1b[").filter_map(|part| part.split_once('H')) {
        let Some((line, column)) = place.0.split_once(';') else {
            continue;
        };
        let (Ok(line), Ok(column)) = (line.parse::<u16>(), column.parse::<u16>()) else {
            continue;
        };
        places += 1;
        assert!(line <= 24 && column <= 80, "{line};{column}");
    }
    assert!(places > 10, "{drawn:?}");
}
