//! The environment abstraction layer: one per process, from typed options.

use std::ffi::{CStr, CString, c_char};
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use super::error::{DpdkError, check};
use super::ffi;
use super::lcore::Lcore;

/// What the EAL is started with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EalOptions {
    /// For each lcore the CPUs it may run on; the first is the main lcore. Several lcores may share a
    /// CPU.
    pub lcores: Vec<Vec<usize>>,
    /// Use hugepages. Without them memory is ordinary pages: no root needed, more TLB misses.
    pub hugepages: bool,
    pub memory_mb: u32,
    /// Keeps several processes on one machine apart.
    pub file_prefix: String,
    /// PCI devices to take; empty takes none.
    pub pci_allow: Vec<String>,
}

static STARTED: AtomicBool = AtomicBool::new(false);

/// The running EAL. Dropping it gives everything back.
#[derive(Debug)]
pub struct Eal {
    free_lcores: Mutex<Vec<Lcore>>,
}

impl Eal {
    /// Starts the EAL. Once per process: DPDK cannot start a second time.
    pub fn start(options: &EalOptions) -> Result<Self, DpdkError> {
        if STARTED.swap(true, Ordering::SeqCst) {
            return Err(DpdkError::new("starting DPDK", "it was already started in this process"));
        }
        require_cpus(&options.lcores)?;
        let arguments = arguments(options)?;
        let mut pointers: Vec<*mut c_char> = arguments.iter().map(|a| a.as_ptr().cast_mut()).collect();
        let count = i32::try_from(pointers.len()).map_err(|_| DpdkError::new("starting DPDK", "too many options"))?;
        // SAFETY: `pointers` holds `count` valid NUL-terminated strings that outlive the call; the EAL
        // reorders the array but neither writes to the strings nor keeps them.
        let code = unsafe { ffi::rte_eal_init(count, pointers.as_mut_ptr()) };
        if code < 0 {
            return Err(DpdkError::last("starting DPDK").hint(start_hint(options)));
        }
        // Lcore 0 is the main one; the rest are handed out to workers.
        let free = (1..options.lcores.len()).rev().filter_map(|id| u32::try_from(id).ok()).map(Lcore::new).collect();
        Ok(Self { free_lcores: Mutex::new(free) })
    }

    /// Takes a worker lcore, in the order of [`EalOptions::lcores`]; `None` when all are taken.
    pub fn take_lcore(&self) -> Option<Lcore> {
        self.free_lcores.lock().ok()?.pop()
    }

    /// Gives an idle lcore back.
    pub fn return_lcore(&self, lcore: Lcore) {
        if let Ok(mut free) = self.free_lcores.lock() {
            free.push(lcore);
        }
    }
}

impl Drop for Eal {
    fn drop(&mut self) {
        // SAFETY: returns a NUL-terminated string in static storage, copied here.
        let folder = unsafe { CStr::from_ptr(ffi::rte_eal_get_runtime_dir()) }.to_string_lossy().into_owned();
        // SAFETY: init succeeded and this is the only cleanup; ports, pools and lcores borrow the Eal
        // through `Arc`, so none is in use any more.
        unsafe { ffi::rte_eal_cleanup() };
        // DPDK leaves its run-time folder behind. Only an empty one goes: another process may use it.
        if let Err(error) = std::fs::remove_dir(&folder) {
            log::debug!("{folder}: {error}");
        }
    }
}

/// Version of the DPDK that is loaded, such as `DPDK 22.11.11`.
pub fn version() -> String {
    // SAFETY: returns a static NUL-terminated string.
    unsafe { CStr::from_ptr(ffi::rte_version()) }.to_string_lossy().into_owned()
}

/// Adds a virtual device such as `net_null0` with its arguments.
pub(super) fn add_vdev(name: &str, arguments: &str) -> Result<(), DpdkError> {
    let (bus, device, devargs) = (c"vdev", c_string(name)?, c_string(arguments)?);
    // SAFETY: three valid NUL-terminated strings, copied by the bus.
    let code = unsafe { ffi::rte_eal_hotplug_add(bus.as_ptr(), device.as_ptr(), devargs.as_ptr()) };
    let what = || format!("creating virtual device `{name},{arguments}`");
    // Drivers say -1 for everything; it is no error number.
    if code == -1 { Err(DpdkError::new(what(), "its driver refused")) } else { check(code, what) }
}

/// Removes a virtual device; its port must be closed.
pub(super) fn remove_vdev(name: &str) -> Result<(), DpdkError> {
    let device = c_string(name)?;
    // SAFETY: two valid NUL-terminated strings.
    let code = unsafe { ffi::rte_eal_hotplug_remove(c"vdev".as_ptr(), device.as_ptr()) };
    check(code, || format!("removing virtual device `{name}`"))
}

pub(super) fn c_string(text: &str) -> Result<CString, DpdkError> {
    CString::new(text).map_err(|_| DpdkError::new(format!("`{}`", text.escape_debug()), "contains a NUL byte"))
}

/// DPDK answers a CPU that does not exist with its whole usage text.
fn require_cpus(lcores: &[Vec<usize>]) -> Result<(), DpdkError> {
    let exists = |cpu: &usize| Path::new(&format!("/sys/devices/system/cpu/cpu{cpu}/topology/core_id")).exists();
    let Some(missing) = lcores.iter().flatten().find(|cpu| !exists(cpu)) else { return Ok(()) };
    let online = std::fs::read_to_string("/sys/devices/system/cpu/online").unwrap_or_default();
    Err(DpdkError::new("starting DPDK", format!("CPU {missing} of [cores] does not exist or is offline"))
        .hint(format!("CPUs of this machine: {}", online.trim())))
}

fn arguments(options: &EalOptions) -> Result<Vec<CString>, DpdkError> {
    let lcores: Vec<String> = options.lcores.iter().enumerate().map(|(id, cpus)| lcore_map(id, cpus)).collect();
    let mut list = vec!["gnomon".into(), "--lcores".into(), lcores.join(","), "--main-lcore".into(), "0".into()];
    list.extend(["-m".into(), options.memory_mb.to_string(), "--no-telemetry".into()]);
    list.extend(["--file-prefix".into(), options.file_prefix.clone()]);
    if !options.hugepages {
        list.extend(["--no-huge".into(), "--no-shconf".into(), "--iova-mode=va".into()]);
    }
    if options.pci_allow.is_empty() {
        list.push("--no-pci".into());
    }
    for address in &options.pci_allow {
        list.extend(["-a".into(), address.clone()]);
    }
    list.push(match std::env::var("GNOMON_DPDK_LOG") {
        Ok(level) => format!("--log-level={level}"),
        Err(_) => "--log-level=*:error".into(),
    });
    list.iter().map(|argument| c_string(argument)).collect()
}

fn lcore_map(id: usize, cpus: &[usize]) -> String {
    let cpus: Vec<String> = cpus.iter().map(usize::to_string).collect();
    format!("{id}@({})", cpus.join(","))
}

fn start_hint(options: &EalOptions) -> String {
    if options.hugepages {
        format!(
            "are {} MiB of hugepages reserved and hugetlbfs mounted (`dpdk-hugepages.py --setup {0}M`)? \
             `hugepages = false` runs without; GNOMON_DPDK_LOG=debug shows what DPDK tried",
            options.memory_mb
        )
    } else {
        "do the CPUs in [cores] exist here? GNOMON_DPDK_LOG=debug shows what DPDK tried".into()
    }
}
