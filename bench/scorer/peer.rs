//! scikit-learn in a process of its own, which runs only while it is asked.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use anyhow::{Context, Result, ensure};

use crate::sets::Set;

pub struct Peer {
    child: Child,
    questions: ChildStdin,
    answers: BufReader<ChildStdout>,
    folder: tempfile::TempDir,
    pub version: String,
}

impl Peer {
    /// On the CPU of the calling thread. `None` when there is no Python with scikit-learn.
    pub fn start() -> Result<Option<Self>> {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("bench/scorer/peer.py");
        let mut command = Command::new("python3");
        for threads in ["OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"] {
            command.env(threads, "1");
        }
        command.arg(script).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let Ok(mut child) = command.spawn() else { return Ok(None) };
        let questions = child.stdin.take().context("a pipe was asked for")?;
        let mut answers = BufReader::new(child.stdout.take().context("a pipe was asked for")?);
        let mut first = String::new();
        answers.read_line(&mut first)?;
        let Some(version) = first.trim().strip_prefix("ready ").map(str::to_owned) else {
            child.wait()?;
            return Ok(None);
        };
        Ok(Some(Self { child, questions, answers, folder: tempfile::tempdir()?, version }))
    }

    pub fn load(&mut self, set: &Set) -> Result<()> {
        let path = self.folder.path().join("rows");
        let bytes: Vec<u8> = set.train.iter().chain(&set.test).flat_map(|x| x.to_le_bytes()).collect();
        std::fs::write(&path, bytes)?;
        let rows = set.train.len() / set.width;
        self.ask(&format!("load\t{}\t{rows}\t{}\t{}", path.display(), set.rows(), set.width)).map(drop)
    }

    pub fn fit(&mut self, seed: u64) -> Result<()> {
        self.ask(&format!("fit\t{seed}")).map(drop)
    }

    /// Seconds of processor time for the first `rows` rows.
    pub fn time(&mut self, rows: usize) -> Result<f64> {
        Ok(self.ask(&format!("time\t{rows}"))?.parse()?)
    }

    /// Scores of all rows.
    pub fn scores(&mut self) -> Result<Vec<f32>> {
        let path = self.folder.path().join("scores");
        self.ask(&format!("scores\t{}", path.display()))?;
        let bytes = std::fs::read(path)?;
        Ok(bytes.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect())
    }

    fn ask(&mut self, question: &str) -> Result<String> {
        writeln!(self.questions, "{question}")?;
        let mut answer = String::new();
        self.answers.read_line(&mut answer)?;
        ensure!(!answer.is_empty(), "Python ended at: {question}");
        Ok(answer.trim().to_owned())
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        // It ends by itself when it is asked nothing more; a process that is gone already is no matter.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
