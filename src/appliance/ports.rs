//! Live ports, and which worker polls and fills which of their queues.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result, anyhow};

use super::pools::Pools;
use crate::config::Config;
use crate::dpdk::{Device, Eal, PacketRing, Port, PortOptions, RxQueue};
use crate::worker::{DeviceSpread, Egress, Handoff, Ingress, Lane, Output, Spreading, Strays, WhenFull};

/// Packets in flight between two workers when flows are spread in software.
const HANDOFF_RING: u32 = 4096;

/// An open port and the link state that workers look at.
#[derive(Debug)]
pub struct LivePort {
    pub port: Arc<Port>,
    pub up: Arc<AtomicBool>,
    /// The port it forwards to; `None` for mirror ports.
    pub paired_with: Option<usize>,
    /// A honeypot is behind it.
    pub has_honeypot: bool,
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
        let has_honeypot = config.honeypots.iter().any(|honeypot| honeypot.port == Some(index));
        let device = Device::open(eal, &wanted.device).with_context(|| format!("port `{name}`"))?;
        let workers = config.cores.workers.len() as u16;
        let polled = match paired_with {
            Some(_) => wanted.rx_queues.unwrap_or(workers).min(workers),
            // The kernel spreads what it receives over all of them, whether anybody looks or not.
            None if wanted.device.starts_with("net_af_packet") => device.limits().rx_queues,
            None => 1,
        };
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
        Ok(Self { port: Arc::new(port), up: Arc::new(AtomicBool::new(up)), paired_with, has_honeypot })
    }

    /// Reads the link state from the device; says when it changed.
    fn refresh_link(&self) {
        let link = self.port.link();
        if self.up.swap(link.up, Ordering::Relaxed) != link.up {
            log::warn!("port `{}`: link {}", self.port.name(), if link.up { "up" } else { "down" });
        }
    }
}

/// Says which sessions' copies may be larger than their port takes.
pub(super) fn warn_of_mtu(config: &Config, ports: &[LivePort]) {
    for session in config.mirrors.iter().filter(|session| session.delivery.wrap.is_some()) {
        let (wanted, port) = (session.delivery.mtu, ports.get(session.port).map(|live| &live.port));
        let Some((port, mtu)) = port.and_then(|port| Some((port, port.mtu()?))).filter(|(_, mtu)| *mtu < wanted) else {
            continue;
        };
        log::warn!(
            "mirror `{}`: the target's `mtu` is {wanted}, port `{}` takes IP packets of {mtu} bytes: larger copies may be lost \
             without being counted; lower the target's `mtu`, or raise the port's",
            session.name,
            port.name()
        );
    }
}

/// What the control thread looks at time and again: links, and devices that do not spread flows as they said.
#[derive(Debug, Default)]
pub struct PortWatch {
    pub strays: Arc<Strays>,
    told: Vec<usize>,
}

impl PortWatch {
    pub fn look_at(&mut self, ports: &[LivePort]) {
        for (index, live) in ports.iter().enumerate() {
            live.refresh_link();
            if self.strays.has(index) && !self.told.contains(&index) {
                self.told.push(index);
                log::warn!(
                    "port `{}`: the device brought a packet to another receive queue than its hash key and redirection \
                     table say, so flows are spread over the workers in software from now on; `rx_queues = 1` at this \
                     port does the same from the start",
                    live.port.name()
                );
            }
        }
    }
}

/// Receive queues of ports in no pair, each with the index of its port.
type Unpaired = Vec<(usize, RxQueue)>;

/// Deals the ports' queues out to `workers` workers, which note in `strays` whose device cannot be relied on. The receive
/// queues of ports in no pair are left.
pub fn wire(
    eal: &Arc<Eal>,
    ports: &[LivePort],
    workers: usize,
    abort: &Arc<AtomicBool>,
    strays: &Arc<Strays>,
) -> Result<(Vec<WorkerIo>, Unpaired)> {
    let mut io: Vec<WorkerIo> = (0..workers).map(|_| WorkerIo::default()).collect();
    let mut unpaired = Vec::new();
    for (index, live) in ports.iter().enumerate() {
        let (rx, tx) = live.port.take_queues().ok_or_else(|| anyhow!("queues of `{}` are taken", live.port.name()))?;
        for (worker, queue) in tx.into_iter().enumerate() {
            let egress = Egress::Device(queue);
            io[worker].outputs.push(Output::new(egress, live.up.clone(), WhenFull::Drop, abort.clone()));
        }
        let forward = live.paired_with;
        if forward.is_none() && !live.has_honeypot {
            unpaired.extend(rx.into_iter().map(|queue| (index, queue)));
            continue;
        }
        let rings = handoff_rings(eal, index, workers)?;
        // A honeypot's answers come from a third port, which spreads them in its own way.
        let no_honeypots = ports.iter().all(|live| !live.has_honeypot);
        let by_device =
            workers > 1 && no_honeypots && forward.is_some_and(|forward| live.port.spreads_like(&ports[forward].port));
        let scheme = live.port.scheme().filter(|_| by_device);
        if workers > 1 {
            let how = if by_device { "by the device" } else { "in software" };
            log::info!("port `{}`: flows are spread over {workers} workers {how}", live.port.name());
        }
        for (queue_number, queue) in rx.into_iter().enumerate() {
            let worker = queue_number % workers;
            let owners = rings.iter().enumerate().map(|(w, ring)| (w != worker).then(|| Handoff::new(ring.clone())));
            let (ingress, owners) = (Ingress::Device(queue), owners.collect());
            let spreading = match scheme {
                _ if workers == 1 => Spreading::Done,
                None => Spreading::Software,
                Some(scheme) => {
                    let (scheme, strays) = (scheme.clone(), strays.clone());
                    Spreading::Device(DeviceSpread::new(scheme, queue_number as u16, workers, index, strays))
                }
            };
            io[worker].lanes.push(Lane { ingress, forward, back: Some(index), spreading, owners });
        }
        for (worker, ring) in rings.into_iter().enumerate() {
            let (ingress, owners, spreading) = (Ingress::Ring(ring), Vec::new(), Spreading::Done);
            io[worker].lanes.push(Lane { ingress, forward, back: Some(index), spreading, owners });
        }
    }
    Ok((io, unpaired))
}

/// One ring per worker, for packets of flows that another worker owns: those that the devices did not bring both
/// directions of, which enter by the two ports of a pair, to the same worker, and ICMP errors. None for one worker.
fn handoff_rings(eal: &Arc<Eal>, index: usize, workers: usize) -> Result<Vec<PacketRing>> {
    if workers == 1 {
        return Ok(Vec::new());
    }
    let ring = |worker| PacketRing::new(eal, &format!("handoff_{index}_{worker}"), HANDOFF_RING);
    Ok((0..workers).map(ring).collect::<Result<_, _>>()?)
}
