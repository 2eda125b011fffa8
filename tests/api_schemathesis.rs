//! The API against its own description: schemathesis makes requests of all kinds out of the OpenAPI document, good and bad,
//! and checks what comes back. Skipped with one line where it cannot be installed.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

const VERSION: &str = "schemathesis==4.32.5";
/// Seconds that are spent on it.
const BUDGET: &str = "100";
/// What is checked of each answer. Left out: whether everything that fits the schemas is accepted. It is not: a relationship
/// may name a group that is not there.
const CHECKS: &str = "not_a_server_error,status_code_conformance,content_type_conformance,response_headers_conformance,\
    response_schema_conformance,negative_data_rejection,unsupported_method,allow_header_conformance,use_after_free,\
    ensure_resource_availability,ignored_auth";

/// The program, installed on first use into a folder that stays.
fn schemathesis() -> Option<PathBuf> {
    let home = std::env::var_os("HOME").map(PathBuf::from)?;
    let folder = home.join(".cache/gnomon-tools/schemathesis");
    let program = folder.join("bin/schemathesis");
    if program.exists() {
        return Some(program);
    }
    let quiet = |command: &mut Command| {
        let done = command.stdout(Stdio::null()).stderr(Stdio::null()).status();
        done.is_ok_and(|status| status.success())
    };
    let made = quiet(Command::new("python3").args(["-m", "venv"]).arg(&folder))
        && quiet(Command::new(folder.join("bin/pip")).args(["install", "--quiet", VERSION]));
    if made {
        return Some(program);
    }
    // Half of it would be taken for all of it next time.
    let _ = std::fs::remove_dir_all(&folder);
    None
}

struct Serving(Child);

impl Drop for Serving {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A served store that has something in it, and where.
fn serve(folder: &Path, token: &str) -> (Serving, String) {
    let config = folder.join("gnomon.toml");
    std::fs::write(&config, "[api]\nrate = 1000000\n").expect("written");
    let mut command = Command::new(env!("CARGO_BIN_EXE_gnomon"));
    command.arg("serve").arg("-c").arg(config).arg("--store").arg(folder.join("policy.db"));
    command.args(["--listen", "127.0.0.1:0"]).stdout(Stdio::piped());
    let mut child = command.spawn().expect("the program");
    let mut line = String::new();
    BufReader::new(child.stdout.take().expect("its output")).read_line(&mut line).expect("a line");
    let serving = Serving(child);
    let url =
        line.split_whitespace().find(|word| word.starts_with("http")).expect("a URL").trim_end_matches(',').to_owned();
    for verb in [
        "vm add web-1 --address 10.0.1.10 --tag role=web",
        "vm add db-1 --address 10.0.2.20 --tag role=db",
        "group add web --tag role=web",
        "group add db --tag role=db",
        "relationship add web-to-db --from web --to db --protocol tcp --ports 5432 --action allow",
        "profile add web-to-db --source web --target db --strength 50",
        "override add debug --vm web-1 --action allow --reason why",
        "policy commit",
        "learn start web",
    ] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_gnomon"));
        let done = command.args(verb.split(' ')).args(["--url", &url, "--token", token]).output().expect("the program");
        assert!(done.status.success(), "{verb}: {}", String::from_utf8_lossy(&done.stderr));
    }
    (serving, url)
}

#[test]
fn what_the_description_says_is_so() {
    let Some(program) = schemathesis() else {
        println!("skipped: schemathesis cannot be installed here (python3-venv and a package index are needed)");
        return;
    };
    let folder = tempfile::tempdir().expect("a folder");
    let mut command = Command::new(env!("CARGO_BIN_EXE_gnomon"));
    let made =
        command.args(["token", "create", "tests", "--role", "admin", "--store"]).arg(folder.path().join("policy.db"));
    let token = String::from_utf8(made.output().expect("a token").stdout).expect("text").trim().to_owned();
    let (_serving, url) = serve(folder.path(), &token);
    let mut command = Command::new(program);
    command.current_dir(folder.path()).arg("run").arg(format!("{url}/api/v1/openapi.json"));
    command.arg("-H").arg(format!("Authorization: Bearer {token}"));
    // It does not end by itself.
    command.args(["--exclude-path", "/api/v1/events"]);
    command.args(["--checks", CHECKS, "--max-time", BUDGET, "--max-examples", "40", "--seed", "1"]);
    command.args(["--suppress-health-check", "all", "--continue-on-failure", "--request-timeout", "30"]);
    let done = command.env("NO_COLOR", "1").output().expect("schemathesis");
    let told = String::from_utf8_lossy(&done.stdout);
    assert!(done.status.success(), "{told}\n{}", String::from_utf8_lossy(&done.stderr));
    let summary: Vec<&str> = told.lines().rev().take(25).collect();
    println!("{}", summary.into_iter().rev().collect::<Vec<_>>().join("\n"));
}
