//! The outputs of a run: files and sockets.
//!
//! Lines are made on the scorer's thread and gathered in blocks; a thread of its own writes the blocks, so that neither
//! a slow disk nor a change of files holds the scorer up. Live, a block that finds no room is dropped and its lines are
//! counted; in a replay the scorer waits.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, SystemTime};

use crossbeam::channel::{Receiver, RecvTimeoutError, Sender, TrySendError, bounded, unbounded};
use serde::Serialize;

use super::decisions::write_decision;
use super::eve::{Names, write_alert, write_flow, write_line};
use super::event_socket::SocketOutput;
use super::health::{OutageAlert, PressureAlert, StatsEvent};
use super::log_file::{LogFile, Stopped, compress, left_over};
use super::outputs::{OutputCounters, count_lines};
use super::pairs::write_pair;
use crate::behaviour::{AlertEvent, PairInterval, ScoredRecord};
use crate::config::{self, EventKind, Rotation};
use crate::mirror::control::Decision;

/// Bytes gathered before a write.
const BLOCK: usize = 256 * 1024;
/// Blocks that may wait for the disk: with 256 KiB each, 16 MiB.
const WAITING: usize = 64;
const CHECK_EVERY: Duration = Duration::from_secs(1);
const KINDS: [(EventKind, &str); 5] = [
    (EventKind::Flow, "flows.jsonl"),
    (EventKind::Alert, "alerts.jsonl"),
    (EventKind::Stats, "stats.jsonl"),
    (EventKind::Decision, "decisions.jsonl"),
    (EventKind::Pair, "pairs.jsonl"),
];

/// An output file could not be made or written.
#[derive(Debug, thiserror::Error)]
#[error("cannot write {path}: {source}; check that the folder exists, is writable and has room")]
pub struct ExportError {
    pub path: PathBuf,
    pub source: io::Error,
}

/// `flows.jsonl`, `alerts.jsonl`, `pairs.jsonl`, live also `stats.jsonl`, `decisions.jsonl` where mirrors adapt, and sockets, of one run.
///
/// `alerts.jsonl` gets one line per episode, when it is closed; in live use also when it opens and grows.
/// `suggestions.jsonl` stays empty in this version: nothing proposes rule changes yet, but scripts find the file.
#[derive(Debug)]
pub struct Files {
    /// By [`KINDS`].
    streams: [Option<Stream>; KINDS.len()],
    sockets: Vec<SocketOutput>,
    paths: Vec<PathBuf>,
    writer: Option<Writer>,
    line: Vec<u8>,
    /// Alerts are told when they open, not only when they are over; nothing waits for the disk.
    live: bool,
}

/// Lines on their way to one file.
#[derive(Debug)]
struct Stream {
    block: Vec<u8>,
    counters: Arc<OutputCounters>,
}

#[derive(Debug)]
struct Writer {
    blocks: Sender<(usize, Vec<u8>)>,
    /// Blocks handed over and not yet done with.
    waiting: Arc<AtomicUsize>,
    thread: JoinHandle<Result<(), ExportError>>,
}

impl Files {
    /// For one run over a finite input: makes the folder, replaces files of an earlier run.
    pub fn create(directory: &Path, decisions: bool) -> Result<Self, ExportError> {
        let once = config::Export { directory: directory.into(), stats: None, decisions, ..config::Export::default() };
        Self::open(&once, false)
    }

    /// For live use: makes the folder, appends; which files and sockets is up to the configuration.
    pub fn append(export: &config::Export) -> Result<Self, ExportError> {
        Self::open(export, true)
    }

    fn open(export: &config::Export, live: bool) -> Result<Self, ExportError> {
        let directory = &export.directory;
        let fail = |path: &Path| {
            let path = path.to_path_buf();
            move |source| ExportError { path, source }
        };
        fs::create_dir_all(directory).map_err(fail(directory))?;
        let wanted = [export.flows, export.alerts, export.stats.is_some(), export.decisions, export.pairs];
        let mut streams = [const { None }; KINDS.len()];
        let mut files = [const { None }; KINDS.len()];
        let mut paths = Vec::new();
        for (at, (_, name)) in KINDS.iter().enumerate().filter(|(at, _)| wanted[*at]) {
            let path = directory.join(name);
            let file = LogFile::open(path.clone(), live, export.rotation.clone()).map_err(fail(&path))?;
            let counters = Arc::new(OutputCounters::new((*name).to_owned()));
            counters.set_connected(true);
            files[at] = Some((file, counters.clone()));
            streams[at] = Some(Stream { block: Vec::new(), counters });
            paths.push(path);
        }
        let suggestions = directory.join("suggestions.jsonl");
        LogFile::open(suggestions.clone(), live, Rotation::default()).map_err(fail(&suggestions))?;
        paths.push(suggestions);
        let sockets = if live { &export.sockets[..] } else { &[] };
        let sockets = sockets.iter().map(|socket| SocketOutput::start(socket).map_err(fail(&socket.path)));
        let sockets = sockets.collect::<Result<_, _>>()?;
        let writer = Writer::start(files, &export.rotation, live).map_err(fail(directory))?;
        Ok(Self { streams, sockets, paths, writer: Some(writer), line: Vec::new(), live })
    }

    /// Writes a record to `flows.jsonl`; `seq` is its number in the stream.
    pub fn record(&mut self, scored: &ScoredRecord, seq: u64, names: &impl Names) -> Result<(), ExportError> {
        self.write(EventKind::Flow, |line| write_flow(line, scored, Some(seq), names))
    }

    /// Writes the final account of an episode to `alerts.jsonl`; in live use also its opening and each
    /// update, under the same episode number.
    pub fn alert(&mut self, event: &AlertEvent, names: &impl Names) -> Result<(), ExportError> {
        if !self.live && !matches!(event, AlertEvent::Closed(_)) {
            return Ok(());
        }
        self.write(EventKind::Alert, |line| write_alert(line, event.alert(), names))
    }

    /// Writes what is to be told of an episode of pressure to `alerts.jsonl`.
    pub fn pressure(&mut self, alert: &PressureAlert) -> Result<(), ExportError> {
        self.write(EventKind::Alert, |line| write_line(line, &alert.line()))
    }

    /// Writes what is to be told of a collector of mirrors out of reach to `alerts.jsonl`.
    pub fn outage(&mut self, alert: &OutageAlert) -> Result<(), ExportError> {
        self.write(EventKind::Alert, |line| write_line(line, &alert.line()))
    }

    /// Writes counters to `stats.jsonl`.
    pub fn stats(&mut self, event: &StatsEvent<impl Serialize>) -> Result<(), ExportError> {
        self.write(EventKind::Stats, |line| write_line(line, event))
    }

    /// Writes what the control of mirrors decided to `decisions.jsonl`.
    pub fn decision(&mut self, decision: &Decision, names: &impl Names) -> Result<(), ExportError> {
        self.write(EventKind::Decision, |line| write_decision(line, decision, names))
    }

    /// Writes an interval of a group pair that was not expected to `pairs.jsonl`.
    pub fn pair(&mut self, interval: &PairInterval, names: &impl Names) -> Result<(), ExportError> {
        self.write(EventKind::Pair, |line| write_pair(line, interval, names))
    }

    /// The files there are.
    pub fn paths(&self) -> Vec<PathBuf> {
        self.paths.clone()
    }

    /// Counters of all files and sockets.
    pub fn counters(&self) -> Vec<Arc<OutputCounters>> {
        let files = self.streams.iter().flatten().map(|stream| stream.counters.clone());
        files.chain(self.sockets.iter().map(|socket| socket.counters().clone())).collect()
    }

    /// Lets go of everything made so far. Call it now and then in live use.
    pub fn flush(&mut self) -> Result<(), ExportError> {
        self.flush_sockets();
        (0..KINDS.len()).try_for_each(|at| self.hand_over(at))
    }

    /// Lets readers of sockets have what there is: cheap, for when nothing else is to be done.
    pub fn flush_sockets(&mut self) {
        self.sockets.iter_mut().for_each(SocketOutput::hand_over);
    }

    /// Waits until everything so far is written or, where a reader is too slow, counted as lost: counters are then
    /// complete. More can be written afterwards.
    pub fn settle(&mut self) -> Result<(), ExportError> {
        self.flush()?;
        self.sockets.iter_mut().for_each(SocketOutput::hurry);
        self.sockets.iter_mut().for_each(SocketOutput::settle);
        self.sockets.iter_mut().for_each(SocketOutput::relax);
        // A writer that has failed says so when it is joined.
        while self.writer.as_ref().is_some_and(Writer::is_busy) {
            thread::sleep(Duration::from_millis(2));
        }
        Ok(())
    }

    /// Waits until the operating system has everything. Nothing can be written afterwards.
    pub fn finish(&mut self) -> Result<(), ExportError> {
        let flushed = self.flush();
        self.sockets.iter_mut().for_each(SocketOutput::finish);
        flushed.and(self.join())
    }

    fn write(&mut self, kind: EventKind, make: impl FnOnce(&mut Vec<u8>) -> io::Result<()>) -> Result<(), ExportError> {
        let at = KINDS.iter().position(|(known, _)| *known == kind).unwrap_or(0);
        if self.streams[at].is_none() && self.sockets.is_empty() {
            return Ok(());
        }
        self.line.clear();
        make(&mut self.line).map_err(|source| ExportError { path: KINDS[at].1.into(), source })?;
        self.sockets.iter_mut().for_each(|socket| socket.push(kind, &self.line));
        let Some(stream) = &mut self.streams[at] else { return Ok(()) };
        stream.block.extend_from_slice(&self.line);
        if stream.block.len() >= BLOCK { self.hand_over(at) } else { Ok(()) }
    }

    fn hand_over(&mut self, at: usize) -> Result<(), ExportError> {
        let (Some(stream), Some(writer)) = (&mut self.streams[at], &self.writer) else { return Ok(()) };
        if stream.block.is_empty() {
            return Ok(());
        }
        let block = (at, std::mem::take(&mut stream.block));
        writer.waiting.fetch_add(1, Ordering::Relaxed);
        let refused = if self.live {
            writer.blocks.try_send(block)
        } else {
            writer.blocks.send(block).map_err(|error| TrySendError::Disconnected(error.0))
        };
        match refused {
            Ok(()) => Ok(()),
            Err(TrySendError::Full((_, block)) | TrySendError::Disconnected((_, block))) if self.live => {
                writer.waiting.fetch_sub(1, Ordering::Relaxed);
                stream.counters.lost(count_lines(&block));
                Ok(())
            }
            Err(_) => self.join(),
        }
    }

    /// The writer's last word.
    fn join(&mut self) -> Result<(), ExportError> {
        let Some(Writer { blocks, thread, .. }) = self.writer.take() else { return Ok(()) };
        drop(blocks);
        thread.join().unwrap_or_else(|_| {
            let source = io::Error::other("the thread that writes files panicked");
            Err(ExportError { path: self.paths[0].clone(), source })
        })
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        // Also on the way out of an error, which is told already.
        let _ = self.finish();
    }
}

type Open = (LogFile, Arc<OutputCounters>);

impl Writer {
    fn start(files: [Option<Open>; KINDS.len()], rotation: &Rotation, live: bool) -> io::Result<Self> {
        let (blocks, incoming) = bounded(WAITING);
        let compressor = if rotation.compress && live {
            Some(Compressor::start(files.iter().flatten().flat_map(|(file, _)| left_over(file.path())).collect())?)
        } else {
            None
        };
        let waiting = Arc::new(AtomicUsize::new(0));
        let theirs = waiting.clone();
        let thread = thread::Builder::new().name("export".into()).spawn(move || {
            let mut writing = Writing { files, compressor, waiting: theirs, live };
            writing.run(&incoming)
        })?;
        Ok(Self { blocks, waiting, thread })
    }

    fn is_busy(&self) -> bool {
        // The counters of what is done are read afterwards.
        self.waiting.load(Ordering::Acquire) > 0 && !self.thread.is_finished()
    }
}

/// The writer's thread.
struct Writing {
    files: [Option<Open>; KINDS.len()],
    compressor: Option<Compressor>,
    waiting: Arc<AtomicUsize>,
    live: bool,
}

impl Writing {
    fn run(&mut self, incoming: &Receiver<(usize, Vec<u8>)>) -> Result<(), ExportError> {
        let mut checked = SystemTime::now();
        loop {
            match incoming.recv_timeout(CHECK_EVERY) {
                Ok((at, block)) => {
                    self.write(at, &block)?;
                    self.waiting.fetch_sub(1, Ordering::Release);
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return Ok(()),
            }
            let now = SystemTime::now();
            if self.live && now.duration_since(checked).is_ok_and(|passed| passed >= CHECK_EVERY) {
                checked = now;
                self.check(now);
            }
        }
    }

    fn write(&mut self, at: usize, block: &[u8]) -> Result<(), ExportError> {
        let Some((file, counters)) = &mut self.files[at] else { return Ok(()) };
        let compressor = &self.compressor;
        let outcome = file.write(block, SystemTime::now(), |aside| Compressor::take(compressor, aside));
        let written = outcome.as_ref().map_or_else(|stopped| stopped.written, |()| block.len());
        counters.wrote(count_lines(&block[..written]), written as u64);
        let Err(Stopped { error: source, .. }) = outcome else { return Ok(()) };
        counters.lost(count_lines(&block[written..]));
        let (failures, error) = (counters.failed(), ExportError { path: file.path().into(), source });
        // A full disk must not stop the traffic: a live run says so, counts, and goes on.
        if !self.live {
            return Err(error);
        }
        // The first time, and then ever more seldom.
        if failures.is_power_of_two() {
            log::error!("{error} (failed {failures} times)");
        }
        Ok(())
    }

    fn check(&mut self, now: SystemTime) {
        let compressor = &self.compressor;
        for (file, counters) in self.files.iter_mut().flatten() {
            if let Err(error) = file.check(now, |aside| Compressor::take(compressor, aside))
                && counters.failed().is_power_of_two()
            {
                log::error!("{}: {error}", file.path().display());
            }
        }
    }
}

/// Compresses files that were put aside, one after the other. What is not done when gnomon stops, the next run does.
#[derive(Debug)]
struct Compressor {
    paths: Option<Sender<PathBuf>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Compressor {
    fn start(first: Vec<PathBuf>) -> io::Result<Self> {
        let (paths, incoming) = unbounded::<PathBuf>();
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let thread = thread::Builder::new().name("compress".into()).spawn(move || {
            for path in first.into_iter().chain(incoming) {
                let stopped = || stopped.load(Ordering::Relaxed);
                // One that was too old to keep is gone.
                if path.exists()
                    && !stopped()
                    && let Err(error) = compress(&path, stopped)
                {
                    log::warn!("{} cannot be compressed: {error}", path.display());
                }
            }
        })?;
        Ok(Self { paths: Some(paths), stop, thread: Some(thread) })
    }

    fn take(compressor: &Option<Self>, path: PathBuf) {
        if let Some(paths) = compressor.as_ref().and_then(|compressor| compressor.paths.as_ref()) {
            // Its thread ends only after this end is gone.
            let _ = paths.send(path);
        }
    }
}

impl Drop for Compressor {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.paths = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::eve::tests::{Fixed, scored};
    use super::*;
    use std::time::Instant;

    fn lines(path: &Path) -> usize {
        fs::read_to_string(path).unwrap().lines().count()
    }

    fn export(directory: &Path) -> config::Export {
        config::Export { directory: directory.into(), alerts: false, pairs: false, ..config::Export::default() }
    }

    #[test]
    fn create_replaces_and_append_appends() {
        let dir = tempfile::tempdir().unwrap();
        let place = dir.path().join("a/b");
        for _ in 0..2 {
            let mut files = Files::create(&place, false).unwrap();
            for seq in 0..3 {
                files.record(&scored(), seq, &Fixed).unwrap();
            }
            files.finish().unwrap();
        }
        assert_eq!(lines(&place.join("flows.jsonl")), 3);
        assert_eq!(lines(&place.join("alerts.jsonl")), 0);
        assert_eq!(fs::metadata(place.join("suggestions.jsonl")).unwrap().len(), 0);
        let mut files = Files::append(&export(&place)).unwrap();
        files.record(&scored(), 3, &Fixed).unwrap();
        let line = |line: &mut Vec<u8>| write_line(line, &"counters");
        files.settle().unwrap();
        assert_eq!(files.counters()[0].lines(), 1, "complete before the last word");
        files.write(EventKind::Stats, line).unwrap();
        files.finish().unwrap();
        assert_eq!(lines(&place.join("flows.jsonl")), 4);
        assert_eq!(fs::read_to_string(place.join("stats.jsonl")).unwrap(), "\"counters\"\n");
        let told: Vec<_> = files.counters().iter().map(|c| (c.name.clone(), c.lines(), c.lost_lines())).collect();
        assert_eq!(told, [("flows.jsonl".to_owned(), 1, 0), ("stats.jsonl".to_owned(), 1, 0)]);
    }

    #[test]
    fn errors_name_the_path() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        fs::write(&file, b"x").unwrap();
        let error = Files::create(&file.join("sub"), false).unwrap_err().to_string();
        assert!(error.contains("file/sub"), "{error}");
        fs::create_dir(dir.path().join("flows.jsonl")).unwrap();
        let error = Files::create(dir.path(), false).unwrap_err().to_string();
        assert!(error.contains("flows.jsonl"), "{error}");
    }

    #[test]
    fn a_full_disk_stops_a_replay_and_is_counted_live() {
        if !Path::new("/dev/full").exists() {
            println!("skipped: no /dev/full");
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink("/dev/full", dir.path().join("flows.jsonl")).unwrap();
        let mut files = Files::append(&export(dir.path())).unwrap();
        for seq in 0..10 {
            files.record(&scored(), seq, &Fixed).unwrap();
        }
        files.finish().unwrap();
        let flows = &files.counters()[0];
        assert_eq!((flows.lines(), flows.lost_lines(), flows.failures()), (0, 10, 1));
        let mut files = Files::create(dir.path(), false).unwrap();
        files.record(&scored(), 0, &Fixed).unwrap();
        files.settle().unwrap();
        assert!(files.finish().unwrap_err().to_string().contains("flows.jsonl"));
    }

    #[test]
    fn rotated_and_compressed_files_hold_every_line_in_order() {
        let dir = tempfile::tempdir().unwrap();
        let rotation = Rotation { size: Some(100_000), every: None, keep: 100, compress: true };
        let mut files = Files::append(&config::Export { rotation, ..export(dir.path()) }).unwrap();
        for seq in 0..3000 {
            files.record(&scored(), seq, &Fixed).unwrap();
        }
        files.flush().unwrap();
        let counters = files.counters();
        let began = Instant::now();
        let compressed = || {
            fs::read_dir(dir.path())
                .unwrap()
                .flatten()
                .filter(|e| e.path().extension().is_some_and(|e| e == "gz"))
                .count()
        };
        while counters[0].lines() < 3000 && began.elapsed() < Duration::from_secs(20) && compressed() < 5 {
            thread::sleep(Duration::from_millis(10));
        }
        drop(files);
        let mut names: Vec<_> = fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().path()).collect();
        names.retain(|name| name.to_string_lossy().contains("flows.2"));
        names.sort();
        assert!(names.len() > 5, "{names:?}");
        names.push(dir.path().join("flows.jsonl"));
        let mut text = String::new();
        for name in &names {
            let bytes = fs::read(name).unwrap();
            if name.extension().is_some_and(|e| e == "gz") {
                io::Read::read_to_string(&mut flate2::read::GzDecoder::new(&bytes[..]), &mut text).unwrap();
            } else {
                text.push_str(&String::from_utf8(bytes).unwrap());
            }
        }
        let seqs: Vec<u64> = text
            .lines()
            .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()["gnomon"]["seq"].as_u64().unwrap())
            .collect();
        assert_eq!(seqs, (0..3000).collect::<Vec<_>>());
    }
}
