//! The DPDK layer on virtual devices: ownership, bursts, clones, rings, lcores.

use std::sync::{Arc, Mutex, OnceLock};

use gnomon::dpdk::{Burst, Device, Eal, EalOptions, Mbuf, Mempool, Outbox, PacketRing, Port, PortOptions, Spread};

/// DPDK starts once per process; tests share it and take turns.
fn eal() -> (Arc<Eal>, std::sync::MutexGuard<'static, ()>) {
    static EAL: OnceLock<Arc<Eal>> = OnceLock::new();
    static TURN: Mutex<()> = Mutex::new(());
    let turn = TURN.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    let eal = EAL.get_or_init(|| {
        let options = EalOptions {
            lcores: vec![vec![0], vec![0], vec![0]],
            hugepages: false,
            memory_mb: 128,
            file_prefix: format!("gnomon-test-{}", std::process::id()),
            pci_allow: vec![],
        };
        Arc::new(Eal::start(&options).expect("DPDK starts without hugepages"))
    });
    (eal.clone(), turn)
}

fn options(name: &str, device: &str, queues: u16) -> PortOptions {
    PortOptions {
        name: name.into(),
        device: device.into(),
        rx_queues: queues,
        tx_queues: queues,
        rx_descriptors: 256,
        tx_descriptors: 256,
        mtu: None,
        promiscuous: true,
    }
}

fn open(eal: &Arc<Eal>, device: &str, queues: u16, pool: &Mempool) -> Arc<Port> {
    let opened = Device::open(eal, device).expect("device opens");
    Arc::new(opened.start(&options("test", device, queues), pool).expect("port starts"))
}

#[test]
fn a_ring_device_gives_back_what_was_sent_and_buffers_go_home() {
    let (eal, _turn) = eal();
    let pool = Mempool::packets(&eal, "ring_device", 1023).expect("pool");
    {
        let port = open(&eal, "net_ring_t0", 1, &pool);
        assert!(port.link().up);
        let (mut rx, mut tx) = port.take_queues().expect("first take");
        assert!(port.take_queues().is_none(), "queues are handed out once");
        let mut outbox = Outbox::new();
        for i in 0..20u8 {
            let mbuf = Mbuf::with_bytes(&pool, &[i; 100], 0).expect("pool has room");
            outbox.push(mbuf).expect("outbox has room");
        }
        assert_eq!(tx[0].send(&mut outbox), 20);
        assert!(outbox.is_empty());
        let mut burst = Burst::new();
        assert_eq!(rx[0].receive(&mut burst), 20);
        for i in 0..20 {
            assert_eq!(burst.frame(i), [i as u8; 100]);
        }
        assert_eq!(pool.available(), 1023 - 20);
        let kept = burst.take(3).expect("present");
        assert!(burst.frame(3).is_empty() && burst.take(3).is_none());
        burst.clear();
        assert_eq!(pool.available(), 1023 - 1);
        drop(kept);
    }
    assert_eq!(pool.available(), 1023);
}

#[test]
fn a_clone_shares_bytes_and_outlives_the_original() {
    let (eal, _turn) = eal();
    let pool = Mempool::packets(&eal, "originals", 63).expect("pool");
    let headers = Mempool::clones(&eal, "clones", 63).expect("pool");
    let original = Mbuf::with_bytes(&pool, b"hiddenvisible", 6).expect("room");
    let clone = original.mirror_clone(&headers).expect("room");
    assert_eq!((pool.available(), headers.available()), (62, 62));
    drop(original);
    assert_eq!(pool.available(), 62, "the bytes are still in use");
    let mut bytes = Vec::new();
    clone.copy_to(&mut bytes);
    assert_eq!(bytes, b"visible");
    assert_eq!(clone.hidden_front::<6>().as_ref(), Some(b"hidden"));
    drop(clone);
    assert_eq!((pool.available(), headers.available()), (63, 63));
}

#[test]
fn an_empty_pool_gives_none_not_a_crash() {
    let (eal, _turn) = eal();
    let pool = Mempool::packets(&eal, "tiny", 15).expect("pool");
    let held: Vec<Mbuf> = std::iter::from_fn(|| Mbuf::with_bytes(&pool, &[0; 64], 0)).take(100).collect();
    assert_eq!(held.len(), 15);
    assert!(held[0].mirror_clone(&pool).is_none());
    drop(held);
    assert_eq!(pool.available(), 15);
    assert!(Mbuf::with_bytes(&pool, &[0; 4000], 0).is_none(), "more than one segment");
    assert_eq!(pool.available(), 15);
}

#[test]
fn a_full_ring_leaves_packets_with_the_sender() {
    let (eal, _turn) = eal();
    let pool = Mempool::packets(&eal, "full_ring", 255).expect("pool");
    let ring = PacketRing::new(&eal, "small", 16).expect("ring");
    let mut outbox = Outbox::new();
    for _ in 0..32 {
        outbox.push(Mbuf::with_bytes(&pool, &[1; 60], 0).expect("room")).expect("room");
    }
    let sent = ring.send(&mut outbox);
    assert_eq!((sent, outbox.len()), (15, 17), "a ring of 16 holds 15");
    assert_eq!(outbox.discard(), (17, 17 * 60));
    drop(ring);
    assert_eq!(pool.available(), 255, "a dropped ring frees what was in it");
}

#[test]
fn lcores_run_jobs_and_report_panics() {
    let (eal, _turn) = eal();
    let lcore = eal.take_lcore().expect("one is free");
    let (lcore, result) = lcore.launch(|| 6 * 7).expect("launches").join();
    assert_eq!(result, Ok(42));
    let (lcore, result) = lcore.launch(|| -> u8 { panic!("deliberate") }).expect("launches").join();
    assert_eq!(result, Err("deliberate".to_owned()));
    eal.return_lcore(lcore);
}

#[test]
fn devices_without_symmetric_hashing_are_spread_in_software() {
    let (eal, _turn) = eal();
    let pool = Mempool::packets(&eal, "spread", 1023).expect("pool");
    let port = open(&eal, "net_ring_t1", 2, &pool);
    assert_eq!(port.spread(), Spread::Software);
    let single = open(&eal, "net_null_t0", 1, &pool);
    assert_eq!(single.spread(), Spread::Single);
}

#[test]
fn a_device_that_does_not_exist_is_explained() {
    let (eal, _turn) = eal();
    let error = Device::open(&eal, "net_af_packet9,iface=nosuchif0").expect_err("no such interface").to_string();
    assert!(error.contains("nosuchif0") && error.contains("help:"), "{error}");
    let error = Device::open(&eal, "0000:ff:1f.7").expect_err("no such device").to_string();
    assert!(error.contains("0000:ff:1f.7") && error.contains("pci_allow"), "{error}");
}
