//! Live ports, and which worker polls and fills which of their queues.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result, anyhow};

use super::pools::Pools;
use crate::config::Config;
use crate::dpdk::{Device, Eal, PacketRing, Port, PortOptions, Spread};
use crate::worker::{Egress, Handoff, Ingress, Lane, Output, WhenFull};

/// Packets in flight between two workers when flows are spread in software.
const HANDOFF_RING: u32 = 4096;

/// An open port and the link state that workers look at.
#[derive(Debug)]
pub struct LivePort {
    pub port: Arc<Port>,
    pub up: Arc<AtomicBool>,
    /// The port it forwards to; `None` for mirror ports.
    pub paired_with: Option<usize>,
}

/// One worker's inputs and outputs; outputs are in port order.
#[derive(Debug, Default)]
pub struct WorkerIo {
    pub lanes: Vec<Lane>,
    pub outputs: Vec<Output>,
}

impl LivePort {
    /// Opens all ports of a configuration, in its order.
    pub fn open_all(eal: &Arc<Eal>, config: &Config, pools: &Pools) -> Result<Vec<Self>> {
        (0..config.ports.len()).map(|index| Self::open(eal, config, index, pools)).collect()
    }

    fn open(eal: &Arc<Eal>, config: &Config, index: usize, pools: &Pools) -> Result<Self> {
        let wanted = &config.ports[index];
        let name = &wanted.name;
        let paired_with = config.pairs.iter().find_map(|(a, b)| match index {
            i if i == *a => Some(*b),
            i if i == *b => Some(*a),
            _ => None,
        });
        let device = Device::open(eal, &wanted.device).with_context(|| format!("port `{name}`"))?;
        let workers = config.cores.workers.len() as u16;
        let polled = if paired_with.is_some() { wanted.rx_queues.unwrap_or(workers).min(workers) } else { 1 };
        let options = PortOptions {
            name: wanted.name.clone(),
            device: wanted.device.clone(),
            rx_queues: polled.min(device.limits().rx_queues).max(1),
            tx_queues: workers,
            rx_descriptors: wanted.rx_descriptors,
            tx_descriptors: wanted.tx_descriptors,
            mtu: wanted.mtu,
            promiscuous: wanted.promiscuous,
        };
        let port = device.start(&options, &pools.packets)?;
        let up = port.link().up;
        if !up {
            log::warn!("port `{name}`: link down; what should leave there is dropped until it comes up");
        }
        Ok(Self { port: Arc::new(port), up: Arc::new(AtomicBool::new(up)), paired_with })
    }

    /// Reads the link state from the device; says when it changed.
    pub fn refresh_link(&self) {
        let link = self.port.link();
        if self.up.swap(link.up, Ordering::Relaxed) != link.up {
            log::warn!("port `{}`: link {}", self.port.name(), if link.up { "up" } else { "down" });
        }
    }
}

/// Deals the ports' queues out to `workers` workers.
pub fn wire(eal: &Arc<Eal>, ports: &[LivePort], workers: usize, abort: &Arc<AtomicBool>) -> Result<Vec<WorkerIo>> {
    let mut io: Vec<WorkerIo> = (0..workers).map(|_| WorkerIo::default()).collect();
    for (index, live) in ports.iter().enumerate() {
        let (rx, tx) = live.port.take_queues().ok_or_else(|| anyhow!("queues of `{}` are taken", live.port.name()))?;
        for (worker, queue) in tx.into_iter().enumerate() {
            let egress = Egress::Device(queue);
            io[worker].outputs.push(Output::new(egress, live.up.clone(), WhenFull::Drop, abort.clone()));
        }
        let Some(forward) = live.paired_with else { continue };
        let rings = handoff_rings(eal, live, &ports[forward], index, workers)?;
        for (queue_number, queue) in rx.into_iter().enumerate() {
            let worker = queue_number % workers;
            let owners = rings.iter().enumerate().map(|(w, ring)| (w != worker).then(|| Handoff::new(ring.clone())));
            let owners = owners.collect();
            let spread = rings.is_empty();
            let ingress = Ingress::Device(queue);
            io[worker].lanes.push(Lane { ingress, forward: Some(forward), back: Some(index), spread, owners });
        }
        for (worker, ring) in rings.into_iter().enumerate() {
            let (ingress, owners) = (Ingress::Ring(ring), Vec::new());
            io[worker].lanes.push(Lane { ingress, forward: Some(forward), back: Some(index), spread: true, owners });
        }
    }
    Ok(io)
}

/// One ring per worker where the devices do not bring both directions of a flow, which enter by the two ports of a
/// pair, to the same worker; none where they do or there is only one worker.
fn handoff_rings(
    eal: &Arc<Eal>,
    live: &LivePort,
    other: &LivePort,
    index: usize,
    workers: usize,
) -> Result<Vec<PacketRing>> {
    if workers == 1 || (live.port.spread() == Spread::Device && live.port.spreads_like(&other.port)) {
        return Ok(Vec::new());
    }
    log::info!("port `{}`: flows are spread over {workers} workers in software", live.port.name());
    let ring = |worker| PacketRing::new(eal, &format!("handoff_{index}_{worker}"), HANDOFF_RING);
    Ok((0..workers).map(ring).collect::<Result<_, _>>()?)
}
