//! Workers make no system call between start and stop: a tracer watches `gnomon run` over two null devices.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const CONFIG: &str = r#"
[cores]
main = 0
workers = [1]
[eal]
memory = "128MiB"
mbufs = 8192
file_prefix = "gnomon-trace"
[[port]]
name = "a"
device = "net_null0,size=64"
[[port]]
name = "b"
device = "net_null1,size=64"
[[pair]]
ports = ["a", "b"]
[policy]
default = "deny"
[[rule]]
id = "everything"
action = "allow"
[scorer]
enabled = false
"#;

const SECONDS: u64 = 4;

#[test]
fn workers_make_no_system_call() {
    if !can_trace() {
        println!("skipped workers_make_no_system_call: strace is missing or may not trace");
        return;
    }
    let folder = tempfile::tempdir().expect("temporary folder");
    let (config, trace) = (folder.path().join("null.toml"), folder.path().join("trace"));
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    let text = if cpus > 1 { CONFIG.to_owned() } else { CONFIG.replace("workers = [1]", "workers = [0]") };
    let out = folder.path().join("out");
    std::fs::write(&config, format!("{text}[export]\ndirectory = {:?}\n", out.display())).expect("written");
    let mut traced = Command::new("strace")
        .args(["-f", "-ttt", "-s", "64", "-o"])
        .arg(&trace)
        .args([env!("CARGO_BIN_EXE_gnomon"), "run", "--interval", "0", "--seconds", &SECONDS.to_string(), "-c"])
        .arg(&config)
        .stdout(Stdio::piped())
        .spawn()
        .expect("strace starts");
    let mut said = BufReader::new(traced.stdout.take().expect("piped")).lines();
    let first = said.next().expect("output").expect("text");
    assert!(first.starts_with("gnomon runs on"), "{first}");
    let workers = worker_threads(&traced);
    let rest: Vec<String> = said.map_while(Result::ok).collect();
    assert!(traced.wait().expect("ends").success(), "{rest:?}");
    let summary: serde_json::Value =
        serde_json::from_str(&std::fs::read_to_string(out.join("summary.json")).expect("summary")).expect("JSON");
    assert!(summary["tx"].as_u64().unwrap_or(0) > 10_000, "packets were forwarded meanwhile: {summary}");
    judge(&std::fs::read_to_string(&trace).expect("trace"), &workers);
    println!("{} packets received in {SECONDS} s without a system call", summary["rx"]);
}

/// No line of a worker's thread lies between the start message and the end of the run.
fn judge(trace: &str, workers: &[u32]) {
    let lines: Vec<(u32, f64, &str)> = trace.lines().filter_map(parse).collect();
    let begun = lines.iter().find(|(_, _, call)| call.contains("write(1, \"gnomon runs on"));
    let begun = begun.expect("the start message is in the trace").1;
    let ends = begun + SECONDS as f64 - 0.1;
    for worker in workers {
        let all = lines.iter().filter(|(thread, ..)| thread == worker);
        assert!(all.clone().any(|(_, at, _)| *at < begun), "thread {worker} is traced");
        // What is resumed began before, with a line of its own.
        let own = all.filter(|(_, _, call)| !call.starts_with("<..."));
        let calls: Vec<_> = own.filter(|(_, at, _)| (begun..ends).contains(at)).collect();
        assert!(calls.is_empty(), "system calls of worker thread {worker}: {calls:?}");
    }
    let others = lines.iter().filter(|(_, at, _)| (begun..ends).contains(at)).count();
    assert!(others > 10, "the tracer saw the other threads meanwhile");
}

/// Thread, time and call of a line of the trace.
fn parse(line: &str) -> Option<(u32, f64, &str)> {
    let (thread, rest) = line.split_once(char::is_whitespace)?;
    let (at, call) = rest.trim_start().split_once(' ')?;
    Some((thread.parse().ok()?, at.parse().ok()?, call))
}

/// Threads of the traced program that DPDK named as workers.
fn worker_threads(tracer: &Child) -> Vec<u32> {
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(2) {
        let named: Vec<u32> = children(tracer.id()).into_iter().flat_map(threads).filter(|t| is_worker(*t)).collect();
        if !named.is_empty() {
            return named;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    panic!("no thread is named as a worker");
}

fn children(process: u32) -> Vec<u32> {
    let path = format!("/proc/{process}/task/{process}/children");
    let text = std::fs::read_to_string(path).unwrap_or_default();
    text.split_whitespace().filter_map(|id| id.parse().ok()).collect()
}

fn threads(process: u32) -> Vec<u32> {
    let Ok(entries) = std::fs::read_dir(format!("/proc/{process}/task")) else { return Vec::new() };
    entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).collect()
}

fn is_worker(thread: u32) -> bool {
    let name = std::fs::read_to_string(format!("/proc/{thread}/comm")).unwrap_or_default();
    name.starts_with("lcore-worker") || name.starts_with("rte-worker") || name.starts_with("dpdk-worker")
}

fn can_trace() -> bool {
    let tried = Command::new("strace").args(["-f", "-o", "/dev/null", "true"]).stderr(Stdio::null()).status();
    tried.is_ok_and(|status| status.success()) && Path::new("/proc/self/task").is_dir()
}
