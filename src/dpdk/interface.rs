//! The kernel interface that a virtual device borrows (`net_af_packet0,iface=eth1`). The drivers of such
//! devices report their link as up whatever the interface does, so it is asked for itself.

use std::ffi::CString;

use super::eal::c_string;
use super::error::DpdkError;
use super::ffi;

const ENODEV: i32 = 19;

/// A kernel interface in this process's network namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Interface {
    name: String,
    c_name: CString,
}

impl Interface {
    /// The interface that a device of this name and these arguments borrows, if it is of that kind.
    pub(super) fn of(device: &str, arguments: &str) -> Result<Option<Self>, DpdkError> {
        if !["net_af_packet", "net_af_xdp", "net_pcap"].iter().any(|kind| device.starts_with(kind)) {
            return Ok(None);
        }
        match arguments.split(',').find_map(|argument| argument.strip_prefix("iface=")) {
            Some(name) => Ok(Some(Self { name: name.to_owned(), c_name: c_string(name)? })),
            None => Ok(None),
        }
    }

    /// An error when there is none of that name.
    pub(super) fn require(&self) -> Result<(), DpdkError> {
        if self.flags() != Err(ENODEV) {
            return Ok(());
        }
        let reason = "there is no such network interface";
        Err(DpdkError::new(format!("interface `{}`", self.name), reason)
            .hint("`ip link` lists those of this machine (of this network namespace, if gnomon runs in one)"))
    }

    /// Largest IP packet that the kernel takes here.
    pub(super) fn mtu(&self) -> Option<u32> {
        std::fs::read_to_string(format!("/sys/class/net/{}/mtu", self.name)).ok()?.trim().parse().ok()
    }

    /// Up and with a carrier.
    pub(super) fn is_up(&self) -> bool {
        let wanted = ffi::GN_IFF_UP | ffi::GN_IFF_RUNNING;
        self.flags().is_ok_and(|flags| flags & wanted == wanted)
    }

    /// `IFF_` flags, or the error number.
    fn flags(&self) -> Result<i32, i32> {
        // SAFETY: a valid NUL-terminated string; nothing is kept.
        let code = unsafe { ffi::gn_interface_flags(self.c_name.as_ptr()) };
        if code < 0 { Err(-code) } else { Ok(code) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(device: &str, arguments: &str) -> Option<Interface> {
        Interface::of(device, arguments).expect("no NUL bytes")
    }

    #[test]
    fn finds_the_interface_in_the_arguments() {
        assert_eq!(of("net_af_packet0", "qpairs=2,iface=eth1").map(|i| i.name).as_deref(), Some("eth1"));
        assert_eq!(of("net_pcap0", "rx_pcap=a.pcap"), None);
        assert_eq!(of("net_tap0", "iface=tap0"), None, "made by the driver");
    }

    #[test]
    fn says_when_there_is_none() {
        let missing = of("net_af_packet0", "iface=nosuchif0").expect("named");
        assert!(missing.require().expect_err("missing").to_string().contains("nosuchif0"));
        assert!(!missing.is_up());
        let too_long = of("net_af_packet0", "iface=a-name-longer-than-names-may-be").expect("named");
        assert!(too_long.require().is_err());
        assert!(of("net_af_packet0", "iface=lo").expect("named").require().is_ok());
    }
}
