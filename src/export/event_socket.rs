//! Events to a Unix socket that another program listens on.
//!
//! In: whole lines, in blocks. Out: the same lines on a stream, or one datagram a line. Runs on a thread of its own that
//! may wait for the reader. When the reader is away or slow, blocks wait up to a number of bytes; when that is full, whole
//! blocks are dropped and their lines counted. A stream that broke is resumed with the first line that the kernel had
//! not taken whole.

use std::io::{self, Write};
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crossbeam::channel::{Receiver, RecvTimeoutError, Sender, unbounded};

use super::outputs::{OutputCounters, count_lines};
use crate::config::{EventKind, EventSocket, SocketKind};

/// Bytes handed over at once.
const BLOCK: usize = 64 * 1024;
const RETRY: Duration = Duration::from_secs(1);
/// How long one write waits before the thread looks whether it should stop.
const PATIENCE: Duration = Duration::from_millis(250);
/// How long a stopping appliance goes on with what waits.
const LAST_EVENTS_WITHIN: Duration = Duration::from_secs(2);

/// The sending end, on the scorer's thread. Never waits.
#[derive(Debug)]
pub(super) struct SocketOutput {
    events: Vec<EventKind>,
    limit: usize,
    block: Vec<u8>,
    blocks: Option<Sender<Vec<u8>>>,
    done: Receiver<()>,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    /// Bytes on the way to the reader.
    waiting: AtomicUsize,
    /// What is not sent by then is lost.
    deadline: Mutex<Option<Instant>>,
    counters: Arc<OutputCounters>,
}

impl Shared {
    fn set_deadline(&self, deadline: Option<Instant>) {
        *self.deadline.lock().unwrap_or_else(PoisonError::into_inner) = deadline;
    }

    fn is_over(&self) -> bool {
        self.deadline.lock().unwrap_or_else(PoisonError::into_inner).is_some_and(|deadline| Instant::now() > deadline)
    }
}

impl SocketOutput {
    pub fn start(socket: &EventSocket) -> io::Result<Self> {
        let (blocks, incoming) = unbounded();
        let (finished, done) = unbounded();
        let counters = Arc::new(OutputCounters::new(socket.path.display().to_string()));
        let shared = Arc::new(Shared { waiting: AtomicUsize::new(0), deadline: Mutex::new(None), counters });
        let link = Link::new(socket);
        let theirs = shared.clone();
        thread::Builder::new().name("event-socket".into()).spawn(move || {
            send_all(link, &incoming, &theirs);
            // Nobody may listen any more.
            let _ = finished.send(());
        })?;
        let events = socket.events.clone();
        Ok(Self { events, limit: socket.buffer, block: Vec::new(), blocks: Some(blocks), done, shared })
    }

    pub fn counters(&self) -> &Arc<OutputCounters> {
        &self.shared.counters
    }

    /// Takes a line, with its newline.
    pub fn push(&mut self, kind: EventKind, line: &[u8]) {
        if self.events.contains(&kind) {
            self.block.extend_from_slice(line);
            if self.block.len() >= BLOCK {
                self.hand_over();
            }
        }
    }

    /// Lets go of what has gathered.
    pub fn hand_over(&mut self) {
        if self.block.is_empty() {
            return;
        }
        let block = std::mem::take(&mut self.block);
        let waiting = self.shared.waiting.fetch_add(block.len(), Ordering::Relaxed);
        if waiting + block.len() > self.limit {
            self.shared.waiting.fetch_sub(block.len(), Ordering::Relaxed);
            self.shared.counters.lost(count_lines(&block));
        } else if let Some(blocks) = &self.blocks {
            // Its thread ends only after this end is gone.
            let _ = blocks.send(block);
        }
    }

    /// Begins to send what waits within a limited time, or to count it as lost.
    pub fn hurry(&mut self) {
        self.hand_over();
        self.shared.set_deadline(Some(Instant::now() + LAST_EVENTS_WITHIN));
    }

    /// Waits until nothing waits any more; a thread that hangs is waited for only so long.
    pub fn settle(&mut self) {
        let end = Instant::now() + LAST_EVENTS_WITHIN + RETRY;
        // Its counters are read afterwards.
        while self.shared.waiting.load(Ordering::Acquire) > 0 && Instant::now() < end {
            thread::sleep(Duration::from_millis(2));
        }
    }

    /// More will come.
    pub fn relax(&mut self) {
        self.shared.set_deadline(None);
    }

    /// Sends what waits, for a limited time.
    pub fn finish(&mut self) {
        if self.blocks.is_some() {
            self.hurry();
            self.blocks = None;
            // One that waits for a reader that does not even accept is left behind.
            let _ = self.done.recv_timeout(LAST_EVENTS_WITHIN + RETRY);
        }
    }
}

impl Drop for SocketOutput {
    fn drop(&mut self) {
        self.finish();
    }
}

fn send_all(mut link: Link, incoming: &Receiver<Vec<u8>>, shared: &Shared) {
    loop {
        let block = match incoming.recv_timeout(PATIENCE) {
            Ok(block) => block,
            // Connected early, so that the first event finds the way open.
            Err(RecvTimeoutError::Timeout) => {
                link.connect(shared);
                continue;
            }
            Err(RecvTimeoutError::Disconnected) => return,
        };
        let mut rest = &block[..];
        while !rest.is_empty() {
            if shared.is_over() {
                shared.counters.lost(count_lines(rest));
                break;
            }
            if link.connect(shared) {
                rest = link.send(rest, shared);
            } else {
                thread::sleep(Duration::from_millis(20));
            }
        }
        shared.waiting.fetch_sub(block.len(), Ordering::Release);
    }
}

#[derive(Debug)]
enum Line {
    Stream(UnixStream),
    Datagram(UnixDatagram),
}

/// The connection, if there is one.
#[derive(Debug)]
struct Link {
    path: PathBuf,
    kind: SocketKind,
    line: Option<Line>,
    tried: Option<Instant>,
    /// The log knows that nobody listens.
    silent: bool,
    /// Connections made and broken, for a log that tells ever more seldom.
    made: u64,
    broken: u64,
}

impl Link {
    fn new(socket: &EventSocket) -> Self {
        let path = socket.path.clone();
        Self { path, kind: socket.kind, line: None, tried: None, silent: false, made: 0, broken: 0 }
    }

    /// True when there is a connection; tries to make one at most every [`RETRY`].
    fn connect(&mut self, shared: &Shared) -> bool {
        if self.line.is_some() {
            return true;
        }
        if self.tried.is_some_and(|at| at.elapsed() < RETRY) {
            return false;
        }
        self.tried = Some(Instant::now());
        match open(&self.path, self.kind) {
            Ok(line) => {
                self.made += 1;
                if self.made.is_power_of_two() {
                    log::info!("events go to {} (connected {} times)", self.path.display(), self.made);
                }
                (self.line, self.silent) = (Some(line), false);
            }
            Err(error) if !self.silent => {
                log::warn!("nobody takes events at {}: {error}; trying again every second", self.path.display());
                self.silent = true;
            }
            Err(_) => {}
        }
        shared.counters.set_connected(self.line.is_some());
        self.line.is_some()
    }

    /// Sends lines until all are gone, the reader is slow, or the connection breaks; returns what is left, beginning
    /// with a whole line, or with the rest of a line that the connection has the front of.
    fn send<'a>(&mut self, lines: &'a [u8], shared: &Shared) -> &'a [u8] {
        let mut sent = 0;
        let outcome = match &mut self.line {
            Some(Line::Stream(stream)) => send_stream(stream, lines, &mut sent, shared),
            Some(Line::Datagram(socket)) => send_datagrams(socket, lines, &mut sent, shared),
            None => return lines,
        };
        if let Err(error) = outcome {
            self.broken += 1;
            // The first time, and then ever more seldom.
            if self.broken.is_power_of_two() {
                log::warn!("{}: the reader is gone: {error} (gone {} times)", self.path.display(), self.broken);
            }
            // Not at once: it may be one that accepts and closes.
            (self.line, self.tried) = (None, Some(Instant::now()));
            shared.counters.set_connected(false);
            // A line that went out in part is sent again, whole.
            sent = lines[..sent].iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        }
        if self.kind == SocketKind::Stream {
            shared.counters.wrote(count_lines(&lines[..sent]), sent as u64);
        }
        &lines[sent..]
    }
}

fn open(path: &Path, kind: SocketKind) -> io::Result<Line> {
    match kind {
        SocketKind::Stream => {
            let stream = UnixStream::connect(path)?;
            stream.set_write_timeout(Some(PATIENCE))?;
            Ok(Line::Stream(stream))
        }
        SocketKind::Datagram => {
            let socket = UnixDatagram::unbound()?;
            socket.connect(path)?;
            socket.set_write_timeout(Some(PATIENCE))?;
            Ok(Line::Datagram(socket))
        }
    }
}

/// Sends everything, or fails once it is time to stop.
fn send_stream(stream: &mut UnixStream, lines: &[u8], sent: &mut usize, shared: &Shared) -> io::Result<()> {
    while *sent < lines.len() {
        match stream.write(&lines[*sent..]) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(n) => *sent += n,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if is_slow(&error) => {}
            Err(error) => return Err(error),
        }
        // Also when the reader takes a little now and then.
        if *sent < lines.len() && shared.is_over() {
            return Err(io::ErrorKind::TimedOut.into());
        }
    }
    Ok(())
}

fn send_datagrams(socket: &UnixDatagram, lines: &[u8], sent: &mut usize, shared: &Shared) -> io::Result<()> {
    while *sent < lines.len() {
        let rest = &lines[*sent..];
        let line = &rest[..rest.iter().position(|byte| *byte == b'\n').map_or(rest.len(), |at| at + 1)];
        match socket.send(line) {
            Ok(_) => {
                shared.counters.wrote(1, line.len() as u64);
                *sent += line.len();
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            // The reader is slow: the caller looks whether it is time to stop.
            Err(error) if is_slow(&error) || error.raw_os_error() == Some(libc::ENOBUFS) => return Ok(()),
            Err(error) if error.raw_os_error() == Some(libc::EMSGSIZE) => {
                shared.counters.lost(1);
                *sent += line.len();
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn is_slow(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use std::io::{BufRead, BufReader};
    use std::os::unix::net::UnixListener;

    fn socket(path: &Path, kind: SocketKind, buffer: usize) -> EventSocket {
        EventSocket { path: path.into(), kind, events: vec![EventKind::Flow], buffer }
    }

    fn line(n: usize) -> String {
        format!("{{\"seq\":{n},\"text\":\"{}\"}}\n", "x".repeat(n % 300))
    }

    fn number(line: &str) -> usize {
        serde_json::from_str::<serde_json::Value>(line).unwrap()["seq"].as_u64().unwrap() as usize
    }

    #[test]
    fn a_reader_that_comes_back_sees_what_it_missed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("eve.sock");
        let mut output = SocketOutput::start(&socket(&path, SocketKind::Stream, 1 << 20)).unwrap();
        let push = |output: &mut SocketOutput, numbers: std::ops::Range<usize>| {
            for n in numbers {
                output.push(EventKind::Flow, line(n).as_bytes());
                output.push(EventKind::Alert, b"not asked for\n");
            }
            output.hand_over();
        };
        push(&mut output, 0..100);
        let listener = UnixListener::bind(&path).unwrap();
        let first = BufReader::new(listener.accept().unwrap().0);
        let mut seen: Vec<usize> = first.lines().take(100).map(|line| number(&line.unwrap())).collect();
        // The first reader is gone, and so is its listener; a new one takes its place.
        drop(listener);
        std::fs::remove_file(&path).unwrap();
        push(&mut output, 100..2000);
        let listener = UnixListener::bind(&path).unwrap();
        let second = BufReader::new(listener.accept().unwrap().0);
        let reader = thread::spawn(move || second.lines().map(|line| number(&line.unwrap())).collect::<Vec<_>>());
        let counters = output.counters().clone();
        output.finish();
        seen.extend(reader.join().unwrap());
        assert_eq!(seen, (0..2000).collect::<Vec<_>>());
        assert_eq!((counters.lines(), counters.lost_lines()), (2000, 0));
    }

    #[test]
    fn what_does_not_fit_is_counted_and_missing_in_the_numbers() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("eve.sock");
        let mut output = SocketOutput::start(&socket(&path, SocketKind::Stream, 1 << 20)).unwrap();
        let began = Instant::now();
        for n in 0..20_000 {
            output.push(EventKind::Flow, line(n).as_bytes());
        }
        output.hand_over();
        assert!(began.elapsed() < Duration::from_secs(1), "the scorer does not wait");
        let counters = output.counters().clone();
        assert!(counters.lost_lines() > 1000);
        let listener = UnixListener::bind(&path).unwrap();
        let stream = BufReader::new(listener.accept().unwrap().0);
        let reader = thread::spawn(move || stream.lines().map(|line| number(&line.unwrap())).collect::<Vec<_>>());
        output.finish();
        let seen = reader.join().unwrap();
        assert!(seen.is_sorted());
        assert_eq!(seen.len() as u64, counters.lines());
        assert_eq!(seen.len() as u64 + counters.lost_lines(), 20_000);
    }

    #[test]
    fn datagrams_carry_one_line_each_and_a_stuck_reader_holds_nobody_up() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("eve.sock");
        let reader = UnixDatagram::bind(&path).unwrap();
        let mut output = SocketOutput::start(&socket(&path, SocketKind::Datagram, 1 << 20)).unwrap();
        for n in 0..5000 {
            output.push(EventKind::Flow, line(n).as_bytes());
        }
        let mut bytes = [0; 1000];
        for n in 0..100 {
            let len = reader.recv(&mut bytes).unwrap();
            assert_eq!(std::str::from_utf8(&bytes[..len]).unwrap(), line(n));
        }
        let counters = output.counters().clone();
        let began = Instant::now();
        output.finish();
        assert!(began.elapsed() < Duration::from_secs(5));
        // What the kernel holds for the reader counts as written.
        assert_eq!(counters.lines() + counters.lost_lines(), 5000);
        assert!(counters.lines() >= 100 && counters.lost_lines() > 0);
    }

    #[test]
    fn a_reader_that_accepts_and_closes_is_not_called_again_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("eve.sock");
        let listener = UnixListener::bind(&path).unwrap();
        let calls = Arc::new(AtomicUsize::new(0));
        let counted = calls.clone();
        thread::spawn(move || {
            listener.incoming().for_each(|_| {
                counted.fetch_add(1, Ordering::Relaxed);
            });
        });
        let mut output = SocketOutput::start(&socket(&path, SocketKind::Stream, 1 << 20)).unwrap();
        let began = Instant::now();
        for n in 0.. {
            output.push(EventKind::Flow, line(n).as_bytes());
            output.hand_over();
            thread::sleep(Duration::from_millis(5));
            if began.elapsed() > Duration::from_millis(1500) {
                break;
            }
        }
        let calls = calls.load(Ordering::Relaxed);
        assert!((1..=3).contains(&calls), "called {calls} times in 1.5 s");
    }

    #[test]
    fn at_the_end_every_line_is_sent_or_counted_though_the_reader_trickles() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("eve.sock");
        let listener = UnixListener::bind(&path).unwrap();
        thread::spawn(move || {
            let mut stream = listener.accept().unwrap().0;
            let mut bytes = [0; 4096];
            while io::Read::read(&mut stream, &mut bytes).is_ok_and(|n| n > 0) {
                thread::sleep(Duration::from_millis(100));
            }
        });
        let mut output = SocketOutput::start(&socket(&path, SocketKind::Stream, 16 << 20)).unwrap();
        (0..20_000).for_each(|n| output.push(EventKind::Flow, line(n).as_bytes()));
        let (counters, began) = (output.counters().clone(), Instant::now());
        output.hurry();
        output.settle();
        assert_eq!(counters.lines() + counters.lost_lines(), 20_000);
        assert!(counters.lines() > 0 && counters.lost_lines() > 0);
        assert!(began.elapsed() < LAST_EVENTS_WITHIN + RETRY, "{:?}", began.elapsed());
        output.finish();
        assert_eq!(counters.lines() + counters.lost_lines(), 20_000);
    }
}
