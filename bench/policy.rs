//! A large policy: 100,000 VMs in 1,000 groups under 50,000 rules, kept by the policy service of a running appliance whose
//! worker polls as fast as it can. Through the API: how long a VM takes to be in force in its group, how long commits take,
//! how fast things are read meanwhile. A worker without traffic (null ports bring packets that match nothing).
//!
//! `cargo bench --bench policy -- [--quick] [--json FILE] [--cpu N]`: the worker runs on CPU N, the rest on the others.

mod common;

use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result, ensure};
use clap::Parser;
use gnomon::policy::book::{Group, Noun, Relationship, Vm};
use gnomon::policy::service::{CompileOnly, Service};
use gnomon::rules::Decision;
use gnomon::store::Store;
use serde_json::{Value, json};
use ureq::Agent;

use common::{Options, Results, median};

#[derive(Debug, Parser)]
struct Arguments {
    #[command(flatten)]
    options: Options,
    #[arg(long, default_value_t = 100_000)]
    vms: usize,
    #[arg(long, default_value_t = 1_000)]
    groups: usize,
    #[arg(long, default_value_t = 50_000)]
    rules: usize,
}

fn main() -> Result<()> {
    let mut arguments = Arguments::parse();
    if arguments.options.quick {
        (arguments.vms, arguments.groups, arguments.rules) = (5_000, 50, 2_000);
    }
    let folder = tempfile::tempdir()?;
    let store = folder.path().join("policy.db");
    let mut results = Results::new("policy");
    let began = Instant::now();
    fill(&arguments, &store)?;
    results.measured("a policy imported, compiled, stored", "s", vec![began.elapsed().as_secs_f64()]);
    let token = token(&store)?;
    let began = Instant::now();
    let appliance = Appliance::start(&arguments, folder.path(), &store, token)?;
    results.measured("start with it, until the API answers", "s", vec![began.elapsed().as_secs_f64()]);
    measure(&arguments, &appliance, &mut results)?;
    let (packets, seconds) = appliance.stop()?;
    println!("the worker took {:.1} Mpps over {seconds:.0} s meanwhile", packets / seconds / 1e6);
    results.finish(&arguments.options);
    Ok(())
}

fn address(n: usize) -> String {
    format!("10.{}.{}.{}", n >> 16, n >> 8 & 255, n & 255)
}

fn group(n: usize) -> String {
    format!("group-{n:04}")
}

fn vm(n: usize, group: usize) -> Vm {
    Vm {
        id: format!("vm-{n:06}"),
        addresses: vec![address(n)],
        tags: [format!("g={group}")].into(),
        comment: String::new(),
    }
}

fn fill(arguments: &Arguments, path: &Path) -> Result<()> {
    let vms = (0..arguments.vms).map(|n| Noun::Vm(vm(n, n % arguments.groups)));
    let groups = (0..arguments.groups)
        .map(|n| Noun::Group(Group { name: group(n), tags: [format!("g={n}")].into(), ..Group::default() }));
    let rules = (0..arguments.rules).map(|n| -> Result<Noun> {
        let (from, to) = (n % arguments.groups, (n * 7 + n / arguments.groups + 1) % arguments.groups);
        let action = if n % 10 == 0 { "deny" } else { "allow" };
        let relationship: Relationship = serde_json::from_value(json!({
            "id": format!("rule-{n:06}"), "from": group(from), "to": group(to), "protocol": "tcp",
            "ports": 1000 + n % 5000, "action": action, "priority": 100 + n % 50,
        }))?;
        Ok(Noun::Relationship(relationship))
    });
    let all: Vec<Noun> = vms.chain(groups).map(Ok).chain(rules).collect::<Result<_>>()?;
    let plane = Box::new(CompileOnly::new(1 << 20, Decision::Deny)?);
    let now = || SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |time| time.as_nanos() as u64);
    Service::open(Arc::new(Store::open(path)?), plane, || all, now)?;
    Ok(())
}

fn token(store: &Path) -> Result<String> {
    let output = Command::new(env!("CARGO_BIN_EXE_gnomon"))
        .args(["token", "create", "bench", "--role", "admin", "--store"])
        .arg(store)
        .output()?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout)?;
    text.split_whitespace().max_by_key(|word| word.len()).map(str::to_owned).context("a token was printed")
}

/// `gnomon run` on null ports.
struct Appliance {
    child: Child,
    agent: Agent,
    url: String,
    token: String,
    began: Instant,
    folder: std::path::PathBuf,
}

impl Appliance {
    fn start(arguments: &Arguments, folder: &Path, store: &Path, token: String) -> Result<Self> {
        let config = format!(
            "[cores]\nmain = 0\nworkers = [{}]\nscorer = \"any\"\n[eal]\nhugepages = false\nmemory = \"256MiB\"\n\
             mbufs = 16384\nfile_prefix = \"gnomon-bench-policy\"\n[[port]]\nname = \"a\"\ndevice = \"net_null0\"\n[[port]]\n\
             name = \"b\"\ndevice = \"net_null1\"\n[[pair]]\nports = [\"a\", \"b\"]\n[policy]\ndefault = \"deny\"\n\
             [store]\npath = \"{}\"\n[api]\nlisten = \"127.0.0.1:0\"\nrate = 100000\n[export]\ndirectory = \"{}\"\n\
             [limits]\nrules = 200000\n[control]\nenabled = false\n",
            arguments.options.cpu,
            store.display(),
            folder.display()
        );
        let path = folder.join("run.toml");
        std::fs::write(&path, config)?;
        let mut child = Command::new(env!("CARGO_BIN_EXE_gnomon"))
            .args(["run", "--interval", "0", "-c"])
            .arg(&path)
            .stdout(Stdio::piped())
            .spawn()?;
        let out = child.stdout.take().context("its output")?;
        let mut out = BufReader::new(out);
        let mut line = String::new();
        let url = loop {
            line.clear();
            ensure!(out.read_line(&mut line)? > 0, "gnomon run ended early");
            if let Some((_, rest)) = line.split_once("policy API at ") {
                break rest.split(';').next().unwrap_or_default().trim().to_owned();
            }
        };
        // Nobody reads the rest; it must not fill the pipe.
        std::thread::spawn(move || drop(std::io::copy(&mut out.take(1 << 20), &mut std::io::sink())));
        let agent = Agent::config_builder().http_status_as_error(false).build().new_agent();
        Ok(Self { child, agent, url: format!("{url}/api/v1"), token, began: Instant::now(), folder: folder.to_owned() })
    }

    fn get(&self, path: &str) -> Result<Value> {
        let mut answer = self
            .agent
            .get(format!("{}{path}", self.url))
            .header("Authorization", format!("Bearer {}", self.token))
            .call()?;
        ensure!(answer.status().is_success(), "{path}: {} {}", answer.status(), answer.body_mut().read_to_string()?);
        Ok(serde_json::from_str(&answer.body_mut().read_to_string()?)?)
    }

    fn send(&self, post: bool, path: &str, body: &Value) -> Result<Value> {
        let url = format!("{}{path}", self.url);
        let request = if post { self.agent.post(url) } else { self.agent.put(url) };
        let request = request.header("Authorization", format!("Bearer {}", self.token));
        let mut answer = request.header("Content-Type", "application/json").send(body.to_string())?;
        ensure!(answer.status().is_success(), "{path}: {} {}", answer.status(), answer.body_mut().read_to_string()?);
        Ok(serde_json::from_str(&answer.body_mut().read_to_string()?).unwrap_or(Value::Null))
    }

    /// Packets that the worker took, and in how many seconds.
    fn stop(mut self) -> Result<(f64, f64)> {
        let seconds = self.began.elapsed().as_secs_f64();
        let id = nix::unistd::Pid::from_raw(self.child.id() as i32);
        nix::sys::signal::kill(id, nix::sys::signal::Signal::SIGTERM)?;
        self.child.wait()?;
        let summary: Value = serde_json::from_slice(&std::fs::read(self.folder.join("summary.json"))?)?;
        Ok((summary["rx"].as_f64().unwrap_or(0.0), seconds))
    }
}

fn milliseconds(began: Instant) -> f64 {
    began.elapsed().as_secs_f64() * 1e3
}

fn quantile(times: &mut [f64], q: f64) -> f64 {
    times.sort_by(f64::total_cmp);
    times[((times.len() - 1) as f64 * q) as usize]
}

fn measure(arguments: &Arguments, appliance: &Appliance, results: &mut Results) -> Result<()> {
    let runs = if arguments.options.quick { 20 } else { 200 };
    read(arguments, appliance, "nothing else", runs * 5, results)?;
    let mut added = Vec::new();
    for n in 0..runs {
        let vm = vm(arguments.vms + n, n % arguments.groups);
        let began = Instant::now();
        appliance.send(false, &format!("/vms/{}?commit=true", vm.id), &serde_json::to_value(&vm)?)?;
        added.push(milliseconds(began));
    }
    report("a VM is added to its group and in force", &mut added, results);
    let mut committed = Vec::new();
    for n in 0..runs / 10 {
        for rule in 0..100 {
            let body = json!({ "id": format!("rule-{rule:06}"), "from": group(n % arguments.groups), "to": group(1),
                "protocol": "tcp", "ports": 7000 + n, "action": "allow", "priority": 100 + rule });
            appliance.send(false, &format!("/relationships/rule-{rule:06}"), &body)?;
        }
        let began = Instant::now();
        appliance.send(true, "/policy/commit", &json!({ "why": "bench" }))?;
        committed.push(milliseconds(began));
    }
    report("a draft of 100 rules is committed", &mut committed, results);
    let mut whole = Vec::new();
    for n in 0..runs / 20 {
        let vm = json!({ "id": format!("new-{n}"), "addresses": [format!("fd00::{n:x}")], "tags": ["g=1"] });
        let began = Instant::now();
        appliance.send(false, &format!("/vms/new-{n}?commit=true"), &vm)?;
        whole.push(milliseconds(began));
    }
    report("a commit for which all is built anew (a VM with IPv6)", &mut whole, results);
    // Reading while somebody commits all the time.
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for n in 0.. {
                if stop.load(Ordering::Relaxed) {
                    break;
                }
                let vm = vm(arguments.vms + 10_000 + n % 1000, n % arguments.groups);
                if let Ok(body) = serde_json::to_value(&vm) {
                    drop(appliance.send(false, &format!("/vms/{}?commit=true", vm.id), &body));
                }
                std::thread::sleep(Duration::from_millis(50));
            }
        });
        let read = read(arguments, appliance, "a VM committed every 50 ms", runs * 5, results);
        stop.store(true, Ordering::Relaxed);
        read
    })
}

fn read(arguments: &Arguments, appliance: &Appliance, beside: &str, runs: usize, results: &mut Results) -> Result<()> {
    let (mut one, mut many) = (Vec::new(), Vec::new());
    for n in 0..runs {
        let began = Instant::now();
        appliance.get(&format!("/vms/vm-{:06}", n * 7919 % arguments.vms))?;
        one.push(milliseconds(began));
        let began = Instant::now();
        appliance.get("/relationships?limit=100")?;
        many.push(milliseconds(began));
    }
    report(&format!("one VM is read, beside {beside}"), &mut one, results);
    report(&format!("a page of 100 rules is read, beside {beside}"), &mut many, results);
    Ok(())
}

fn report(what: &str, times: &mut [f64], results: &mut Results) {
    let (p99, most) = (quantile(times, 0.99), quantile(times, 1.0));
    println!("{what}: median {:.2} ms, p99 {p99:.2} ms, most {most:.2} ms", median(times));
    results.measured(format!("{what}, median"), "ms", vec![median(times)]);
    results.measured(format!("{what}, p99"), "ms", vec![p99]);
}
