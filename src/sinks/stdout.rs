//! A sink on standard output: one line for each entry. The log lines of the process are on standard error.

use std::{
    io::{self, Write as _},
    path::Path,
    sync::Arc,
};

use async_trait::async_trait;
use tokio::sync::Mutex;

use super::{EntrySink, SinkEntry, SinkFault, lines};

/// The sink.
pub(super) struct StdoutSink {
    /// Held by the thread that writes: if nobody reads, one thread waits, and no second one.
    turn: Arc<Mutex<()>>,
}

impl StdoutSink {
    pub(super) fn new() -> Self {
        Self { turn: Arc::default() }
    }
}

#[async_trait]
impl EntrySink for StdoutSink {
    async fn send(&mut self, batch: &[SinkEntry]) -> Result<(), SinkFault> {
        let turn = Arc::clone(&self.turn).try_lock_owned().map_err(|_| SinkFault::Busy)?;
        let text = lines(batch);
        let write = move || {
            let _turn = turn;
            let mut out = io::stdout().lock();
            out.write_all(&text)?;
            out.flush()
        };
        let written = tokio::task::spawn_blocking(write).await;
        written.map_err(io::Error::other).flatten().map_err(|error| SinkFault::write(Path::new("standard output"), error))
    }

    async fn probe(&mut self) -> Result<String, SinkFault> {
        Ok("standard output needs no connection".to_owned())
    }
}
