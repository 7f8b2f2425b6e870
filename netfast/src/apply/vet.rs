//! Vets flows: the programs ask, conntrack answers ([`netfast_common::vet`]).
//!
//! On a thread of its own, since a connection that waits for it is slow for as long. While no daemon runs nobody answers:
//! flows that are vetted go on, new ones take the kernel's path.

use std::{
    io,
    net::IpAddr,
    os::fd::{AsFd as _, AsRawFd as _, BorrowedFd},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use aya::maps::{HashMap, MapData, RingBuf};
use netfast_common::{
    flow::FlowKey,
    net::{Address, Ip4, Ip6},
    vet::{Answer, Request},
};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use tracing::{debug, warn};

use crate::{
    apply::conntrack::{self, Entry, Tuple},
    observe::NetlinkError,
    sys::netlink::NetlinkSocket,
};

/// The thread looks this often whether it shall end.
const LOOK: Duration = Duration::from_millis(500);
/// After so many questions without a pause the thread rests, so that containers that open conversations all the time do not
/// keep a CPU busy: some 40,000 a second are answered, the others' flows wait a little longer.
const BATCH: usize = 256;
/// For this long.
const POLL_INTERVAL: Duration = Duration::from_millis(5);
/// The thread's nice value.
const NICE: i32 = -10;
/// A failure is told again after this time.
const QUIET: Duration = Duration::from_mins(1);
/// IANA protocol number.
const TCP: u8 = 6;

/// Why flows cannot be vetted.
#[derive(Debug, thiserror::Error)]
pub enum VetError {
    /// Conntrack's netlink interface (`nf_conntrack_netlink`) is missing.
    #[error(transparent)]
    Netlink(#[from] NetlinkError),
    /// No thread.
    #[error("no thread")]
    Thread(#[source] io::Error),
}

/// Vets flows until it is dropped.
pub struct Vetter {
    end: Arc<AtomicBool>,
}

impl Vetter {
    /// Begins, in the network namespace of the calling thread.
    pub fn start(v4: Queue<Ip4>, v6: Queue<Ip6>) -> Result<Self, VetError> {
        let conntrack = NetlinkSocket::netfilter()?;
        let end = Arc::new(AtomicBool::new(false));
        let mut work = Work {
            v4,
            v6,
            clerk: Clerk { conntrack, told: None },
        };
        let is_over = Arc::clone(&end);
        let run = move || {
            be_quick();
            while !is_over.load(Ordering::Relaxed) {
                work.wait();
                work.answer_all(&is_over);
            }
        };
        let named = thread::Builder::new().name("netfast-vet".into());
        named.spawn(run).map_err(VetError::Thread)?;
        Ok(Self { end })
    }
}

impl Drop for Vetter {
    fn drop(&mut self) {
        self.end.store(true, Ordering::Relaxed);
    }
}

/// The questions about flows of one family, and where the answers go.
pub struct Queue<A: Address> {
    /// The questions.
    pub requests: RingBuf<MapData>,
    /// The answers.
    pub answers: HashMap<MapData, FlowKey<A>, Answer>,
}

struct Work {
    v4: Queue<Ip4>,
    v6: Queue<Ip6>,
    clerk: Clerk,
}

/// Who asks conntrack.
struct Clerk {
    conntrack: NetlinkSocket,
    /// When a failure was told last.
    told: Option<Instant>,
}

impl Work {
    fn wait(&self) {
        // SAFETY: the ring buffers are open as long as they live.
        let fds =
            [&self.v4.requests, &self.v6.requests].map(|ring| unsafe { BorrowedFd::borrow_raw(ring.as_raw_fd()) });
        let timeout = PollTimeout::try_from(LOOK).unwrap_or(PollTimeout::NONE);
        let mut polled = fds.each_ref().map(|fd| PollFd::new(fd.as_fd(), PollFlags::POLLIN));
        if poll(&mut polled, timeout).is_err() {
            // An interrupted call: whoever asks too often is not to keep a CPU busy.
            thread::sleep(Duration::from_millis(1));
        }
    }

    /// Of both families in turn.
    fn answer_all(&mut self, is_over: &AtomicBool) {
        for number in 1.. {
            if is_over.load(Ordering::Relaxed) {
                return;
            }
            let answered = [
                self.v4.answer_next(&mut self.clerk),
                self.v6.answer_next(&mut self.clerk),
            ];
            if !answered.contains(&true) {
                return;
            }
            if number % BATCH == 0 {
                thread::sleep(POLL_INTERVAL);
            }
        }
    }
}

impl<A: Vetted> Queue<A>
where
    FlowKey<A>: aya::Pod,
{
    /// Answers the oldest question, if there is one.
    fn answer_next(&mut self, clerk: &mut Clerk) -> bool {
        let Some(request) = self.next() else {
            return false;
        };
        let tuples = [request.key, request.reverse].map(|key| Tuple::of(&key.with_addresses(A::ip)));
        match clerk.judge(&tuples) {
            Ok(verdict) => {
                debug!("vetted {:?}: {verdict}", tuples[0]);
                self.answer(&request, verdict, clerk);
            }
            // It is asked again.
            Err(error) => clerk.complain(&format!("conntrack cannot be asked about a flow: {error}")),
        }
        true
    }

    fn next(&mut self) -> Option<Request<A>> {
        loop {
            let item = self.requests.next()?;
            if let Some(request) = Request::read(&item) {
                return Some(request);
            }
        }
    }

    fn answer(&mut self, request: &Request<A>, verdict: u32, clerk: &mut Clerk) {
        let answer = Answer {
            asked_ns: request.asked_ns,
            verdict,
            ..Answer::default()
        };
        for key in [request.key, request.reverse] {
            if let Err(error) = self.answers.insert(key, answer, 0) {
                clerk.complain(&format!("a flow cannot be let pass: {error}"));
            }
        }
    }
}

/// An address that conntrack can be asked about.
pub trait Vetted: Address {
    /// As the standard library has it.
    fn ip(self) -> IpAddr;
}

impl Vetted for Ip4 {
    fn ip(self) -> IpAddr {
        self.bytes().into()
    }
}

impl Vetted for Ip6 {
    fn ip(self) -> IpAddr {
        self.bytes().into()
    }
}

impl Clerk {
    /// Where netfast itself translates, conntrack knows only the other direction. A connection that it does not know at all
    /// passes no hook of its, or is not tracked by somebody's wish.
    fn judge(&mut self, tuples: &[Tuple; 2]) -> Result<u32, NetlinkError> {
        for tuple in tuples {
            match conntrack::entry(&mut self.conntrack, tuple)? {
                Entry::None => {}
                Entry::Helped => return Ok(Answer::HELPED),
                Entry::Plain => {
                    if tuple.protocol == TCP {
                        conntrack::be_liberal(&mut self.conntrack, tuple)?;
                    }
                    return Ok(Answer::CLEAR);
                }
            }
        }
        Ok(Answer::CLEAR)
    }

    fn complain(&mut self, text: &str) {
        if self.told.is_none_or(|told| told.elapsed() > QUIET) {
            warn!("{text}");
            self.told = Some(Instant::now());
        }
    }
}

/// Lets the calling thread run before whoever fills the CPUs with packets: a bulk transfer that waits for it sends a megabyte
/// in a millisecond. The service's sandbox forbids it, and its unit file says it for the whole daemon.
fn be_quick() {
    // SAFETY: no pointers; of the calling thread.
    let done = unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, NICE) };
    if done != 0 {
        debug!("the vetting thread keeps its priority: {}", io::Error::last_os_error());
    }
}
