//! Who counts what could have changed the ends: a thread that listens to what the kernel says of what drivers can do with frames. A veth
//! says that the other end takes none any more before it takes NAPI away (`veth_set_features`, drivers/net/veth.c), so that
//! what is lost is what comes in until the thread has run.

use std::{
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread::{self, JoinHandle},
};

use aya::maps::{Array, MapData, MapError};
use netfast_common::xdp::CHANGES;

use crate::observe::xdp::Changes;

/// The map of numbers, which the thread counts in, too.
#[derive(Clone)]
pub struct State(Arc<Mutex<Array<MapData, u64>>>);

impl State {
    pub fn new(map: Array<MapData, u64>) -> Self {
        Self(Arc::new(Mutex::new(map)))
    }

    pub fn get(&self, index: u32) -> Result<u64, MapError> {
        self.map().get(&index, 0)
    }

    pub fn set(&self, index: u32, number: u64) -> Result<(), MapError> {
        self.map().set(index, number, 0)
    }

    /// Something may have changed.
    pub fn count(&self) -> Result<(), MapError> {
        let mut map = self.map();
        let number: u64 = map.get(&CHANGES, 0)?;
        map.set(CHANGES, number.wrapping_add(1), 0)
    }

    fn map(&self) -> MutexGuard<'_, Array<MapData, u64>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The thread; it ends with the process.
pub struct Watch(JoinHandle<()>);

impl Watch {
    pub fn start(state: &State) -> io::Result<Self> {
        let mut changes = Changes::new().map_err(io::Error::other)?;
        let state = state.clone();
        let listen = move || {
            // What cannot be heard or counted any more ends the thread, and with it XDP.
            while changes.wait().is_ok() && state.count().is_ok() {}
        };
        let thread = thread::Builder::new().name("netfast-xdp".into()).spawn(listen)?;
        Ok(Self(thread))
    }

    pub fn has_ended(&self) -> bool {
        self.0.is_finished()
    }
}
