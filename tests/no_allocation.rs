//! Nothing on the way of a packet allocates: a counting allocator watches the worker's thread.

mod common;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use common::faults::traffic;
use common::rig::{Rig, Setup};
use gnomon::filter::{Expression, Schema};
use gnomon::packet::{self, Headers, KeyFrom};
use gnomon::rules::{Compiled, Labels};
use gnomon::worker::tap::{CaptureLane, HEAD_WORDS, Keep, Point, PortMask, Tap, TapSink, TraceLane};
use gnomon::worker::{Mailbox, Walk};

/// The system's allocator, counting calls by threads that asked for it.
struct Counting;

thread_local! {
    static WATCHED: Cell<bool> = const { Cell::new(false) };
}

/// Calls by watched threads while [`ARMED`].
static CALLS: AtomicU64 = AtomicU64::new(0);
static ARMED: AtomicBool = AtomicBool::new(false);

fn count() {
    // A thread that is being torn down has no cell any more, and is not watched.
    if WATCHED.try_with(Cell::get).unwrap_or(false) && ARMED.load(Ordering::SeqCst) {
        CALLS.fetch_add(1, Ordering::SeqCst);
    }
}

// SAFETY: every call goes unchanged to the system's allocator, which keeps the contract; counting touches only
// an atomic and a constant-initialised thread-local cell without destructor, and allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count();
        // SAFETY: the caller's promises are passed on.
        unsafe { System.realloc(block, layout, size) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        count();
        // SAFETY: the caller's promises are passed on.
        unsafe { System.dealloc(block, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const CONFIG: &str = r#"
[flow.timeouts]
tcp_opening = "100ms"
tcp_established = "200ms"
tcp_closed = "50ms"
udp = "100ms"
icmp = "100ms"
active = "150ms"
[policy]
default = "reject"
[[group]]
name = "clients"
cidrs = ["10.0.0.0/24", "fd00::/32"]
[[rule]]
id = "web"
from = "clients"
protocol = "tcp"
ports = 80
action = "allow"
[[rule]]
id = "names"
protocol = "udp"
ports = 53
action = "allow"
[[rule]]
id = "late"
protocol = "icmp"
action = "log"
[[mirror]]
name = "all"
group = "any"
[[mirror]]
name = "share"
group = "clients"
flows = "50%"
[[mirror]]
name = "seventh"
group = "any"
sample = "1/7"
[[target]]
name = "collector"
tunnel = "geneve"
to = "192.0.2.2"
from = "192.0.2.1"
to_mac = "02:00:00:00:00:09"
slice = 96
max_packets = 5_000_000
[[target]]
name = "pool"
tunnel = "geneve"
to = ["192.0.2.3", "192.0.2.4"]
from = "192.0.2.1"
health = "icmp"
mtu = 256
oversize = "fragment"
dedup = "50ms"
[[mirror]]
name = "pooled"
to = "pool"
group = "any"
[[target]]
name = "masked"
mask = ["digits:4", "after:a"]
slice = "headers+64"
[[mirror]]
name = "masked"
to = "masked"
group = "any"
[[mirror]]
name = "wrapped"
to = "collector"
group = "any"
first_packets = 2000
rules = ["web", "names"]
"#;

#[test]
fn a_worker_in_steady_state_allocates_nothing() {
    allocates_nothing(Vec::new(), Arc::default(), &|| {});
}

#[test]
fn a_worker_that_is_looked_at_allocates_nothing() {
    let lane = Arc::new(CaptureLane::new(1 << 20, 2000, 2));
    let notes = Arc::new(TraceLane::new(100, Keep::Last));
    let tap = |text: &str, sink| {
        let filter = Arc::new(Expression::parse(text, &Schema::PACKET).expect("an expression"));
        Tap { filter, points: Point::ALL.into_iter().collect(), ports: PortMask::ALL, sink }
    };
    let taps = vec![
        tap("ip=10.0.0.0/8,fd00::/16 and not dest_port=81", TapSink::Capture(vec![lane.clone()])),
        tap("tcp_flags=syn or drop", TapSink::Trace(vec![notes.clone()])),
    ];
    let mailbox = Arc::new(Mailbox::default());
    let filter =
        Expression::parse("group=clients or rule=web,names or bytes>200", &Schema::FLOW).expect("an expression");
    let (asked, found) = (Cell::new(0), Cell::new(0));
    allocates_nothing(taps, mailbox.clone(), &|| {
        let mut bytes = Vec::new();
        let walk = Arc::new(Walk::new(filter.clone()));
        // The one before it may still be at work.
        if mailbox.ask(walk.clone()) {
            asked.set(asked.get() + 1);
            std::thread::sleep(std::time::Duration::from_millis(5));
            found.set(found.get() + std::iter::from_fn(|| walk.next_found()).count());
        }
        while lane.ring.read(&mut bytes, |words: &[u64; HEAD_WORDS]| words[1] as u32 as usize).is_some() {}
    });
    assert!(asked.get() > 20 && found.get() > 100, "flows were listed: {} times, {}", asked.get(), found.get());
    assert!(lane.at(1, Point::Rx).expect("a port").matched.get() > 10_000 && notes.matched.get() > 1000);
}

/// `read` takes away what taps have kept, and may ask for flows.
fn allocates_nothing(taps: Vec<Tap>, mailbox: Arc<Mailbox>, read: &dyn Fn()) {
    let rig = Rig::start();
    let setup = Setup { mirror_ring: 2048, taps, mailbox, ..Setup::new(CONFIG) };
    let before = CALLS.load(Ordering::SeqCst);
    let mixed = traffic();
    let out = rig.live_on(
        &setup,
        || WATCHED.set(true),
        |io| {
            io.keep = false;
            for _ in 0..5 {
                io.feed(0, &mixed);
                io.collect();
            }
            io.wait(|io| io.settled() == io.received() && io.received() == 5 * mixed.len() as u64, "warm");
            let records = io.counters[0].records.get();
            ARMED.store(true, Ordering::SeqCst);
            for round in 6..=60 {
                io.feed(0, &mixed);
                io.wait_received(round * mixed.len() as u64);
                io.collect();
                read();
                // Lets flows time out, and time slices end, while the worker looks for them.
                std::thread::sleep(std::time::Duration::from_millis(10));
            }
            ARMED.store(false, Ordering::SeqCst);
            assert!(io.counters[0].records.get() > records + 1000, "flows ended meanwhile");
        },
    );
    println!("{} packets, {} records, {:?}", out.summary.rx, out.summary.records, out.summary.mirrored);
    assert!(out.summary.generated > 1000, "packets were rejected and answered");
    assert!(out.summary.mirrored.values().all(|m| m.packets > 1000), "copies were made");
    assert!(out.summary.tx > 10_000 && out.summary.drops["rejected"] > 1000);
    assert_eq!(CALLS.load(Ordering::SeqCst) - before, 0, "allocations and frees on the worker's thread");
}

#[test]
fn classifying_allocates_nothing_and_the_count_counts() {
    let rig = Rig::start();
    let setup = Setup::new(CONFIG);
    let labels = Labels::new(64);
    let compiled = Arc::new(Compiled::build(&setup.config.policy, 1, &labels).expect("compiles"));
    let mut headers = Headers::default();
    let subject = |frame: &Vec<u8>| {
        let _ = packet::parse(frame, frame.len() as u32, &mut headers);
        packet::subject(&headers, KeyFrom::Outer)
    };
    let subjects: Vec<_> = traffic().iter().filter_map(subject).collect();
    assert!(subjects.len() > 500);
    drop(rig);
    let calls = |work: &dyn Fn()| {
        let _turn = Rig::start();
        let before = CALLS.load(Ordering::SeqCst);
        WATCHED.set(true);
        ARMED.store(true, Ordering::SeqCst);
        work();
        ARMED.store(false, Ordering::SeqCst);
        WATCHED.set(false);
        let made = CALLS.load(Ordering::SeqCst) - before;
        CALLS.fetch_sub(made, Ordering::SeqCst);
        made
    };
    let classify = || {
        for subject in &subjects {
            black_box(compiled.classify(black_box(subject)));
        }
    };
    assert_eq!(calls(&classify), 0);
    let parse = || {
        let mut headers = Headers::default();
        let frame = [0u8; 60];
        black_box(packet::parse(&frame, 60, &mut headers)).ok();
    };
    assert_eq!(calls(&parse), 0);
    // The measure itself works: one vector is one allocation and one release.
    assert_eq!(calls(&|| drop(black_box(Vec::<u8>::with_capacity(64)))), 2);
}
