//! The way back to one client.

use std::io::{self, BufWriter, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{MsgFlags, recv};
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::protocol::{Failure, Refusal};

const BUFFER: usize = 64 * 1024;

/// Writes the lines of an answer. What is written waits for [`flush`](Reply::flush), the end of the answer or a full
/// buffer.
#[derive(Debug)]
pub struct Reply {
    out: BufWriter<UnixStream>,
    stop: Arc<AtomicBool>,
    end: Map<String, Value>,
}

impl Reply {
    pub(super) fn new(stream: UnixStream, stop: Arc<AtomicBool>) -> Self {
        Self { out: BufWriter::with_capacity(BUFFER, stream), stop, end: Map::new() }
    }

    /// What the last line of the answer says besides that it is the last.
    pub fn at_end(&mut self, name: &str, value: impl Into<Value>) {
        self.end.insert(name.to_owned(), value.into());
    }

    /// The last line; begins another answer.
    pub(super) fn end(&mut self) -> Result<(), Failure> {
        let mut line = Map::from_iter([("end".to_owned(), Value::Bool(true))]);
        line.append(&mut self.end);
        self.line(&line)
    }

    /// The last line of an answer that was not completed.
    pub(super) fn refuse(&mut self, refusal: &Refusal) -> Result<(), Failure> {
        self.end.clear();
        self.line(&json!({ "error": refusal }))
    }

    /// One object.
    ///
    /// # Errors
    /// The client is gone, or too slow.
    pub fn line(&mut self, line: &impl Serialize) -> Result<(), Failure> {
        let written = serde_json::to_writer(&mut self.out, line).map_err(io::Error::from);
        written.and_then(|()| self.out.write_all(b"\n")).map_err(Failure::Gone)
    }

    /// A line that is JSON already, with its newline.
    ///
    /// # Errors
    /// The client is gone, or too slow.
    pub fn raw_line(&mut self, line: &[u8]) -> Result<(), Failure> {
        self.out.write_all(line).map_err(Failure::Gone)
    }

    /// Bytes as they are.
    ///
    /// # Errors
    /// The client is gone, or too slow.
    pub fn binary(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        self.line(&json!({ "binary": bytes.len() }))?;
        self.out.write_all(bytes).map_err(Failure::Gone)
    }

    /// Sends what is written so far.
    ///
    /// # Errors
    /// The client is gone, or too slow.
    pub fn flush(&mut self) -> Result<(), Failure> {
        self.out.flush().map_err(Failure::Gone)
    }

    /// The client will ask nothing more: it has closed its sending side, or is gone. Ends what goes on without end.
    pub fn is_half_closed(&self) -> bool {
        let flags = MsgFlags::MSG_PEEK | MsgFlags::MSG_DONTWAIT;
        // Nothing to read for now is an error; nothing ever again is zero bytes.
        matches!(recv(self.out.get_ref().as_raw_fd(), &mut [0], flags), Ok(0))
    }

    /// To be asked while there is nothing to write, a few times a second.
    ///
    /// # Errors
    /// The client is gone, or the appliance stops.
    pub fn check(&self) -> Result<(), Failure> {
        if self.stop.load(Ordering::Relaxed) {
            return Err(Refusal::new("stopping", "the appliance stops").into());
        }
        let mut about = [PollFd::new(self.out.get_ref().as_fd(), PollFlags::empty())];
        // A client that only closed its sending side still listens: that is no hang-up.
        let ready = poll(&mut about, PollTimeout::ZERO).unwrap_or(0);
        let gone = PollFlags::POLLHUP | PollFlags::POLLERR | PollFlags::POLLNVAL;
        if ready > 0 && about[0].revents().is_some_and(|events| events.intersects(gone)) {
            return Err(Failure::Gone(io::ErrorKind::BrokenPipe.into()));
        }
        Ok(())
    }
}
