//! The daemon of the host's namespace, as one sees it that serves an overlay network's: the configuration comes by standard
//! input, a line of JSON each time that it changes. When that ends so does who reads it: the other one has ended, however that
//! was, or wants it to.

use std::{
    io::{self, BufRead as _},
    thread,
};

use tokio::sync::mpsc;
use tracing::error;

use crate::config::Config;

/// The other end.
pub struct Parent {
    told: mpsc::Receiver<Config>,
}

impl Parent {
    /// Reads the first configuration, and listens for others from now on.
    pub fn listen() -> io::Result<(Config, Self)> {
        let mut first = String::new();
        io::stdin().lock().read_line(&mut first)?;
        let config = serde_json::from_str(&first).map_err(io::Error::other)?;
        let (tell, told) = mpsc::channel(1);
        // It ends with the process.
        thread::Builder::new()
            .name("netfast-parent".into())
            .spawn(move || listen(&tell))?;
        Ok((config, Self { told }))
    }

    /// The next configuration; `None`: it is to end.
    pub async fn next(&mut self) -> Option<Config> {
        self.told.recv().await
    }
}

fn listen(tell: &mpsc::Sender<Config>) {
    for line in io::stdin().lock().lines() {
        let Ok(line) = line else { return };
        match serde_json::from_str(&line) {
            Ok(config) => {
                if tell.blocking_send(config).is_err() {
                    return;
                }
            }
            Err(error) => error!("what the host's daemon says is not a configuration: {error}"),
        }
    }
}
