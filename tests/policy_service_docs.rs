//! Keeps `docs/policy-service.md` true: its commands are run again, one after another, against a served store, and must tell
//! what stands there; every verb must have an example. With `GNOMON_WRITE_DOCS=1` what they tell is written there instead.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

fn page() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/policy-service.md")
}

/// A shell's surroundings, which commands of the page change.
struct Shell {
    folder: tempfile::TempDir,
    url: Option<String>,
    /// `ID1` and `SUGGESTION1` in the page stand for what the inbox and the suggestions show first.
    ids: BTreeMap<String, String>,
    serving: Option<Child>,
}

impl Drop for Shell {
    fn drop(&mut self) {
        if let Some(child) = &mut self.serving {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl Shell {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        Self { folder, url: None, ids: BTreeMap::new(), serving: None }
    }

    fn command(&self, text: &str) -> Command {
        let program = Path::new(env!("CARGO_BIN_EXE_gnomon"));
        let path =
            format!("{}:{}", program.parent().expect("a folder").display(), std::env::var("PATH").expect("PATH"));
        let mut command = Command::new("sh");
        command.args(["-c", text]).current_dir(self.folder.path()).env("PATH", path).env("HOME", self.folder.path());
        command.env_remove("XDG_CONFIG_HOME").env_remove("GNOMON_TOKEN").env("USER", "me");
        if let Some(url) = &self.url {
            command.env("GNOMON_URL", url);
        }
        command
    }

    /// What a command tells.
    fn run(&mut self, text: &str) -> String {
        if let Some(serve) = text.strip_suffix(" &") {
            return self.serve(serve);
        }
        let mut meant = text.to_owned();
        for (word, id) in &self.ids {
            meant = meant.replace(word, id);
        }
        let output = self.command(&meant).output().expect("sh");
        let told = String::from_utf8(output.stdout).expect("text");
        assert!(output.status.success(), "{meant}: {told}{}", String::from_utf8_lossy(&output.stderr));
        if text.starts_with("gnomon inbox list") {
            let lines = told.lines().filter_map(|line| line.split_whitespace().next());
            let ids = lines.filter(|word| word.len() == 12 && word.bytes().all(|byte| byte.is_ascii_hexdigit()));
            self.ids.extend((1..).zip(ids).map(|(n, id)| (format!("ID{n}"), id.to_owned())));
        }
        if text.starts_with("gnomon suggestion list") && !text.contains("--state") {
            let is_id = |word: &&str| word.rsplit_once('-').is_some_and(|(_, id)| id.len() == 12 && is_hex(id));
            let ids = told.split_whitespace().filter(is_id);
            self.ids.extend((1..).zip(ids).map(|(n, id)| (format!("SUGGESTION{n}"), id.to_owned())));
        }
        // What was appended to a file has to be read there first.
        if text.contains(">>") {
            std::thread::sleep(Duration::from_secs(2));
        }
        told
    }

    fn serve(&mut self, text: &str) -> String {
        let text = format!("exec {text} --listen 127.0.0.1:0");
        let mut child = self.command(&text).stdout(Stdio::piped()).spawn().expect("sh");
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("its output")).read_line(&mut line).expect("a line");
        self.serving = Some(child);
        let url = line.split_whitespace().find(|word| word.starts_with("http")).expect("a URL");
        let url = url.trim_end_matches(',').to_owned();
        let shown = line.replace(&url, "http://127.0.0.1:8443");
        self.url = Some(url);
        shown
    }
}

fn is_hex(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// Without what differs from run to run: times, numbers of chance, and with them the widths of columns.
fn settled(text: &str) -> Vec<String> {
    let word = |word: &str| {
        let bytes = word.trim_end_matches([',', ';', ')', '.']).as_bytes();
        let digits = |mark: u8, length: usize| {
            bytes.len() == length
                && bytes.iter().all(|byte| byte.is_ascii_digit() || *byte == mark)
                && bytes.contains(&mark)
        };
        match bytes {
            _ if digits(b'-', 10) => "DATE".to_owned(),
            _ if digits(b':', 8) => "TIME".to_owned(),
            _ if bytes.len() >= 12 && bytes.iter().all(u8::is_ascii_hexdigit) => "HEX".to_owned(),
            _ => word.to_owned(),
        }
    };
    let line = |line: &str| line.split_whitespace().map(word).collect::<Vec<_>>().join(" ");
    let is_rule = |line: &&str| !line.is_empty() && line.chars().all(|c| matches!(c, '─' | '═' | ' '));
    text.lines().filter(|line| !is_rule(line)).map(line).collect()
}

#[test]
fn the_page_says_what_the_commands_say() {
    let text = std::fs::read_to_string(page()).expect("the page");
    let (mut shell, mut renewed, mut lines) = (Shell::new(), String::new(), text.lines());
    while let Some(line) = lines.next() {
        writeln!(renewed, "{line}").expect("a string takes all");
        if line != "```console" {
            continue;
        }
        let block: Vec<&str> = lines.by_ref().take_while(|line| *line != "```").collect();
        let mut block = block.into_iter().peekable();
        while let Some(line) = block.next() {
            let Some(command) = line.strip_prefix("$ ") else { continue };
            let mut command = command.to_owned();
            while command.ends_with('\\') {
                command.push('\n');
                command.push_str(block.next().expect("the rest of the command"));
            }
            let told = shell.run(&command);
            write!(renewed, "$ {command}\n{told}").expect("a string takes all");
        }
        renewed.push_str("```\n");
    }
    if std::env::var_os("GNOMON_WRITE_DOCS").is_some() {
        std::fs::write(page(), &renewed).expect("written");
        return;
    }
    let (now, then) = (settled(&renewed), settled(&text));
    for (now, then) in now.iter().zip(&then) {
        assert_eq!(now, then, "what is so, and what the page says");
    }
    assert_eq!(now.len(), then.len());
}

/// Verbs of a verb, as its help lists them.
fn verbs(of: &str) -> Vec<String> {
    let output = Command::new(env!("CARGO_BIN_EXE_gnomon")).args([of, "--help"]).output().expect("the program");
    let help = String::from_utf8(output.stdout).expect("text");
    let commands = help.lines().skip_while(|line| *line != "Commands:").skip(1).take_while(|line| !line.is_empty());
    // Descriptions that go over several lines are further to the right.
    let names = commands.filter(|line| !line.starts_with("   ")).filter_map(|line| line.split_whitespace().next());
    names.filter(|name| *name != "help").map(str::to_owned).collect()
}

#[test]
fn every_verb_has_an_example() {
    let text = std::fs::read_to_string(page()).expect("the page");
    let commands: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("$ ")).collect();
    let of_files = ["graph", "rules", "mirror", "unseen", "help"];
    for verb in [
        "vm",
        "tag",
        "group",
        "relationship",
        "rule",
        "profile",
        "override",
        "learn",
        "inbox",
        "suggestion",
        "policy",
        "audit",
        "token",
    ] {
        let known = verbs(verb);
        assert!(!known.is_empty(), "gnomon {verb} has no verbs");
        for inner in known.iter().filter(|inner| verb != "learn" || !of_files.contains(&inner.as_str())) {
            let example = format!("gnomon {verb} {inner}");
            assert!(commands.iter().any(|command| command.contains(&example)), "`{example}` has no example");
        }
    }
    assert!(commands.iter().any(|command| command.contains("gnomon serve")));
}
