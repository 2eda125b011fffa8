//! Administrators work on the VMs: SSH on port 22, long and interactive.

use super::{MS, S};
use crate::scenario::content::{Body, Fill};
use crate::scenario::dice::Dice;
use crate::scenario::ledger::Label;
use crate::scenario::stage::{Side, Stage};
use crate::scenario::tcp::{Conversation, Next};
use crate::scenario::topology::{HostIx, Kind};

pub(in crate::scenario) fn open(stage: &mut Stage<'_>, dice: &mut Dice, now: u64) {
    let admin = *dice.pick(stage.topology.of(Kind::Admin));
    let targets: Vec<HostIx> = stage.topology.local().filter(|&h| h != admin).collect();
    if targets.is_empty() {
        return;
    }
    let hosts = [admin, *dice.pick(&targets)];
    let session = Session::new("SSH-2.0-OpenSSH_9.6\r\n", Work::Interactive { lines: 3 + dice.below(40) });
    stage.connect(now, hosts, 22, Label::service("ssh"), dice, session);
}

/// What happens once keys are exchanged.
#[derive(Debug)]
pub(in crate::scenario) enum Work {
    /// Log in, type lines, read what comes.
    Interactive { lines: usize },
    /// Log in, let commands run one by one, read what they say.
    Command { runs: usize },
    /// Try passwords until the server hangs up.
    Guess { tries: usize },
}

/// One SSH connection (RFC 4253), generated as it goes.
#[derive(Debug)]
pub(in crate::scenario) struct Session {
    banner: &'static str,
    step: usize,
    work: Work,
    /// Keys left to type on this line; an echo is due after each.
    typing: usize,
    echo_due: bool,
}

impl Session {
    pub(in crate::scenario) fn new(banner: &'static str, work: Work) -> Self {
        Self { banner, step: 0, work, typing: 0, echo_due: false }
    }

    fn type_lines(&mut self, dice: &mut Dice) -> Next {
        let Work::Interactive { lines } = &mut self.work else {
            return Next::Close { from: Side::Client, after_ns: MS };
        };
        if self.echo_due {
            self.echo_due = false;
            let output = if self.typing == 0 { dice.log_normal(300.0, 1.5, 40..32_000) } else { 36 };
            return sealed(Side::Server, dice.within(MS..8 * MS), output, dice);
        }
        if self.typing == 0 {
            if *lines == 0 {
                return Next::Close { from: Side::Client, after_ns: 300 * MS };
            }
            *lines -= 1;
            self.typing = 3 + dice.below(25);
            self.echo_due = true;
            return sealed(Side::Client, dice.exponential(9.0 * S as f64) as u64 + 100 * MS, 36, dice);
        }
        self.typing -= 1;
        self.echo_due = true;
        sealed(Side::Client, dice.within(60 * MS..350 * MS), 36, dice)
    }

    fn command(&mut self, dice: &mut Dice) -> Next {
        let Work::Command { runs } = &mut self.work else {
            return Next::Close { from: Side::Client, after_ns: MS };
        };
        if self.echo_due {
            self.echo_due = false;
            return sealed(
                Side::Server,
                dice.within(20 * MS..900 * MS),
                dice.log_normal(1_200.0, 1.2, 60..64_000),
                dice,
            );
        }
        if *runs == 0 {
            return Next::Close { from: Side::Client, after_ns: 5 * MS };
        }
        *runs -= 1;
        self.echo_due = true;
        sealed(Side::Client, dice.within(2 * MS..200 * MS), 60 + dice.below(300) as u64, dice)
    }

    fn guess(&mut self, dice: &mut Dice) -> Next {
        let Work::Guess { tries } = &mut self.work else {
            return Next::Close { from: Side::Client, after_ns: MS };
        };
        if self.echo_due {
            self.echo_due = false;
            // Servers take their time over a wrong password.
            return sealed(Side::Server, dice.within(150 * MS..300 * MS), 52, dice);
        }
        if *tries == 0 {
            return Next::Close { from: Side::Server, after_ns: 5 * MS };
        }
        *tries -= 1;
        self.echo_due = true;
        sealed(Side::Client, dice.within(2 * MS..20 * MS), 148, dice)
    }
}

impl Conversation for Session {
    fn next(&mut self, dice: &mut Dice) -> Next {
        self.step += 1;
        let exact = |from, after_ns, bytes| Next::Say { from, after_ns, body: Body::exact(bytes) };
        match self.step {
            1 => exact(Side::Client, 200_000, self.banner.as_bytes().to_vec()),
            2 => exact(Side::Server, 8 * MS, b"SSH-2.0-OpenSSH_9.6p1 Debian-3\r\n".to_vec()),
            3 => exact(Side::Client, 300_000, key_init(dice)),
            4 => exact(Side::Server, 500_000, key_init(dice)),
            5 => exact(Side::Client, MS, packet(30, &field(&dice.bytes(32)))),
            6 => {
                let host_key = [field(b"ssh-ed25519"), field(&dice.bytes(32))].concat();
                let signature = [field(b"ssh-ed25519"), field(&dice.bytes(64))].concat();
                let reply = [field(&host_key), field(&dice.bytes(32)), field(&signature)].concat();
                exact(Side::Server, 4 * MS, [packet(31, &reply), packet(21, &[])].concat())
            }
            7 => exact(Side::Client, 2 * MS, packet(21, &[])),
            8 => sealed(Side::Client, 100_000, 44, dice),
            9 => sealed(Side::Server, 200_000, 44, dice),
            _ => match self.work {
                Work::Interactive { .. } => self.type_lines(dice),
                Work::Command { .. } => self.command(dice),
                Work::Guess { .. } => self.guess(dice),
            },
        }
    }
}

/// An encrypted packet of about `len` bytes: encrypted length, blocks of 8, a tag of 16.
fn sealed(from: Side, after_ns: u64, len: u64, dice: &mut Dice) -> Next {
    let blocks = len.saturating_sub(20).div_ceil(8).max(2) * 8;
    Next::Say { from, after_ns, body: Body::filled(Vec::new(), blocks + 20, Fill::Random, dice) }
}

/// A length and as many bytes.
fn field(bytes: &[u8]) -> Vec<u8> {
    [&(bytes.len() as u32).to_be_bytes()[..], bytes].concat()
}

/// An unencrypted packet: length, padding length, message, at least 4 bytes of padding to a multiple of 8.
fn packet(message: u8, body: &[u8]) -> Vec<u8> {
    let unpadded = 4 + 1 + 1 + body.len();
    let padding = 8 - unpadded % 8 + if 8 - unpadded % 8 < 4 { 8 } else { 0 };
    let mut out = ((unpadded + padding - 4) as u32).to_be_bytes().to_vec();
    out.extend_from_slice(&[padding as u8, message]);
    out.extend_from_slice(body);
    out.resize(out.len() + padding, 0);
    out
}

/// SSH_MSG_KEXINIT: cookie and ten lists of names.
fn key_init(dice: &mut Dice) -> Vec<u8> {
    let mut body = dice.bytes(16);
    let ciphers = "chacha20-poly1305@openssh.com";
    let lists = [
        "curve25519-sha256",
        "ssh-ed25519",
        ciphers,
        ciphers,
        "hmac-sha2-256",
        "hmac-sha2-256",
        "none",
        "none",
        "",
        "",
    ];
    for list in lists {
        body.extend(field(list.as_bytes()));
    }
    body.extend_from_slice(&[0; 5]);
    packet(20, &body)
}
