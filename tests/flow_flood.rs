//! A full flow table: what gives way, what never does, and that every loss is known by number.

mod common;

use std::collections::BTreeSet;

use common::frames::{self, ACK, SYN};
use common::rig::{Rig, Setup};
use gnomon::flow::{EndReason, FlowRecord, FlowState};

const SERVER: &str = "10.0.1.1";
const ESTABLISHED: u16 = 200;
const FLOOD: u16 = 3000;

fn client(n: u16, flood: bool) -> String {
    format!("10.{}.{}.{}", if flood { 8 } else { 0 }, n >> 8, n & 255)
}

fn to_server(n: u16, flood: bool, flags: u8) -> Vec<u8> {
    frames::tcp((&client(n, flood), SERVER), (40_000, 443), flags, (100, 501), b"")
}

fn to_client(n: u16, flags: u8) -> Vec<u8> {
    frames::tcp((SERVER, &client(n, false)), (443, 40_000), flags, (500, 101), b"")
}

/// Connections are set up; a flood of SYNs comes, with their traffic in between; then they go on.
fn traffic() -> Vec<Vec<u8>> {
    let mut frames: Vec<Vec<u8>> = (0..ESTABLISHED)
        .flat_map(|n| [to_server(n, false, SYN), to_client(n, SYN | ACK), to_server(n, false, ACK)])
        .collect();
    for n in 0..FLOOD {
        frames.push(to_server(n, true, SYN));
        if n % 8 == 0 {
            frames.push(to_client(n / 8 % ESTABLISHED, ACK));
        }
    }
    frames.extend((0..ESTABLISHED).map(|n| to_server(n, false, ACK)));
    frames
}

fn setup(capacity: usize) -> Setup {
    Setup::new(&format!("[policy]\ndefault = \"allow\"\n[flow]\ncapacity = {capacity}\n"))
}

fn is_established_client(record: &FlowRecord) -> bool {
    record.tuple.src < 0x0a08_0000
}

#[test]
fn a_syn_flood_evicts_itself_and_every_record_is_numbered() {
    let rig = Rig::start();
    let sent = traffic();
    let capacity = usize::from(ESTABLISHED) + 50;
    let out = rig.run(&setup(capacity), &sent);
    assert_eq!(out.forwarded.len(), sent.len(), "everything is forwarded");
    let summary = &out.summary;
    assert_eq!(summary.flows, u64::from(ESTABLISHED) + u64::from(FLOOD), "no connection began twice");
    assert_eq!(
        (summary.flows_evicted_half_open, summary.flows_evicted),
        (u64::from(FLOOD) - 50, u64::from(FLOOD) - 50)
    );
    assert_eq!((summary.flows_evicted_idle, summary.flows_evicted_closed, summary.untracked), (0, 0, 0));

    let (kept, flood): (Vec<&FlowRecord>, Vec<&FlowRecord>) =
        out.records.iter().partition(|record| is_established_client(record));
    assert_eq!(kept.len(), usize::from(ESTABLISHED));
    for record in kept {
        assert_eq!((record.state, record.reason), (FlowState::Established, EndReason::Forced));
        assert!(record.packets[0] == 3 && record.packets[1] >= 2, "{record:?}");
    }
    // The oldest went first.
    let evicted: Vec<u64> = flood.iter().filter(|r| r.reason == EndReason::Evicted).map(|r| r.start).collect();
    let late = evicted.windows(2).filter(|two| two[0] > two[1]).count();
    assert!(late < evicted.len() / 20, "{late} of {} out of order", evicted.len());

    let numbers: Vec<u64> = out.records.iter().map(|record| record.sequence).collect();
    assert_eq!(numbers, (0..out.records.len() as u64).collect::<Vec<_>>());
    assert_eq!((summary.records, summary.records_lost), (numbers.len() as u64, 0));
}

#[test]
fn a_table_full_of_established_flows_refuses_newcomers_and_counts_them() {
    let rig = Rig::start();
    let out = rig.run(&setup(usize::from(ESTABLISHED)), &traffic());
    assert_eq!((out.summary.flows, out.summary.flows_evicted), (u64::from(ESTABLISHED), 0));
    assert_eq!(out.summary.untracked, u64::from(FLOOD));
    assert_eq!(out.forwarded.len(), traffic().len(), "judged without state");
}

#[test]
fn records_that_found_no_room_are_the_gaps_in_the_numbers() {
    let rig = Rig::start();
    let setup = Setup { records: 64, ..setup(250) };
    let sent: Vec<Vec<u8>> = traffic();
    let out = rig.live(&setup, |io| {
        for part in sent.chunks(100) {
            let before = io.received();
            io.feed(0, part);
            io.wait_received(before + part.len() as u64);
            // A reader that is there now and then.
            if before.is_multiple_of(400) {
                io.collect();
            }
        }
    });
    let numbers: BTreeSet<u64> = out.records.iter().map(|record| record.sequence).collect();
    assert_eq!(numbers.len(), out.records.len());
    let (written, lost) = (out.summary.records, out.summary.records_lost);
    assert!(lost > 100 && written > 100, "{written} {lost}");
    assert_eq!(written, numbers.len() as u64);
    assert!(numbers.last().is_some_and(|last| *last < written + lost));
    let missing = (0..written + lost).filter(|number| !numbers.contains(number)).count() as u64;
    assert_eq!(missing, lost);
}
