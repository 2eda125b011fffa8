//! Hosts in network namespaces, and the appliance between them.
//!
//! ```text
//! client ns eth0 ── a │ gnomon run │ b ── eth0 server ns
//!                     │            │ m ── eth0 sensor ns
//! ```
//! Names carry the process id and a number, so several test programs may run at once. Everything is taken
//! down when the [`Lab`] is dropped. Senders compute checksums and segment by themselves (offloads off): a
//! packet socket would otherwise see segments of 64 kB without checksums.
#![allow(dead_code, reason = "each test program uses its own part")]

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

use serde_json::Value;

pub const CLIENT: &str = "10.77.0.1";
pub const SERVER: &str = "10.77.0.2";
pub const CLIENT6: &str = "fd77::1";
pub const SERVER6: &str = "fd77::2";

/// Programs every test here needs, with the Debian package that has them.
const NEEDED: [(&str, &str); 5] = [
    ("ip", "iproute2"),
    ("ethtool", "ethtool"),
    ("ping", "iputils-ping"),
    ("timeout", "coreutils"),
    ("kill", "procps"),
];

/// Two hosts and a sensor; dropping it removes them.
#[derive(Debug)]
pub struct Lab {
    pub client: Host,
    pub server: Host,
    pub sensor: Host,
    pub folder: tempfile::TempDir,
    id: String,
    /// Poll-mode workers take whole CPUs: one appliance at a time.
    _turn: MutexGuard<'static, ()>,
}

/// One network namespace, with `eth0` inside and its other end, `port`, outside.
#[derive(Debug)]
pub struct Host {
    namespace: String,
    pub port: String,
}

/// A program that runs until it is stopped or dropped.
#[derive(Debug)]
pub struct Background {
    child: Child,
    output: PathBuf,
}

/// A running `gnomon run`.
#[derive(Debug)]
pub struct Running {
    pub process: Background,
    pub out: PathBuf,
}

impl Lab {
    /// `None` after saying why the test is skipped.
    pub fn new(test: &str, tools: &[(&str, &str)]) -> Option<Self> {
        static TURN: Mutex<()> = Mutex::new(());
        static NEXT: AtomicU32 = AtomicU32::new(0);
        // Before looking what is there: that makes a namespace for trial.
        let turn = TURN.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        if let Some(reason) = missing(tools) {
            println!("skipped {test}: {reason}");
            return None;
        }
        let id = format!("gn{}x{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let host = |what: &str| Host { namespace: format!("{id}{what}"), port: format!("{id}{what}") };
        let lab = Self {
            client: host("c"),
            server: host("s"),
            sensor: host("m"),
            folder: tempfile::tempdir().expect("temporary folder"),
            id,
            _turn: turn,
        };
        lab.client.create(&[CLIENT, CLIENT6]);
        lab.server.create(&[SERVER, SERVER6]);
        lab.sensor.create(&[]);
        Some(lab)
    }

    /// Ports `a`, `b` and mirror port `m`, everything a test configuration has in common; `rest` follows.
    pub fn config(&self, workers: &str, queues: u32, rest: &str) -> PathBuf {
        let port = |name: &str, number: u32, host: &Host| {
            let device = format!("net_af_packet{number},iface={},qpairs={queues}", host.port);
            format!("[[port]]\nname = \"{name}\"\ndevice = \"{device}\"\n")
        };
        let text = format!(
            "[cores]\nmain = 0\nworkers = {workers}\nscorer = \"any\"\n\
             [eal]\nmemory = \"128MiB\"\nmbufs = 8191\nfile_prefix = \"{}\"\n{}{}{}\
             [[pair]]\nports = [\"a\", \"b\"]\n\
             [store]\npath = \"{}\"\n[export]\ndirectory = \"{}\"\n{rest}",
            self.id,
            port("a", 0, &self.client),
            port("b", 1, &self.server),
            port("m", 2, &self.sensor),
            self.folder.path().join("gnomon.db").display(),
            self.folder.path().join("out").display(),
        );
        let path = self.folder.path().join("gnomon.toml");
        std::fs::write(&path, text).expect("configuration written");
        path
    }

    /// Starts the appliance and waits until it forwards.
    pub fn run(&self, config: &Path) -> Running {
        let mut command = Command::new(env!("CARGO_BIN_EXE_gnomon"));
        command.args(["run", "--interval", "0", "-c"]).arg(config);
        let process = Background::start(command, self.folder.path().join("gnomon.log"));
        process.wait_for("generation 1;", Duration::from_secs(20));
        Running { process, out: self.folder.path().join("out") }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }
}

impl Host {
    fn create(&self, addresses: &[&str]) {
        let (ns, port) = (self.namespace.as_str(), self.port.as_str());
        ip(&["netns", "add", ns]);
        ip(&["link", "add", port, "type", "veth", "peer", "name", "eth0", "netns", ns]);
        // The outer end belongs to the appliance; the kernel must not speak there.
        std::fs::write(format!("/proc/sys/net/ipv6/conf/{port}/disable_ipv6"), "1").expect("IPv6 off outside");
        self.succeeds(&["ethtool", "-K", "eth0", "tx", "off", "tso", "off", "gso", "off", "gro", "off", "sg", "off"]);
        for address in addresses {
            let length = if address.contains(':') { "64" } else { "24" };
            let mut arguments = vec!["-n", ns, "addr", "add"];
            let network = format!("{address}/{length}");
            arguments.extend([network.as_str(), "dev", "eth0"]);
            if address.contains(':') {
                arguments.push("nodad");
            }
            ip(&arguments);
        }
        for link in ["lo", "eth0"] {
            ip(&["-n", ns, "link", "set", link, "up"]);
        }
        ip(&["link", "set", port, "up"]);
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.namespace]).args(arguments);
        command
    }

    /// Runs a program to its end, for at most half a minute.
    pub fn run(&self, arguments: &[&str]) -> Output {
        let mut bounded = vec!["timeout", "-k", "1", "30"];
        bounded.extend(arguments);
        self.command(&bounded).stdin(Stdio::null()).output().expect("ip starts")
    }

    /// Standard output of a program that must succeed.
    pub fn succeeds(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "{arguments:?}: {}\n{out}\n{err}", output.status);
        out.into_owned()
    }

    /// Starts a program; what it prints goes to `output`.
    pub fn start(&self, arguments: &[&str], output: PathBuf) -> Background {
        Background::start(self.command(arguments), output)
    }

    /// `(sent, received)` of a ping.
    pub fn ping(&self, arguments: &[&str]) -> (u64, u64) {
        let mut all = vec!["ping", "-n", "-q", "-W", "1"];
        all.extend(arguments);
        ping_counts(&String::from_utf8_lossy(&self.run(&all).stdout))
    }
}

/// `(sent, received)` of what ping prints at its end.
pub fn ping_counts(text: &str) -> (u64, u64) {
    let line = text.lines().find(|line| line.contains("packets transmitted")).unwrap_or_else(|| panic!("ping: {text}"));
    let mut numbers = line.split(|c: char| !c.is_ascii_digit()).filter_map(|word| word.parse().ok());
    (numbers.next().expect("sent"), numbers.next().expect("received"))
}

impl Background {
    pub fn start(mut command: Command, output: PathBuf) -> Self {
        let file = std::fs::File::create(&output).expect("log file");
        let both = file.try_clone().expect("log file");
        let child = command.stdin(Stdio::null()).stdout(file).stderr(both).spawn().expect("program starts");
        Self { child, output }
    }

    /// What it has printed so far.
    pub fn printed(&self) -> String {
        let mut text = Vec::new();
        let mut file = std::fs::File::open(&self.output).expect("log file");
        file.read_to_end(&mut text).expect("log file");
        String::from_utf8_lossy(&text).into_owned()
    }

    /// Until `text` is printed.
    pub fn wait_for(&self, text: &str, limit: Duration) {
        let found = eventually(limit, || self.printed().contains(text));
        assert!(found, "`{text}` was not printed within {limit:?}:\n{}", self.printed());
    }

    pub fn signal(&self, name: &str) {
        let id = self.child.id().to_string();
        let sent = Command::new("kill").args(["-s", name, &id]).status().expect("kill starts");
        assert!(sent.success(), "signal {name}:\n{}", self.printed());
    }

    /// Waits for its end.
    pub fn end(&mut self, limit: Duration) -> ExitStatus {
        let mut status = None;
        eventually(limit, || {
            status = self.child.try_wait().expect("child can be waited for");
            status.is_some()
        });
        status.unwrap_or_else(|| panic!("still runs after {limit:?}:\n{}", self.printed()))
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        // Nothing happens to one that has ended and was waited for.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Running {
    /// Reloads with a new configuration text and returns what the appliance says.
    pub fn reload(&self) -> String {
        let before = self.process.printed().len();
        self.process.signal("HUP");
        let answered = eventually(Duration::from_secs(5), || self.process.printed()[before..].contains("reloaded"));
        assert!(answered, "no answer to SIGHUP:\n{}", self.process.printed());
        // The answer is written at once, but its parts may come in two reads.
        std::thread::sleep(Duration::from_millis(20));
        self.process.printed()[before..].to_owned()
    }

    /// Stops the appliance in order and checks its account.
    pub fn stop(mut self) -> Value {
        self.process.signal("TERM");
        let status = self.process.end(Duration::from_secs(10));
        assert_eq!(status.code(), Some(0), "{}", self.process.printed());
        let text = std::fs::read_to_string(self.out.join("summary.json")).expect("summary.json");
        let summary: Value = serde_json::from_str(&text).expect("summary is JSON");
        let drops: u64 = summary["drops"].as_object().expect("drops").values().filter_map(Value::as_u64).sum();
        let [rx, tx, consumed] = ["rx", "tx", "consumed"].map(|name| count(&summary, &[name]));
        assert_eq!(rx, tx + consumed + drops, "{text}");
        assert!(rx > 0, "{text}");
        summary
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        for host in [&self.client, &self.server, &self.sensor] {
            // The peer inside goes with the outer end; both may be missing when creation failed.
            let _ = Command::new("ip").args(["link", "del", &host.port]).stderr(Stdio::null()).status();
            let _ = Command::new("ip").args(["netns", "del", &host.namespace]).stderr(Stdio::null()).status();
        }
    }
}

/// A number in a summary; 0 where there is none.
pub fn count(summary: &Value, path: &[&str]) -> u64 {
    path.iter().fold(summary, |value, name| &value[*name]).as_u64().unwrap_or(0)
}

/// Whether `holds` within `limit`.
pub fn eventually(limit: Duration, mut holds: impl FnMut() -> bool) -> bool {
    let start = Instant::now();
    loop {
        if holds() {
            return true;
        }
        if start.elapsed() > limit {
            return false;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// The last CPU for the worker; control and scorer have the first.
pub fn worker_cpu() -> String {
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    format!("[{}]", cpus - 1)
}

fn ip(arguments: &[&str]) {
    let output = Command::new("ip").args(arguments).output().expect("ip starts");
    assert!(output.status.success(), "ip {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
}

fn missing(tools: &[(&str, &str)]) -> Option<String> {
    let root = std::fs::read_to_string("/proc/self/status").is_ok_and(|text| {
        text.lines().any(|line| line.starts_with("Uid:") && line.split_whitespace().nth(2) == Some("0"))
    });
    if !root {
        return Some("needs root for network namespaces and packet sockets".into());
    }
    let there = |tool: &str| {
        let folders = std::env::var_os("PATH").unwrap_or_default();
        std::env::split_paths(&folders).any(|folder| folder.join(tool).is_file())
    };
    if let Some((tool, package)) = NEEDED.iter().chain(tools).find(|(tool, _)| !there(tool)) {
        return Some(format!("`{tool}` is missing (Debian package {package})"));
    }
    let probe = format!("gn{}probe", std::process::id());
    let made = Command::new("ip").args(["netns", "add", &probe]).output().is_ok_and(|o| o.status.success());
    let _ = Command::new("ip").args(["netns", "del", &probe]).stderr(Stdio::null()).status();
    (!made).then(|| "network namespaces cannot be made here".into())
}
