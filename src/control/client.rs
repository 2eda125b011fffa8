//! The side of the command line.

use std::io::{self, BufRead, BufReader, ErrorKind, Read, Write};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::unistd::{Gid, Group};
use serde::Deserialize;
use serde_json::{Map, Value};

use super::place::Place;
use super::protocol::{Hello, PROTOCOL, Refusal};

/// How long the appliance may take to say hello.
const HELLO_WITHIN: Duration = Duration::from_secs(5);
/// Longest line and longest run of bytes that is believed.
const LONGEST: u64 = 64 << 20;

/// A connection to a running appliance.
#[derive(Debug)]
pub struct Client {
    reader: BufReader<UnixStream>,
    pub hello: Hello,
    pub path: PathBuf,
}

/// What an answer consists of.
#[derive(Clone, Debug, PartialEq)]
pub enum Part {
    Line(Value),
    Bytes(Vec<u8>),
    /// The last line; what the verb says at the end besides.
    End(Map<String, Value>),
}

/// The parts of one answer, in order.
#[derive(Debug)]
pub struct Answer<'c> {
    client: &'c mut Client,
    over: bool,
}

/// Why there is no answer, and what to do.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    #[error("{0}")]
    NoPlace(String),
    #[error("no gnomon listens on {path}: is `gnomon run` running? {hint}")]
    NotRunning { path: PathBuf, hint: &'static str },
    #[error("not allowed to use {path}: {hint}")]
    NotAllowed { path: PathBuf, hint: String },
    #[error("{path}: this is protocol {PROTOCOL}, the running gnomon {version} speaks {theirs}: use its own program")]
    Protocol { path: PathBuf, version: String, theirs: u32 },
    #[error("{0}")]
    Refused(#[from] Refusal),
    #[error("the connection to {path} broke: {source}")]
    Broken { path: PathBuf, source: io::Error },
}

#[derive(Deserialize)]
struct Binary {
    binary: u64,
}

impl Client {
    /// # Errors
    /// Says what is probably wrong and what to do.
    pub fn connect(place: &Place) -> Result<Self, ClientError> {
        let path = place.resolve().map_err(ClientError::NoPlace)?;
        let stream = UnixStream::connect(&path).map_err(|error| refused(&path, error))?;
        let broken = |source| ClientError::Broken { path: path.clone(), source };
        stream.set_read_timeout(Some(HELLO_WITHIN)).map_err(broken)?;
        let nobody = Hello { gnomon: String::new(), protocol: 0, pid: 0 };
        let mut client = Self { reader: BufReader::new(stream), hello: nobody, path: path.clone() };
        let line = client.line()?;
        if let Some(refusal) = line.get("error") {
            return Err(client.refusal(refusal).into());
        }
        client.hello = serde_json::from_value(line).map_err(|error| client.strange(&error))?;
        if client.hello.protocol != PROTOCOL {
            let Hello { gnomon, protocol, .. } = client.hello;
            return Err(ClientError::Protocol { path, version: gnomon, theirs: protocol });
        }
        client.reader.get_ref().set_read_timeout(None).map_err(broken)?;
        Ok(client)
    }

    /// Closes the sending side when called, from any thread: what goes on without end then ends in order.
    ///
    /// # Errors
    /// No file descriptor is left.
    pub fn last_word(&self) -> io::Result<impl Fn() + Send + use<>> {
        let stream = self.reader.get_ref().try_clone()?;
        Ok(move || {
            // Gone already is as good.
            let _ = stream.shutdown(std::net::Shutdown::Write);
        })
    }

    /// Sends a request: an object with a `verb`.
    ///
    /// # Errors
    /// The connection broke.
    pub fn ask(&mut self, request: &Value) -> Result<Answer<'_>, ClientError> {
        let mut line = request.to_string();
        line.push('\n');
        self.reader.get_mut().write_all(line.as_bytes()).map_err(|source| self.broken(source))?;
        Ok(Answer { client: self, over: false })
    }

    /// The only line of an answer.
    ///
    /// # Errors
    /// The request was refused, or the connection broke.
    pub fn ask_one(&mut self, request: &Value) -> Result<Value, ClientError> {
        let mut found = Value::Null;
        let mut answer = self.ask(request)?;
        while let Some(part) = answer.next_part()? {
            if let Part::Line(line) = part {
                found = line;
            }
        }
        Ok(found)
    }

    /// All lines of an answer.
    ///
    /// # Errors
    /// The request was refused, or the connection broke.
    pub fn ask_all(&mut self, request: &Value) -> Result<Vec<Value>, ClientError> {
        let mut found = Vec::new();
        let mut answer = self.ask(request)?;
        while let Some(part) = answer.next_part()? {
            if let Part::Line(line) = part {
                found.push(line);
            }
        }
        Ok(found)
    }

    fn line(&mut self) -> Result<Value, ClientError> {
        let mut line = Vec::new();
        let read = self.reader.by_ref().take(LONGEST).read_until(b'\n', &mut line);
        match read {
            Ok(_) if line.last() == Some(&b'\n') => serde_json::from_slice(&line).map_err(|e| self.strange(&e)),
            Ok(_) => Err(self.broken(ErrorKind::UnexpectedEof.into())),
            Err(error) => Err(self.broken(error)),
        }
    }

    fn refusal(&self, value: &Value) -> Refusal {
        serde_json::from_value(value.clone()).unwrap_or_else(|_| Refusal::new("failed", value.to_string()))
    }

    fn broken(&self, source: io::Error) -> ClientError {
        ClientError::Broken { path: self.path.clone(), source }
    }

    fn strange(&self, error: &serde_json::Error) -> ClientError {
        self.broken(io::Error::new(ErrorKind::InvalidData, format!("no gnomon answers there ({error})")))
    }
}

impl Answer<'_> {
    /// The next part; `None` after [`Part::End`].
    ///
    /// # Errors
    /// The request was refused, or the connection broke.
    pub fn next_part(&mut self) -> Result<Option<Part>, ClientError> {
        if self.over {
            return Ok(None);
        }
        let line = self.client.line()?;
        let Value::Object(mut object) = line else { return Ok(Some(Part::Line(line))) };
        if let Some(refusal) = object.get("error") {
            self.over = true;
            return Err(self.client.refusal(refusal).into());
        }
        if object.get("end") == Some(&Value::Bool(true)) {
            self.over = true;
            object.remove("end");
            return Ok(Some(Part::End(object)));
        }
        match object.len() {
            1 if object.contains_key("binary") => self.bytes(Value::Object(object)).map(Some),
            _ => Ok(Some(Part::Line(Value::Object(object)))),
        }
    }

    fn bytes(&mut self, header: Value) -> Result<Part, ClientError> {
        let Binary { binary } = serde_json::from_value(header).map_err(|error| self.client.strange(&error))?;
        let mut bytes = Vec::new();
        let read = self.client.reader.by_ref().take(binary.min(LONGEST)).read_to_end(&mut bytes);
        match read {
            Ok(n) if n as u64 == binary => Ok(Part::Bytes(bytes)),
            Ok(_) => Err(self.client.broken(ErrorKind::UnexpectedEof.into())),
            Err(error) => Err(self.client.broken(error)),
        }
    }
}

fn refused(path: &Path, error: io::Error) -> ClientError {
    let path = path.to_owned();
    match error.kind() {
        ErrorKind::NotFound => ClientError::NotRunning {
            path,
            hint: "If it is, with another place for its socket, give --socket PATH or -c with its configuration",
        },
        ErrorKind::ConnectionRefused => {
            ClientError::NotRunning { path, hint: "The socket was left behind by one that did not end in order" }
        }
        ErrorKind::PermissionDenied => {
            let hint = permission_hint(&path);
            ClientError::NotAllowed { path, hint }
        }
        _ => ClientError::Broken { path, source: error },
    }
}

fn permission_hint(path: &Path) -> String {
    let Ok(about) = std::fs::metadata(path) else {
        return "you may not even look into its folder; ask who runs gnomon, or use sudo".into();
    };
    let name = Group::from_gid(Gid::from_raw(about.gid())).ok().flatten();
    let name = name.map_or_else(|| about.gid().to_string(), |group| group.name);
    let own = [nix::unistd::getegid()].into_iter().chain(nix::unistd::getgroups().unwrap_or_default());
    if own.into_iter().any(|gid| gid.as_raw() == about.gid()) {
        return format!("you are in its group `{name}`, but its mode is {:o}", about.mode() & 0o777);
    }
    format!("you are not in group `{name}`; join it (usermod -aG {name} USER, then log in again) or use sudo")
}
