//! A runtime that is played, for what a real one does seldom.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    os::unix::net::{UnixListener, UnixStream},
    sync::atomic::{AtomicUsize, Ordering},
    thread,
};

use super::*;

/// Answers requests as podman does: `lists` are the identifiers that it lists, one list after the other, the last one for
/// ever; whoever asks for `broken` gets an error of the server's.
fn play(listener: UnixListener, lists: &'static [&'static [&'static str]], broken: &'static str) {
    let asked = Arc::new(AtomicUsize::new(0));
    thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let asked = Arc::clone(&asked);
            thread::spawn(move || {
                let mut stream = BufReader::new(stream);
                while let Some(path) = request(&mut stream) {
                    let (status, body) = answer(&path, &asked, lists, broken);
                    let head = format!(
                        "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nApi-Version: 1.44\r\nContent-Length: {}\r\n\r\n",
                        body.len()
                    );
                    let sent = stream.get_mut().write_all(format!("{head}{body}").as_bytes());
                    if sent.is_err() {
                        return;
                    }
                }
            });
        }
    });
}

/// The path of the next request, without the version before it.
fn request(stream: &mut BufReader<UnixStream>) -> Option<String> {
    let mut first = String::new();
    stream.read_line(&mut first).ok().filter(|bytes| *bytes > 0)?;
    let mut line = String::new();
    while stream.read_line(&mut line).ok()? > 2 {
        line.clear();
    }
    let path = first.split(' ').nth(1)?.split('?').next()?;
    let versioned = path.strip_prefix("/v1.").and_then(|rest| rest.split_once('/'));
    Some(versioned.map_or_else(|| path.to_owned(), |(_, rest)| format!("/{rest}")))
}

fn answer(path: &str, asked: &AtomicUsize, lists: &[&[&str]], broken: &str) -> (&'static str, String) {
    let ok = "200 OK";
    match path {
        "/version" => (
            ok,
            r#"{"Version": "5.8.6", "ApiVersion": "1.44", "MinAPIVersion": "1.24", "Components": [{"Name": "Podman Engine",
                "Version": "5.8.6"}]}"#
                .into(),
        ),
        "/networks" => (ok, "[]".into()),
        "/containers/json" => {
            let turn = asked.fetch_add(1, Ordering::Relaxed).min(lists.len() - 1);
            let all: Vec<String> = lists[turn].iter().map(|id| format!(r#"{{"Id": "{id}"}}"#)).collect();
            (ok, format!("[{}]", all.join(",")))
        }
        _ => match path.split('/').nth(2) {
            Some(id) if id == broken => (
                "500 Internal Server Error",
                r#"{"cause": "no such container", "message": "getting its network: no such container", "response": 500}"#
                    .into(),
            ),
            Some(id) => (
                ok,
                format!(r#"{{"Id": "{id}", "Name": "/{id}", "State": {{"Running": true, "Pid": 1}}}}"#),
            ),
            None => ("404 Not Found", "{}".into()),
        },
    }
}

async fn connect(lists: &'static [&'static [&'static str]]) -> Result<Vec<String>, DockerError> {
    let dir = tempfile::tempdir().expect("a directory");
    let socket = dir.path().join("podman.sock");
    play(UnixListener::bind(&socket).expect("a socket"), lists, "going");
    let (runtime, _session) = Runtime::connect(&format!("unix://{}", socket.display())).await?;
    let cache = runtime.read_cache(Clone::clone);
    assert!(
        matches!(&cache.runtime, RuntimeState::Connected { engine, .. } if engine == "Podman Engine"),
        "{:?}",
        cache.runtime
    );
    Ok(cache.containers.into_keys().map(|id| id.0).collect())
}

#[tokio::test]
async fn a_container_that_goes_while_it_is_looked_at_is_not_the_end_of_the_runtime() {
    let found = connect(&[&["going", "stays"], &["stays"]]).await;
    assert_eq!(found.expect("the runtime answers"), ["stays"]);
}

#[tokio::test]
async fn an_error_about_a_container_that_is_there_is_told() {
    let error = connect(&[&["going", "stays"]]).await.expect_err("it cannot be asked");
    assert!(error.to_string().contains("no such container"), "{error}");
}
