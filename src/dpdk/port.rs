//! Ports: a NIC or virtual device with its queues.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::eal::{self, Eal, c_string};
use super::error::{DpdkError, check};
use super::ffi;
use super::interface::Interface;
use super::mbuf::{BURST, Burst, Outbox};
use super::mempool::Mempool;
use super::rss::{self, SYMMETRIC_KEY, Spread};

/// How a port is to be set up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortOptions {
    /// The operator's name for it, used in messages.
    pub name: String,
    /// PCI address (`0000:03:00.0`), or virtual device with arguments (`net_null0,size=64`).
    pub device: String,
    pub rx_queues: u16,
    pub tx_queues: u16,
    pub rx_descriptors: u16,
    pub tx_descriptors: u16,
    pub mtu: Option<u16>,
    pub promiscuous: bool,
}

/// What the device said it can do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PortLimits {
    pub rx_queues: u16,
    pub tx_queues: u16,
}

/// Link as the device reports it now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LinkState {
    pub up: bool,
    /// Mbit/s; 0 when unknown.
    pub speed: u32,
    pub full_duplex: bool,
}

/// The device's own counters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PortStats {
    pub rx_packets: u64,
    pub rx_bytes: u64,
    pub tx_packets: u64,
    pub tx_bytes: u64,
    /// Lost before software saw them: no descriptors, no buffers, errors.
    pub rx_missed: u64,
    pub rx_no_buffer: u64,
    pub rx_errors: u64,
    pub tx_errors: u64,
}

/// A configured, started port. Closed on drop.
#[derive(Debug)]
pub struct Port {
    id: u16,
    name: String,
    vdev: Option<String>,
    interface: Option<Interface>,
    rx_queues: u16,
    tx_queues: u16,
    spread: Spread,
    /// Of a port with [`Spread::Device`].
    scheme: Option<Arc<rss::Scheme>>,
    taken: AtomicBool,
    _pool: Mempool,
    _eal: Arc<Eal>,
}

/// The device with this description, created if virtual; not configured yet.
#[derive(Debug)]
pub struct Device {
    id: u16,
    vdev: Option<String>,
    interface: Option<Interface>,
    info: ffi::rte_eth_dev_info,
    eal: Arc<Eal>,
}

impl Device {
    /// Finds a PCI device, or creates a virtual one.
    pub fn open(eal: &Arc<Eal>, device: &str) -> Result<Self, DpdkError> {
        let (name, arguments) = device.split_once(',').unwrap_or((device, ""));
        let virtual_device = name.starts_with("net_") || name.starts_with("virtio_user") || name.starts_with("eth_");
        let vdev = virtual_device.then(|| name.to_owned());
        let interface = if virtual_device { Interface::of(name, arguments)? } else { None };
        if let Some(interface) = &interface {
            interface.require()?;
        }
        if vdev.is_some() {
            eal::add_vdev(name, arguments).map_err(|e| e.hint(device_hint(name)))?;
        }
        let mut found = Self { id: 0, vdev, interface, info: ffi::rte_eth_dev_info::default(), eal: eal.clone() };
        let c_name = c_string(name)?;
        // SAFETY: a valid name and a place for the id.
        let code = unsafe { ffi::rte_eth_dev_get_port_by_name(c_name.as_ptr(), &mut found.id) };
        check(code, || format!("finding port `{device}`")).map_err(|e| {
            e.hint("PCI devices need hugepages, a bound driver (dpdk-devbind.py --bind=vfio-pci) and their address in eal.pci_allow")
        })?;
        // SAFETY: the id is valid, `info` is writable.
        let code = unsafe { ffi::rte_eth_dev_info_get(found.id, &mut found.info) };
        check(code, || format!("asking port `{device}` what it can do"))?;
        Ok(found)
    }

    pub fn limits(&self) -> PortLimits {
        PortLimits { rx_queues: self.info.max_rx_queues, tx_queues: self.info.max_tx_queues }
    }

    /// Configures queues and starts the port. Receive buffers come from `pool`.
    pub fn start(mut self, options: &PortOptions, pool: &Mempool) -> Result<Port, DpdkError> {
        let name = &options.name;
        self.check_queues(options)?;
        self.configure(options)?;
        self.set_up_queues(options, pool)?;
        if let Some(mtu) = options.mtu {
            // SAFETY: a configured, stopped port.
            check(unsafe { ffi::rte_eth_dev_set_mtu(self.id, mtu) }, || format!("port `{name}`: setting MTU {mtu}"))?;
        }
        // SAFETY: configured with all queues set up.
        check(unsafe { ffi::rte_eth_dev_start(self.id) }, || format!("starting port `{name}`"))?;
        let (spread, scheme) = rss::self_test(self.id, &self.info, options.rx_queues);
        let port = Port {
            id: self.id,
            name: name.clone(),
            vdev: self.vdev.take(),
            interface: self.interface.take(),
            rx_queues: options.rx_queues,
            tx_queues: options.tx_queues,
            spread,
            scheme: scheme.map(Arc::new),
            taken: AtomicBool::new(false),
            _pool: pool.clone(),
            _eal: self.eal.clone(),
        };
        if options.promiscuous {
            // SAFETY: a started port. Some virtual devices have no such switch and see everything anyway.
            let code = unsafe { ffi::rte_eth_promiscuous_enable(port.id) };
            if let Err(error) = check(code, || format!("port `{name}`: promiscuous mode")) {
                let level = if port.vdev.is_some() { log::Level::Info } else { log::Level::Warn };
                log::log!(level, "{error}");
            }
        }
        Ok(port)
    }

    fn check_queues(&self, options: &PortOptions) -> Result<(), DpdkError> {
        let name = &options.name;
        let limits = self.limits();
        for (what, asked, most) in
            [("receive", options.rx_queues, limits.rx_queues), ("transmit", options.tx_queues, limits.tx_queues)]
        {
            if asked > most {
                return Err(DpdkError::new(
                    format!("port `{name}` ({})", options.device),
                    format!("{asked} {what} queues are needed, the device has {most}"),
                )
                .hint(queues_hint(&options.device, asked)));
            }
        }
        Ok(())
    }

    fn configure(&mut self, options: &PortOptions) -> Result<(), DpdkError> {
        let mut conf = ffi::rte_eth_conf::default();
        let wanted = ffi::GN_RSS_ADDRESSES & self.info.flow_type_rss_offloads;
        if options.rx_queues > 1 && wanted != 0 {
            conf.rxmode.mq_mode = ffi::rte_eth_rx_mq_mode_RTE_ETH_MQ_RX_RSS;
            let rss = &mut conf.rx_adv_conf.rss_conf;
            rss.rss_key = SYMMETRIC_KEY.as_ptr().cast_mut();
            rss.rss_key_len = key_len(self.info.hash_key_size);
            rss.rss_hf = wanted;
        }
        // Only what the device has: chained segments both ways, for jumbo frames.
        conf.rxmode.offloads = self.info.rx_offload_capa & ffi::GN_RX_SCATTER;
        conf.txmode.offloads = self.info.tx_offload_capa & ffi::GN_TX_MULTI_SEGS;
        // SAFETY: a valid id; the key outlives the call, which copies it.
        let code = unsafe { ffi::rte_eth_dev_configure(self.id, options.rx_queues, options.tx_queues, &conf) };
        check(code, || format!("configuring port `{}`", options.name))
    }

    fn set_up_queues(&self, options: &PortOptions, pool: &Mempool) -> Result<(), DpdkError> {
        let (mut rx, mut tx) = (options.rx_descriptors, options.tx_descriptors);
        // SAFETY: a configured port; both numbers are adjusted in place.
        let code = unsafe { ffi::rte_eth_dev_adjust_nb_rx_tx_desc(self.id, &mut rx, &mut tx) };
        check(code, || format!("port `{}`: sizing queues", options.name))?;
        for queue in 0..options.rx_queues {
            // SAFETY: a configured, stopped port; null takes the device's default thresholds; the pool
            // outlives the port, which holds it.
            let code =
                unsafe { ffi::rte_eth_rx_queue_setup(self.id, queue, rx, any_socket(), std::ptr::null(), pool.raw()) };
            check(code, || format!("port `{}`: receive queue {queue}", options.name))?;
        }
        for queue in 0..options.tx_queues {
            // SAFETY: as above.
            let code = unsafe { ffi::rte_eth_tx_queue_setup(self.id, queue, tx, any_socket(), std::ptr::null()) };
            check(code, || format!("port `{}`: transmit queue {queue}", options.name))?;
        }
        Ok(())
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        if let Some(vdev) = self.vdev.take() {
            close(self.id, Some(&vdev));
        }
    }
}

impl Port {
    pub fn name(&self) -> &str {
        &self.name
    }

    /// How received flows spread over the receive queues.
    pub fn spread(&self) -> Spread {
        self.spread
    }

    /// What the device chooses queues by; `None` unless it spreads flows itself.
    pub fn scheme(&self) -> Option<&Arc<rss::Scheme>> {
        self.scheme.as_ref()
    }

    /// Both devices bring a flow to the queue of the same number, whichever of them it enters by.
    pub fn spreads_like(&self, other: &Port) -> bool {
        self.scheme.is_some() && self.scheme == other.scheme
    }

    pub fn link(&self) -> LinkState {
        let mut link = ffi::rte_eth_link::default();
        // SAFETY: a started port and a place for the answer.
        unsafe { ffi::rte_eth_link_get_nowait(self.id, &mut link) };
        // SAFETY: every variant of the union is plain bits.
        let mut state = unsafe { link_state(&link) };
        state.up &= self.interface.as_ref().is_none_or(Interface::is_up);
        state
    }

    /// Largest IP packet that the device takes, as far as it says so.
    pub fn mtu(&self) -> Option<u32> {
        // The drivers that borrow an interface do not know its.
        if let Some(interface) = &self.interface {
            return interface.mtu();
        }
        let mut mtu = 0;
        // SAFETY: a started port and a place for the answer.
        let code = unsafe { ffi::rte_eth_dev_get_mtu(self.id, &mut mtu) };
        (code == 0 && mtu > 0).then(|| mtu.into())
    }

    pub fn stats(&self) -> PortStats {
        let mut s = ffi::rte_eth_stats::default();
        // SAFETY: a started port and a place for the answer.
        unsafe { ffi::rte_eth_stats_get(self.id, &mut s) };
        PortStats {
            rx_packets: s.ipackets,
            rx_bytes: s.ibytes,
            tx_packets: s.opackets,
            tx_bytes: s.obytes,
            rx_missed: s.imissed,
            rx_no_buffer: s.rx_nombuf,
            rx_errors: s.ierrors,
            tx_errors: s.oerrors,
        }
    }

    /// The queues, each to be moved to the lcore that owns it. Once per port.
    pub fn take_queues(self: &Arc<Self>) -> Option<(Vec<RxQueue>, Vec<TxQueue>)> {
        if self.taken.swap(true, Ordering::SeqCst) {
            return None;
        }
        let rx = (0..self.rx_queues).map(|queue| RxQueue { port: self.clone(), queue }).collect();
        let tx = (0..self.tx_queues).map(|queue| TxQueue { port: self.clone(), queue }).collect();
        Some((rx, tx))
    }
}

impl Drop for Port {
    fn drop(&mut self) {
        close(self.id, self.vdev.as_deref());
    }
}

/// The receiving end of one queue. Move it to the lcore that polls it.
#[derive(Debug)]
pub struct RxQueue {
    port: Arc<Port>,
    queue: u16,
}

impl RxQueue {
    /// Replaces `burst` by up to [`BURST`] received packets. Never waits.
    pub fn receive(&mut self, burst: &mut Burst) -> usize {
        // SAFETY: a started port whose queue only this value polls (`&mut`, handed out once); `fill` gives
        // room for BURST pointers and frames.
        burst.fill(|mbufs, frames| unsafe { ffi::gn_rx_burst(self.port.id, self.queue, mbufs, BURST as u16, frames) })
    }

    pub fn port(&self) -> &Arc<Port> {
        &self.port
    }
}

/// The sending end of one queue. Move it to the lcore that fills it.
#[derive(Debug)]
pub struct TxQueue {
    port: Arc<Port>,
    queue: u16,
}

impl TxQueue {
    /// Hands packets from the front of `outbox` to the device; what it does not take stays. Never waits.
    pub fn send(&mut self, outbox: &mut Outbox) -> usize {
        // SAFETY: a started port whose queue only this value fills; `drain` passes n valid mbufs and
        // gives up those the device took.
        outbox.drain(|mbufs, n| unsafe { ffi::gn_tx_burst(self.port.id, self.queue, mbufs, n) }.into())
    }

    pub fn port(&self) -> &Arc<Port> {
        &self.port
    }
}

fn any_socket() -> u32 {
    ffi::SOCKET_ID_ANY as u32
}

/// Devices state their key length; those that do not are given the common one.
fn key_len(device: u8) -> u8 {
    if device == 0 { 40 } else { device.min(SYMMETRIC_KEY.len() as u8) }
}

/// # Safety
/// `link` must come from DPDK or be zeroed.
unsafe fn link_state(link: &ffi::rte_eth_link) -> LinkState {
    // Layout of rte_eth_link since 16.04: speed in the low 32 bits, then duplex, autoneg and status bits.
    // SAFETY: the struct is 8 bytes of plain bits.
    let raw = unsafe { std::ptr::from_ref(link).cast::<u64>().read_unaligned() };
    LinkState { up: raw >> 34 & 1 == 1, speed: raw as u32, full_duplex: raw >> 32 & 1 == 1 }
}

fn close(id: u16, vdev: Option<&str>) {
    // SAFETY: a valid port that nobody polls any more: queues hold an Arc of the port.
    unsafe {
        ffi::rte_eth_dev_stop(id);
        ffi::rte_eth_dev_close(id);
    }
    if let Some(name) = vdev
        && let Err(error) = eal::remove_vdev(name)
    {
        log::debug!("{error}");
    }
}

fn queues_hint(device: &str, asked: u16) -> String {
    let argument = match device {
        d if d.starts_with("net_af_packet") => Some(format!("qpairs={asked}")),
        d if d.starts_with("net_af_xdp") => Some(format!("queue_count={asked}")),
        d if d.starts_with("net_vhost") || d.starts_with("virtio_user") || d.starts_with("net_virtio_user") => {
            Some(format!("queues={asked}"))
        }
        _ => None,
    };
    match argument {
        Some(text) => {
            format!("each worker needs a transmit queue of its own: add `{text}` to the device, or use fewer workers")
        }
        None => "each worker needs a transmit queue of its own: use fewer workers or another device".into(),
    }
}

fn device_hint(name: &str) -> &'static str {
    match name.trim_end_matches(|c: char| c.is_ascii_digit()) {
        "net_af_packet" => "net_af_packet needs `iface=`, and root or CAP_NET_RAW",
        "net_af_xdp" => "net_af_xdp needs `iface=`, and root or CAP_NET_ADMIN, CAP_BPF and CAP_IPC_LOCK",
        "net_tap" => "net_tap needs /dev/net/tun, and root or CAP_NET_ADMIN",
        "net_pcap" => "net_pcap needs `rx_pcap=` (a file that exists), `tx_pcap=` or `iface=`",
        "net_memif" => "net_memif needs a socket path in a folder that exists",
        _ => "is the driver in DPDK's driver folder, and are its arguments right?",
    }
}
