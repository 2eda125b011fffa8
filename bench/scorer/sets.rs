//! Sets of labelled flows, and what of each is learnt from and scored. Labels are never shown to a method; where a set
//! has a clean part, it is what a method learns from.
//!
//! | set | learnt from | scored |
//! | --- | --- | --- |
//! | http | all rows, attacks among them | the same |
//! | kdd99, nslkdd | ordinary rows of the training file | the test file |
//! | unsw | a random half of the ordinary rows | all other rows |
//! | ctuzeek | the first half of each capture's ordinary rows | all other rows |
//!
//! Words become the share of the learnt rows that have them; amounts their logarithm. All rows keep their order.

use std::collections::HashMap;
use std::path::Path;

use anyhow::{Context, Result};
use gnomon::ingest::{Column, Table};
use rand_core::{Rng, SeedableRng};
use rand_pcg::Pcg32;

/// Rows of `width` numbers, and which of those to be scored are attacks.
pub struct Set {
    pub name: String,
    pub width: usize,
    pub train: Vec<f32>,
    pub test: Vec<f32>,
    pub attack: Vec<bool>,
}

impl Set {
    pub fn rows(&self) -> usize {
        self.attack.len()
    }
}

type Reader = fn(&Path) -> Result<Set>;

/// What becomes of a column.
enum Use {
    Plain,
    /// ln(1 + x).
    Amount,
    /// Share of the learnt rows with the same word.
    Share,
}

/// Reads the sets that are in `folder`.
pub fn all(folder: &Path) -> Result<Vec<Set>> {
    let readers: [(&str, Reader); 5] = [
        ("adbench_http.parquet", http),
        ("kdd99_corrected.parquet", |folder| kdd(folder, "kdd99", "kdd99_10pct", "kdd99_corrected")),
        ("nslkdd_test.parquet", |folder| kdd(folder, "nslkdd", "nslkdd_train20", "nslkdd_test")),
        ("unsw_nb15_82k.parquet", unsw),
        ("ctu_zeek_mixed4.parquet", ctuzeek),
    ];
    readers.iter().filter(|(file, _)| folder.join(file).exists()).map(|(_, read)| read(folder)).collect()
}

/// Two files and the name of the column that is not 0 for attacks: every other column is used, amounts as they are.
/// Only ordinary rows of `train` are learnt from.
pub fn of_files(train: &Path, test: &Path, label: &str) -> Result<Set> {
    let (learnt, scored) = (Table::read(train)?, Table::read(test)?);
    let attacks = attacks(&learnt, label)?;
    let names: Vec<String> = learnt.names().filter(|n| *n != label).map(str::to_owned).collect();
    let columns: Vec<(&str, Use)> = names
        .iter()
        .map(|name| match learnt.column(name) {
            Ok(Column::Words(_)) => (name.as_str(), Use::Share),
            _ => (name.as_str(), Use::Plain),
        })
        .collect();
    let ordinary: Vec<usize> = (0..learnt.rows).filter(|i| !attacks[*i]).collect();
    let name = test.file_stem().map_or_else(String::new, |n| n.to_string_lossy().into_owned());
    let all: Vec<usize> = (0..scored.rows).collect();
    join(&name, &columns, (&learnt, &ordinary), (&scored, &all), label)
}

fn http(folder: &Path) -> Result<Set> {
    let table = Table::read(&folder.join("adbench_http.parquet"))?;
    let columns = [("log_duration", Use::Plain), ("log_src_bytes", Use::Plain), ("log_dst_bytes", Use::Plain)];
    let all: Vec<usize> = (0..table.rows).collect();
    join("http", &columns, (&table, &all), (&table, &all), "label")
}

fn kdd(folder: &Path, name: &str, train: &str, test: &str) -> Result<Set> {
    let amounts = ["duration", "src_bytes", "dst_bytes", "count", "srv_count"];
    let words = ["protocol_type", "service", "flag"];
    let plain = "land wrong_fragment urgent serror_rate srv_serror_rate rerror_rate srv_rerror_rate same_srv_rate \
        diff_srv_rate srv_diff_host_rate dst_host_count dst_host_srv_count dst_host_same_srv_rate \
        dst_host_diff_srv_rate dst_host_same_src_port_rate dst_host_srv_diff_host_rate dst_host_serror_rate \
        dst_host_srv_serror_rate dst_host_rerror_rate dst_host_srv_rerror_rate";
    let learnt = Table::read(&folder.join(train).with_extension("parquet"))?;
    let scored = Table::read(&folder.join(test).with_extension("parquet"))?;
    let attacks = attacks(&learnt, "label")?;
    let ordinary: Vec<usize> = (0..learnt.rows).filter(|i| !attacks[*i]).collect();
    let all: Vec<usize> = (0..scored.rows).collect();
    join(name, &columns(&amounts, &words, plain), (&learnt, &ordinary), (&scored, &all), "label")
}

fn unsw(folder: &Path) -> Result<Set> {
    let amounts = [
        "dur", "spkts", "dpkts", "sbytes", "dbytes", "rate", "sload", "dload", "sloss", "dloss", "sinpkt", "dinpkt",
        "sjit", "djit", "smean", "dmean",
    ];
    let words = ["proto", "service", "state"];
    let plain = "sttl dttl swin dwin tcprtt synack ackdat ct_srv_src ct_state_ttl ct_dst_ltm ct_src_dport_ltm \
        ct_dst_sport_ltm ct_dst_src_ltm ct_src_ltm ct_srv_dst is_sm_ips_ports";
    let table = Table::read(&folder.join("unsw_nb15_82k.parquet"))?;
    let attacks = attacks(&table, "label")?;
    let mut ordinary: Vec<usize> = (0..table.rows).filter(|i| !attacks[*i]).collect();
    let mut rng = Pcg32::seed_from_u64(0);
    for i in (1..ordinary.len()).rev() {
        ordinary.swap(i, (rng.next_u64() % (i as u64 + 1)) as usize);
    }
    ordinary.truncate(ordinary.len() / 2);
    ordinary.sort_unstable();
    let rest: Vec<usize> = (0..table.rows).filter(|i| ordinary.binary_search(i).is_err()).collect();
    join("unsw", &columns(&amounts, &words, plain), (&table, &ordinary), (&table, &rest), "label")
}

/// With what an appliance knows besides the connection: mean packet sizes, the time since the source's last one.
fn ctuzeek(folder: &Path) -> Result<Set> {
    let amounts = [
        "duration",
        "orig_bytes",
        "resp_bytes",
        "orig_pkts",
        "orig_ip_bytes",
        "resp_pkts",
        "resp_ip_bytes",
        "missed_bytes",
        "since_last",
    ];
    let words = ["proto", "service", "conn_state", "history", "resp_p"];
    let mut table = Table::read(&folder.join("ctu_zeek_mixed4.parquet"))?;
    add_context(&mut table)?;
    let attacks = attacks(&table, "label")?;
    let captures = table.words("capture")?;
    let mut left: HashMap<&str, usize> = HashMap::new();
    for (capture, _) in captures.iter().zip(&attacks).filter(|(_, attack)| !**attack) {
        *left.entry(capture).or_default() += 1;
    }
    left.values_mut().for_each(|count| *count = count.div_ceil(2));
    let mut learnt = Vec::new();
    for (i, capture) in captures.iter().enumerate().filter(|(i, _)| !attacks[*i]) {
        let left = left.get_mut(capture.as_str()).context("a capture with ordinary rows")?;
        if *left > 0 {
            *left -= 1;
            learnt.push(i);
        }
    }
    let rest: Vec<usize> = (0..table.rows).filter(|i| learnt.binary_search(i).is_err()).collect();
    let columns = columns(&amounts, &words, "mean_orig mean_resp low_server_port low_client_port");
    join("ctuzeek", &columns, (&table, &learnt), (&table, &rest), "label")
}

fn add_context(table: &mut Table) -> Result<()> {
    let (captures, sources) = (table.words("capture")?, table.words("orig_h")?);
    let mut last: HashMap<(&str, &str), f64> = HashMap::new();
    let mut since = Vec::with_capacity(table.rows);
    for (at, key) in table.numbers("ts")?.into_iter().zip(captures.iter().zip(&sources)) {
        let before = last.insert((key.0, key.1), at);
        since.push(before.map_or(3600.0, |before| (at - before).clamp(0.0, 3600.0)));
    }
    // Of logarithms, as the amounts themselves are.
    let ratio = |bytes: &str, packets: &str| -> Result<Vec<f64>> {
        let (bytes, packets) = (table.numbers(bytes)?, table.numbers(packets)?);
        Ok(bytes.iter().zip(packets).map(|(b, p)| b.ln_1p() - p.ln_1p()).collect())
    };
    let low = |port: &str| -> Result<Vec<f64>> {
        Ok(table.numbers(port)?.iter().map(|p| f64::from(u8::from(*p < 1024.0))).collect())
    };
    let added = [
        ("mean_orig", ratio("orig_ip_bytes", "orig_pkts")?),
        ("mean_resp", ratio("resp_ip_bytes", "resp_pkts")?),
        ("low_server_port", low("resp_p")?),
        ("low_client_port", low("orig_p")?),
        ("since_last", since),
    ];
    added.into_iter().for_each(|(name, values)| table.add(name, values));
    Ok(())
}

/// Two clusters and records between them and far away: for where there is no set.
pub fn made() -> Set {
    const WIDTH: usize = 12;
    let mut rng = Pcg32::seed_from_u64(7);
    let mut rows = |count: usize, odd: bool| -> Vec<f32> {
        let mut values = Vec::with_capacity(count * WIDTH);
        for i in 0..count {
            let shift = if odd { [3.0, 6.5, 12.0][i % 3] } else { [0.0, 6.0][i % 2] };
            values
                .extend((0..WIDTH).map(|_| shift + (0..6).map(|_| rng.next_u32() as f32 / 2f32.powi(32)).sum::<f32>()));
        }
        values
    };
    let train = rows(20_000, false);
    let mut test = rows(20_000, false);
    test.extend(rows(1_000, true));
    let attack = (0..21_000).map(|i| i >= 20_000).collect();
    Set { name: "made".to_owned(), width: WIDTH, train, test, attack }
}

fn columns<'a>(amounts: &[&'a str], words: &[&'a str], plain: &'a str) -> Vec<(&'a str, Use)> {
    let amounts = amounts.iter().map(|name| (*name, Use::Amount));
    let words = words.iter().map(|name| (*name, Use::Share));
    amounts.chain(words).chain(plain.split_whitespace().map(|name| (name, Use::Plain))).collect()
}

fn attacks(table: &Table, label: &str) -> Result<Vec<bool>> {
    Ok(table.numbers(label)?.iter().map(|l| *l != 0.0).collect())
}

/// Rows `learnt.1` of one table and `scored.1` of another, column by column.
fn join(
    name: &str,
    columns: &[(&str, Use)],
    learnt: (&Table, &[usize]),
    scored: (&Table, &[usize]),
    label: &str,
) -> Result<Set> {
    let width = columns.len();
    let (mut train, mut test) = (vec![0f32; learnt.1.len() * width], vec![0f32; scored.1.len() * width]);
    for (place, (column, how)) in columns.iter().enumerate() {
        let mut shares: HashMap<String, f64> = HashMap::new();
        if matches!(how, Use::Share) {
            let words = learnt.0.words(column)?;
            for i in learnt.1 {
                *shares.entry(words[*i].clone()).or_default() += 1.0 / learnt.1.len() as f64;
            }
        }
        for ((table, rows), out) in [(learnt, &mut train), (scored, &mut test)] {
            let values: Vec<f64> = match how {
                Use::Plain => table.numbers(column)?,
                Use::Amount => table.numbers(column)?.iter().map(|x| x.max(0.0).ln_1p()).collect(),
                Use::Share => table.words(column)?.iter().map(|w| shares.get(w).copied().unwrap_or(0.0)).collect(),
            };
            rows.iter().enumerate().for_each(|(i, row)| out[i * width + place] = values[*row] as f32);
        }
    }
    let attacks = attacks(scored.0, label)?;
    let attack = scored.1.iter().map(|i| attacks[*i]).collect();
    Ok(Set { name: name.to_owned(), width, train, test, attack })
}
