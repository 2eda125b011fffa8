//! Accepts clients and answers them, each on a thread of its own.

use std::io::{self, BufRead, BufReader, ErrorKind, Read};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};

use super::live::Live;
use super::protocol::{Failure, Hello, LONGEST_REQUEST, Refusal, Request};
use super::reply::Reply;
use super::socket::Listening;
use super::verbs::{self, Verb};
use super::{MOST_CLIENTS, PATIENCE};

/// How often threads that wait look whether to stop.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// How long a connection may be silent between requests, and within one.
const IDLE: Duration = Duration::from_secs(300);
const WITHIN_REQUEST: Duration = Duration::from_secs(10);
/// How long clients are waited for at the end.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// A running server; stops when dropped.
#[derive(Debug)]
pub struct Server {
    shared: Arc<Shared>,
    path: PathBuf,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    live: Arc<Live>,
    verbs: &'static [Verb],
    clients: AtomicUsize,
    stop: Arc<AtomicBool>,
}

impl Server {
    /// Answers with all verbs there are.
    ///
    /// # Errors
    /// No thread can be made.
    pub fn start(listening: Listening, live: Arc<Live>) -> Result<Self> {
        Self::with_verbs(listening, live, verbs::VERBS)
    }

    /// Answers with these verbs.
    ///
    /// # Errors
    /// No thread can be made.
    pub fn with_verbs(listening: Listening, live: Arc<Live>, verbs: &'static [Verb]) -> Result<Self> {
        listening.listener.set_nonblocking(true)?;
        let path = listening.path().to_owned();
        let shared = Arc::new(Shared { live, verbs, clients: AtomicUsize::new(0), stop: Arc::default() });
        let own = shared.clone();
        let thread = thread::Builder::new()
            .name("control".into())
            .spawn(move || accept(&own, &listening))
            .context("starting the control thread")?;
        Ok(Self { shared, path, thread: Some(thread) })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Clients now.
    pub fn clients(&self) -> usize {
        self.shared.clients.load(Ordering::Relaxed)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
        // Those who wait look up often; who is stuck in writing is left behind.
        let until = Instant::now() + LAST_WORDS;
        while self.clients() > 0 && Instant::now() < until {
            thread::sleep(Duration::from_millis(5));
        }
    }
}

fn accept(shared: &Arc<Shared>, listening: &Listening) {
    while !shared.stop.load(Ordering::Relaxed) {
        match listening.listener.accept() {
            Ok((stream, _)) => welcome(shared, stream),
            Err(error) if error.kind() == ErrorKind::WouldBlock => wait_readable(&listening.listener, LOOK_EVERY),
            Err(error) => {
                // Such as no file descriptor left: goes by, or is said again.
                log::warn!("control socket: {error}");
                thread::sleep(LOOK_EVERY);
            }
        }
    }
}

fn wait_readable(file: &impl AsFd, limit: Duration) {
    let limit = PollTimeout::try_from(limit).unwrap_or(PollTimeout::ZERO);
    let _ = poll(&mut [PollFd::new(file.as_fd(), PollFlags::POLLIN)], limit);
}

fn welcome(shared: &Arc<Shared>, stream: UnixStream) {
    let place = Seat::take(shared);
    let full = place.is_none();
    let own = shared.clone();
    let begun = thread::Builder::new().name("client".into()).spawn(move || {
        let _seat = place;
        if let Err(error) = serve(&own, stream, full) {
            log::debug!("control client: {error}");
        }
    });
    if let Err(error) = begun {
        log::warn!("control client turned away: {error}");
    }
}

/// One of the bounded places; given back when dropped.
struct Seat(Arc<Shared>);

impl Seat {
    fn take(shared: &Arc<Shared>) -> Option<Self> {
        let room = |n: usize| (n < MOST_CLIENTS).then_some(n + 1);
        let taken = shared.clients.fetch_update(Ordering::Relaxed, Ordering::Relaxed, room);
        taken.is_ok().then(|| Self(shared.clone()))
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.0.clients.fetch_sub(1, Ordering::Relaxed);
    }
}

fn serve(shared: &Shared, stream: UnixStream, full: bool) -> io::Result<()> {
    // Accepted sockets may have inherited it.
    stream.set_nonblocking(false)?;
    stream.set_write_timeout(Some(PATIENCE))?;
    stream.set_read_timeout(Some(LOOK_EVERY))?;
    let who = peer(&stream);
    let mut reply = Reply::new(stream.try_clone()?, shared.stop.clone());
    let mut lines = BufReader::new(stream);
    if full {
        let refusal = Refusal::new("busy", format!("{MOST_CLIENTS} clients are connected already; try again later"));
        return finish(&mut reply, Err(refusal.into()));
    }
    say(reply.line(&Hello::own()))?;
    say(reply.flush())?;
    while let Some(line) = next_request(shared, &mut lines)? {
        let outcome = line.and_then(|line| Request::parse(&line)).map_err(Failure::from);
        let outcome = outcome.and_then(|request| answer(shared, &request, &who, &mut reply));
        finish(&mut reply, outcome)?;
    }
    Ok(())
}

fn answer(shared: &Shared, request: &Request, who: &str, reply: &mut Reply) -> Result<(), Failure> {
    let Some(verb) = shared.verbs.iter().find(|verb| verb.name == request.verb) else {
        let known: Vec<&str> = shared.verbs.iter().map(|verb| verb.name).collect();
        let message = format!("there is no verb `{}`; there are {}", request.verb, known.join(", "));
        return Err(Refusal::new("unknown_verb", message).into());
    };
    if (verb.changes)(request) {
        log::info!("control: `{}` by {who}", verb.name);
    }
    (verb.run)(&shared.live, request, reply)
}

/// The last line of an answer.
fn finish(reply: &mut Reply, outcome: Result<(), Failure>) -> io::Result<()> {
    match outcome {
        Ok(()) => say(reply.end())?,
        Err(Failure::Refused(refusal)) => say(reply.refuse(&refusal))?,
        Err(Failure::Gone(error)) => return Err(error),
    }
    say(reply.flush())
}

fn say(outcome: Result<(), Failure>) -> io::Result<()> {
    match outcome {
        Err(Failure::Gone(error)) => Err(error),
        _ => Ok(()),
    }
}

/// The next line without its newline; `None` when the client has no more or the server stops.
fn next_request(shared: &Shared, lines: &mut BufReader<UnixStream>) -> io::Result<Option<Result<Vec<u8>, Refusal>>> {
    let mut line = Vec::new();
    let mut since = Instant::now();
    loop {
        if shared.stop.load(Ordering::Relaxed) {
            return Ok(None);
        }
        let room = (LONGEST_REQUEST + 1).saturating_sub(line.len() as u64);
        let had = line.len();
        match lines.by_ref().take(room).read_until(b'\n', &mut line) {
            Ok(_) if line.last() == Some(&b'\n') => {
                line.pop();
                return Ok(Some(Ok(line)));
            }
            Ok(_) if line.len() as u64 > LONGEST_REQUEST => {
                // Where the next request begins nobody knows.
                read_no_more(lines)?;
                return Ok(Some(Err(Refusal::new(
                    "bad_request",
                    format!("a request of more than {LONGEST_REQUEST} bytes"),
                ))));
            }
            Ok(0) if line.is_empty() => return Ok(None),
            Ok(_) => return Ok(Some(Ok(line))),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
        if had == 0 && !line.is_empty() {
            since = Instant::now();
        }
        let limit = if line.is_empty() { IDLE } else { WITHIN_REQUEST };
        if since.elapsed() > limit {
            return Err(ErrorKind::TimedOut.into());
        }
    }
}

/// Nothing more is read from this client.
fn read_no_more(lines: &mut BufReader<UnixStream>) -> io::Result<()> {
    lines.get_ref().shutdown(std::net::Shutdown::Read)?;
    lines.consume(lines.buffer().len());
    Ok(())
}

/// Who is on the other side, for the log.
fn peer(stream: &UnixStream) -> String {
    match getsockopt(stream, PeerCredentials) {
        Ok(peer) => format!("uid {} gid {} pid {}", peer.uid(), peer.gid(), peer.pid()),
        Err(error) => format!("somebody unknown ({error})"),
    }
}
