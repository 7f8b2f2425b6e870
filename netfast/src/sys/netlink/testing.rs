//! A kernel that answers by a script.

use std::collections::VecDeque;
use std::io;

use super::socket::Transport;
use super::{Messages, NetlinkError, NetlinkSocket};

/// A message as a test gives it: kind, flags and payload; its number is that of the last request.
pub type Said = (u16, u16, Vec<u8>);

/// What is received at one time.
pub enum Receipt {
    /// A datagram of messages that answer the last request.
    Whole(Vec<Said>),
    /// The same, with the first message's length made wrong.
    Lying(Vec<Said>),
    /// The same, of which only so many bytes fit.
    Cut(Vec<Said>, usize),
    /// An errno.
    Errno(i32),
}

/// Answers each receipt by the next line of the script.
#[derive(Default)]
pub struct Script {
    receipts: VecDeque<Receipt>,
    /// Kinds and numbers of the requests of each datagram that was sent.
    pub sent: Vec<Vec<(u16, u32)>>,
    /// How often it was opened anew.
    pub reopened: usize,
}

/// A socket to a kernel that says this.
pub fn socket(receipts: impl IntoIterator<Item = Receipt>) -> NetlinkSocket<Script> {
    NetlinkSocket::over(Script {
        receipts: receipts.into_iter().collect(),
        ..Script::default()
    })
}

impl Script {
    /// The bytes of messages; of several requests at once, they answer one each.
    fn datagram(&self, said: &[Said]) -> Vec<u8> {
        let requests = self.sent.last().expect("nothing was asked");
        let seq = |at: usize| requests.get(at).or(requests.last()).map_or(0, |(_, seq)| *seq);
        let messages = said.iter().enumerate().map(|(at, (kind, flags, payload))| {
            let request = super::Request::new(*kind, *flags, payload);
            request.finish(seq(at))
        });
        messages.collect::<Vec<_>>().concat()
    }
}

impl Transport for Script {
    fn reopen(&mut self) -> Result<(), NetlinkError> {
        self.reopened += 1;
        Ok(())
    }

    fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        let requests = Messages(bytes).map(|message| message.expect("our own request"));
        self.sent
            .push(requests.map(|message| (message.kind, message.seq)).collect());
        Ok(())
    }

    fn receive(&mut self, buffer: &mut Vec<u8>) -> io::Result<usize> {
        let (mut bytes, fits) = match self.receipts.pop_front().expect("the script is over") {
            Receipt::Whole(said) => (self.datagram(&said), usize::MAX),
            Receipt::Lying(said) => {
                let mut bytes = self.datagram(&said);
                bytes[1] = 0xff;
                (bytes, usize::MAX)
            }
            Receipt::Cut(said, fits) => (self.datagram(&said), fits),
            Receipt::Errno(errno) => return Err(io::Error::from_raw_os_error(errno)),
        };
        let length = bytes.len();
        bytes.truncate(fits);
        *buffer = bytes;
        Ok(length)
    }
}
