//! Running other programs: with a time limit, and with errors that show what was run and what it said.

use std::{
    env,
    ffi::OsStr,
    fmt::Write as _,
    io::{BufRead as _, BufReader, Read},
    os::unix::process::{CommandExt as _, ExitStatusExt as _},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{OnceLock, mpsc},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use nix::{
    sys::signal::{Signal, kill, killpg},
    unistd::Pid,
};
use rustix::{
    event::{self, PollFd, PollFlags},
    io::Errno,
    process::{PidfdFlags, pidfd_open},
};

/// How long [`run`] waits before it ends the program.
pub const TIME_LIMIT: Duration = Duration::from_mins(1);

/// How many times longer than elsewhere everything may take: a number, set where the processor is emulated.
pub const PATIENCE: &str = "NETFAST_TEST_PATIENCE";

/// A time limit on this machine.
pub fn patient(limit: Duration) -> Duration {
    static FACTOR: OnceLock<u32> = OnceLock::new();
    let factor = FACTOR.get_or_init(|| {
        let set = env::var(PATIENCE).ok().and_then(|text| text.parse().ok());
        set.unwrap_or(1).max(1)
    });
    limit * *factor
}

/// What a finished program left behind.
#[derive(Debug, Clone)]
pub struct Finished {
    /// How it ended.
    pub status: ExitStatus,
    /// Its standard output; bytes that are not UTF-8 are replaced.
    pub stdout: String,
    /// Its standard error; bytes that are not UTF-8 are replaced.
    pub stderr: String,
}

/// Runs `command` to its end and returns its standard output without the final newline.
///
/// Fails if it cannot be started, runs longer than [`TIME_LIMIT`], or ends with another status than 0; the error holds
/// the command line, the status, and the output.
pub fn run(command: &mut Command) -> Result<String> {
    let done = finish(command, TIME_LIMIT)?;
    if !done.status.success() {
        let mut said = done.stderr.trim().to_owned();
        if said.is_empty() {
            done.stdout.trim().clone_into(&mut said);
        }
        bail!("`{}` failed ({}): {said}", line_of(command), done.status);
    }
    Ok(done.stdout.trim_end().to_owned())
}

/// Runs `line` by `sh -c`, in the caller's namespaces; see [`run`].
pub fn sh(line: &str) -> Result<String> {
    run(Command::new("sh").args(["-c", line]))
}

/// Runs `command` to its end, whatever its status; after `limit` its process group is killed, and that is an error.
pub fn finish(command: &mut Command, limit: Duration) -> Result<Finished> {
    let limit = patient(limit);
    let mut child = spawn(command)?;
    let stdout = drain(child.stdout.take());
    let stderr = drain(child.stderr.take());
    let status = wait_until(&mut child, Instant::now() + limit)?;
    if status.is_none() {
        let _gone = killpg(pid_of(&child), Signal::SIGKILL);
        child.wait()?;
    }
    let stdout = stdout.join().map_err(|_| anyhow!("the reader of stdout panicked"))?;
    let stderr = stderr.join().map_err(|_| anyhow!("the reader of stderr panicked"))?;
    match status {
        Some(status) => Ok(Finished { status, stdout, stderr }),
        None => bail!(
            "`{}` did not end within {} s and was killed; it had said: {}{}",
            line_of(command),
            limit.as_secs(),
            stdout.trim(),
            stderr.trim()
        ),
    }
}

/// What a program printed up to a line.
#[derive(Debug)]
pub struct UntilLine {
    /// The line; `None`: it ended without it.
    pub found: Option<String>,
    /// How it ended; `None`: it was killed at that line.
    pub status: Option<ExitStatus>,
    /// What it said to stderr so far.
    pub stderr: String,
}

/// Runs `command` until it prints a line that is wanted, and kills its process group then; after `limit` as well, and that is
/// an error.
pub fn until_line(command: &mut Command, limit: Duration, is_wanted: impl Fn(&str) -> bool) -> Result<UntilLine> {
    let limit = patient(limit);
    let line = line_of(command);
    let mut child = spawn(command)?;
    let stderr = drain(child.stderr.take());
    let stdout = child.stdout.take().context("no pipe")?;
    let (sender, lines) = mpsc::channel();
    let reader = thread::spawn(move || {
        for line in BufReader::new(stdout).lines().map_while(Result::ok) {
            if sender.send(line).is_err() {
                break;
            }
        }
    });
    let deadline = Instant::now() + limit;
    let found = loop {
        match lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(line) if is_wanted(&line) => break Some(line),
            Ok(_) => {}
            Err(_) => break None,
        }
    };
    let status = if found.is_none() && Instant::now() < deadline {
        wait_until(&mut child, deadline)?
    } else {
        None
    };
    if status.is_none() {
        let _gone = killpg(pid_of(&child), Signal::SIGKILL);
        child.wait()?;
    }
    drop(lines);
    reader.join().map_err(|_| anyhow!("the reader of stdout panicked"))?;
    let stderr = stderr.join().map_err(|_| anyhow!("the reader of stderr panicked"))?;
    ensure!(
        found.is_some() || status.is_some(),
        "`{line}` did not end within {} s and was killed; it had said: {}",
        limit.as_secs(),
        stderr.trim()
    );
    Ok(UntilLine { found, status, stderr })
}

/// A program that runs beside the test; killed when dropped.
#[derive(Debug)]
pub struct Background {
    child: Child,
    line: String,
    stdout: Option<JoinHandle<String>>,
    stderr: Option<JoinHandle<String>>,
}

impl Background {
    /// Starts `command`; both its outputs are collected.
    pub fn start(command: &mut Command) -> Result<Self> {
        let line = line_of(command);
        let mut child = spawn(command)?;
        let stdout = Some(drain(child.stdout.take()));
        let stderr = Some(drain(child.stderr.take()));
        Ok(Self {
            child,
            line,
            stdout,
            stderr,
        })
    }

    /// Process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Whether it still runs.
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Sends `signal` to it (not to its children).
    pub fn signal(&self, signal: Signal) -> Result<()> {
        kill(pid_of(&self.child), signal).with_context(|| format!("cannot send {signal} to `{}`", self.line))
    }

    /// Waits for its own end, at most `limit`; an error if it takes longer (it is then killed).
    pub fn wait(mut self, limit: Duration) -> Result<Finished> {
        let limit = patient(limit);
        let status = wait_until(&mut self.child, Instant::now() + limit)?;
        let finished = self.collect()?;
        match status {
            Some(status) => Ok(Finished { status, ..finished }),
            None => bail!(
                "`{}` did not end within {} s and was killed; it had said: {}{}",
                self.line,
                limit.as_secs(),
                finished.stdout.trim(),
                finished.stderr.trim()
            ),
        }
    }

    /// Asks it to end by SIGTERM and waits up to 10 s for that.
    pub fn stop(mut self) -> Result<Finished> {
        if self.is_running() {
            self.signal(Signal::SIGTERM)?;
        }
        self.wait(Duration::from_secs(10))
    }

    fn collect(&mut self) -> Result<Finished> {
        let _gone = killpg(pid_of(&self.child), Signal::SIGKILL);
        let status = self.child.wait()?;
        let join = |reader: Option<JoinHandle<String>>| reader.and_then(|r| r.join().ok()).unwrap_or_default();
        Ok(Finished {
            status,
            stdout: join(self.stdout.take()),
            stderr: join(self.stderr.take()),
        })
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        if self.stdout.is_some() {
            let _gone = killpg(pid_of(&self.child), Signal::SIGKILL);
            let _status = self.child.wait();
        }
    }
}

/// Waits for `child` until `deadline`; `None` if it still runs then.
///
/// The kernel tells of its end (`pidfd_open`, Linux 5.3): a laboratory runs some sixty commands of a few milliseconds, and a
/// pause between two looks at each would be half of its time.
pub fn wait_until(child: &mut Child, deadline: Instant) -> Result<Option<ExitStatus>> {
    if let Some(status) = child.try_wait()? {
        return Ok(Some(status));
    }
    let process = pidfd_open(rustix::process::Pid::from_child(child), PidfdFlags::empty())?;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let mut end = [PollFd::new(&process, PollFlags::IN)];
        match event::poll(&mut end, Some(&left.try_into()?)) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        if Instant::now() >= deadline {
            return Ok(None);
        }
    }
}

/// Calls `probe` until it gives a value, in pauses that grow from 5 to 50 ms; an error that names `what` after `limit`.
pub fn poll<T>(what: &str, limit: Duration, mut probe: impl FnMut() -> Option<T>) -> Result<T> {
    let limit = patient(limit);
    let deadline = Instant::now() + limit;
    let mut pause = Duration::from_millis(5);
    loop {
        if let Some(value) = probe() {
            return Ok(value);
        }
        if Instant::now() >= deadline {
            bail!("{what}: not within {} s", limit.as_secs_f32());
        }
        thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(50));
    }
}

/// The command as one would type it, for messages.
pub fn line_of(command: &Command) -> String {
    let mut line = command.get_program().to_string_lossy().into_owned();
    for arg in command.get_args().map(OsStr::to_string_lossy) {
        let plain = !arg.is_empty() && !arg.contains([' ', '"', '\'', '$', '*', '\n']);
        // Writing to a String cannot fail.
        let _ = if plain {
            write!(line, " {arg}")
        } else {
            write!(line, " {arg:?}")
        };
    }
    line
}

/// The signal that ended it, in words, or the exit code.
pub fn how_it_ended(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit code {code}"),
        (None, Some(signal)) => format!("signal {signal}"),
        (None, None) => "unknown status".to_owned(),
    }
}

fn pid_of(child: &Child) -> Pid {
    Pid::from_raw(i32::try_from(child.id()).expect("a pid fits i32"))
}

/// Starts it in a group of its own, so that what it started can be ended with it, and cannot keep the pipes open.
fn spawn(command: &mut Command) -> Result<Child> {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .spawn()
        .with_context(|| format!("cannot start `{}`", line_of(command)))
}

fn drain(pipe: Option<impl Read + Send + 'static>) -> JoinHandle<String> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut pipe) = pipe {
            // A read error means that the other end is gone: what came so far is the output.
            let _ = pipe.read_to_end(&mut bytes);
        }
        String::from_utf8_lossy(&bytes).into_owned()
    })
}
