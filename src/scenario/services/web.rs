//! Clients read web pages: mostly TLS on 443, some plain HTTP on 80.

use super::{MS, S};
use crate::scenario::content::{self, Body, Fill};
use crate::scenario::dice::Dice;
use crate::scenario::ledger::Label;
use crate::scenario::stage::{Side, Stage};
use crate::scenario::tcp::{Next, Script};
use crate::scenario::topology::Kind;

const PAGES: [&str; 8] =
    ["/", "/index.html", "/news", "/about", "/cart", "/img/logo.png", "/api/v1/items", "/style.css"];
const SITES: [&str; 3] = ["www.example.com", "shop.example.com", "static.example.net"];

pub(in crate::scenario) fn open(stage: &mut Stage<'_>, dice: &mut Dice, now: u64) {
    let (clients, servers) = (stage.topology.of(Kind::Clients), stage.topology.of(Kind::Web));
    let hosts = [clients[dice.skewed(clients.len())], servers[dice.below(servers.len())]];
    let secure = dice.chance(0.8);
    let steps = if secure { tls(dice) } else { plain(dice) };
    let (port, name) = if secure { (443, "https") } else { (80, "http") };
    stage.connect(now, hosts, port, Label::service(name), dice, Script::new(steps));
}

/// Bytes of a page: half are below 8 kB, some are above a megabyte.
fn page_len(dice: &mut Dice) -> u64 {
    dice.log_normal(8_000.0, 1.5, 120..2_000_000)
}

fn tls(dice: &mut Dice) -> Vec<Next> {
    let site = dice.pick(&SITES);
    let hello = content::client_hello(site, dice);
    let certificate_len = dice.within(1800..4200);
    let answer = Body::filled(content::server_hello(dice), certificate_len, Fill::Tls, dice);
    let finished = Body::filled(content::CHANGE_CIPHER.to_vec(), 53, Fill::Tls, dice);
    let mut steps = vec![
        say(Side::Client, dice.within(50_000..400_000), Body::exact(hello)),
        say(Side::Server, dice.within(400_000..1_500_000), answer),
        say(Side::Client, dice.within(300_000..2_000_000), finished),
    ];
    for request in 0..1 + dice.below(4) {
        let think = if request == 0 { dice.within(100_000..900_000) } else { dice.within(30 * MS..4 * S) };
        let (request_len, answer_len) = (dice.within(180..900), page_len(dice));
        steps.push(say(Side::Client, think, Body::filled(Vec::new(), request_len, Fill::Tls, dice)));
        let work = dice.within(MS..60 * MS);
        steps.push(say(Side::Server, work, Body::filled(Vec::new(), answer_len, Fill::Tls, dice)));
    }
    steps.push(ending(dice));
    steps
}

fn plain(dice: &mut Dice) -> Vec<Next> {
    let mut steps = Vec::new();
    let site = *dice.pick(&SITES);
    for request in 0..1 + dice.below(3) {
        let think = if request == 0 { dice.within(50_000..400_000) } else { dice.within(30 * MS..4 * S) };
        let page = *dice.pick(&PAGES);
        let ask = format!(
            "GET {page} HTTP/1.1\r\nHost: {site}\r\nUser-Agent: Mozilla/5.0 (X11; Linux x86_64)\r\n\
             Accept: text/html,*/*\r\nConnection: keep-alive\r\n\r\n"
        );
        steps.push(say(Side::Client, think, Body::exact(ask.into_bytes())));
        let len = page_len(dice);
        let head =
            format!("HTTP/1.1 200 OK\r\nServer: nginx\r\nContent-Type: text/html\r\nContent-Length: {len}\r\n\r\n");
        let work = dice.within(MS..40 * MS);
        steps.push(say(Side::Server, work, Body::filled(head.into_bytes(), len, Fill::Text, dice)));
    }
    steps.push(ending(dice));
    steps
}

/// Mostly the client closes, sometimes the server after a while, now and then someone gives up.
fn ending(dice: &mut Dice) -> Next {
    match dice.below(100) {
        0..=3 => Next::Reset { from: Side::Client, after_ns: dice.within(MS..200 * MS) },
        4..=24 => Next::Close { from: Side::Server, after_ns: dice.within(5 * S..15 * S) },
        _ => Next::Close { from: Side::Client, after_ns: dice.within(MS..3 * S) },
    }
}

fn say(from: Side, after_ns: u64, body: Body) -> Next {
    Next::Say { from, after_ns, body }
}
