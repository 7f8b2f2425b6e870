//! Real conversations, and the part of their packets that took the fast path.

use std::{
    io::{self, Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener, TcpStream, UdpSocket},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use netfast::apply::read::Tables;
use netfast_common::reason::{Count, FAST, Reason};
use netfast_tests::netns::NsHandle;

use super::super::lab::{Echo, Lab};

/// Questions that are not counted: 50 packets of each direction and more.
const WARM: usize = 60;
/// Questions that are.
const COUNTED: usize = 120;
/// The first answer may wait for a neighbour to be found.
const FIRST: Duration = Duration::from_millis(400);
/// So many questions in vain, one after the other, and nobody answers any more.
const TRIES: usize = 3;

/// No packets that could be fast, whatever is said of them.
const NOT_COUNTED: [Reason; 5] = [
    Reason::NotIp,
    Reason::OtherProtocol,
    Reason::NotUnicast,
    Reason::TcpSyn,
    Reason::Revalidate,
];

/// Servers of both kinds on a port of a namespace, until dropped.
pub struct Server {
    _datagrams: Echo,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
    at: SocketAddrV4,
    ns: NsHandle,
}

impl Server {
    pub fn start(ns: &NsHandle, ip: Ipv4Addr, port: u16) -> Self {
        let at = SocketAddrV4::new(ip, port);
        let listener = ns.run(|| TcpListener::bind(at)).expect("entered").expect("a free port");
        let stop = Arc::new(AtomicBool::new(false));
        let thread = {
            let stop = Arc::clone(&stop);
            thread::spawn(move || {
                while let Ok((stream, _)) = listener.accept() {
                    if stop.load(Ordering::Relaxed) {
                        return;
                    }
                    // It ends with its client, which every test drops.
                    thread::spawn(move || drop(answer(stream)));
                }
            })
        };
        Self {
            _datagrams: Echo::at(ns, ip, port),
            stop,
            thread: Some(thread),
            at,
            ns: ns.clone(),
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let at = self.at;
        // What it waits for; to the host's own addresses by its loopback.
        let _woken = self.ns.run(|| TcpStream::connect(at));
        if let Some(thread) = self.thread.take() {
            let _panicked = thread.join();
        }
    }
}

fn answer(mut stream: TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut data = [0; 2048];
    loop {
        let length = stream.read(&mut data)?;
        if length == 0 {
            return Ok(());
        }
        stream.write_all(&data[..length])?;
    }
}

/// One end of a conversation; it lives until dropped.
pub enum Conversation {
    Datagrams(UdpSocket),
    Stream(TcpStream),
}

/// What became of one.
pub struct Outcome {
    /// It goes on.
    pub conversation: Option<Conversation>,
    /// Questions were answered.
    pub is_answered: bool,
    /// Packets that took the fast path, of those that were counted.
    pub fast: u64,
    /// All that were counted.
    pub all: u64,
    /// Why the others did not, and what became of those that could have been learned.
    pub reasons: Vec<(Reason, u64)>,
    /// The sender itself could not send.
    pub is_refused: Option<String>,
}

impl Outcome {
    /// The fast path's part.
    pub fn share(&self) -> f64 {
        if self.all == 0 {
            0.0
        } else {
            self.fast as f64 / self.all as f64
        }
    }
}

/// Opens a conversation and talks.
pub fn talk(lab: &Lab, ns: &NsHandle, to: SocketAddr, is_tcp: bool, length: usize) -> Outcome {
    let before = counts(lab);
    let mut outcome = Outcome {
        conversation: None,
        is_answered: false,
        fast: 0,
        all: 0,
        reasons: Vec::new(),
        is_refused: None,
    };
    let mut conversation = match open(ns, to, is_tcp) {
        Ok(conversation) => conversation,
        Err(error) => {
            outcome.count(&before, &counts(lab), 0);
            outcome.is_refused = Some(error)
                .filter(|error| !is_silence(error))
                .map(|error| error.to_string());
            return outcome;
        }
    };
    let (answered, error) = conversation.ask_all(WARM, length);
    outcome.is_refused = error.filter(|error| !is_silence(error)).map(|error| error.to_string());
    if answered == 0 {
        outcome.count(&before, &counts(lab), 0);
        return outcome;
    }
    let before = counts(lab);
    let (answered, _) = conversation.ask_all(COUNTED, length);
    outcome.is_answered = answered > COUNTED / 2;
    outcome.count(&before, &counts(lab), 2 * answered as u64);
    outcome.conversation = Some(conversation);
    outcome
}

/// Whether nobody answers, and not: the sender could not send.
fn is_silence(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock)
}

fn open(ns: &NsHandle, to: SocketAddr, is_tcp: bool) -> io::Result<Conversation> {
    ns.run(|| {
        if is_tcp {
            let stream = TcpStream::connect_timeout(&to, FIRST)?;
            stream.set_nodelay(true)?;
            stream.set_read_timeout(Some(FIRST))?;
            return Ok(Conversation::Stream(stream));
        }
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
        socket.connect(to)?;
        socket.set_read_timeout(Some(FIRST))?;
        Ok(Conversation::Datagrams(socket))
    })
    .expect("entered")
}

impl Conversation {
    /// Asks so often, until nobody answers any more; how many were answered, and the last error.
    fn ask_all(&mut self, questions: usize, length: usize) -> (usize, Option<io::Error>) {
        let (mut answered, mut in_vain, mut last) = (0, 0, None);
        for _ in 0..questions {
            match self.ask(length) {
                Ok(()) => {
                    answered += 1;
                    in_vain = 0;
                }
                Err(error) => {
                    last = Some(error);
                    in_vain += 1;
                }
            }
            if in_vain == TRIES {
                break;
            }
        }
        (answered, last)
    }

    /// Asks, and awaits the echo.
    fn ask(&mut self, length: usize) -> io::Result<()> {
        let question = vec![b'q'; length];
        let mut answer = [0; 2048];
        match self {
            Self::Datagrams(socket) => {
                socket.send(&question)?;
                socket.recv(&mut answer).map(drop)
            }
            Self::Stream(stream) => {
                stream.write_all(&question)?;
                stream.read_exact(&mut answer[..length])
            }
        }
    }
}

fn counts(lab: &Lab) -> Vec<Count> {
    let tables = Tables::open(lab.netfast.pin_dir()).expect("the maps are pinned");
    tables.reasons().expect("the counts")
}

impl Outcome {
    /// Takes the difference; where netfast is not attached nothing is counted, so at least these packets were there.
    fn count(&mut self, before: &[Count], after: &[Count], at_least: u64) {
        let since = |index: u32| after[index as usize].packets - before[index as usize].packets;
        self.fast = since(FAST);
        let all = Reason::ALL.iter().map(|reason| (*reason, since(reason.number())));
        self.reasons = all.filter(|(_, packets)| *packets > 0).collect();
        let slow = self.reasons.iter();
        let slow: u64 = slow
            .filter(|(reason, _)| reason.is_slow() && !NOT_COUNTED.contains(reason))
            .map(|(_, packets)| packets)
            .sum();
        self.all = (self.fast + slow).max(at_least);
    }
}
