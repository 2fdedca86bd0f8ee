//! Whether DDS can work here: a datagram is sent to a multicast group from each interface that claims to carry it, and must come back. Plain
//! sockets, so that what breaks in DDS or in the node is never taken for a network without multicast.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::path::Path;
use std::time::Duration;

use socket2::{Domain, InterfaceIndexOrAddress, Protocol, Socket, Type};

/// DDS's own group.
const GROUP: Ipv4Addr = Ipv4Addr::new(239, 255, 0, 1);
/// Longest way of a datagram through this machine.
const WAY: Duration = Duration::from_secs(2);

/// Whether some interface carries multicast. Where none does that is told, and an error where `UTR_TEST_ROS=required`.
pub fn works() -> bool {
    let mut reasons = Vec::new();
    for name in std::fs::read_dir("/sys/class/net").into_iter().flatten().flatten() {
        let name = name.file_name().to_string_lossy().into_owned();
        match carries(&name) {
            Ok(()) => return true,
            Err(reason) => reasons.push(format!("{name}: {reason}")),
        }
    }
    let reason = format!("no interface carries multicast, which DDS needs ({})", reasons.join("; "));
    let required = std::env::var("UTR_TEST_ROS").is_ok_and(|value| value == "required");
    assert!(!required, "UTR_TEST_ROS=required, but {reason}");
    eprintln!("skipped: {reason}; UTR_TEST_ROS=required makes this an error");
    false
}

fn carries(name: &str) -> Result<(), String> {
    let read = |file: &str| {
        let path = Path::new("/sys/class/net").join(name).join(file);
        std::fs::read_to_string(path).map(|text| text.trim().to_string()).map_err(|error| error.to_string())
    };
    let flags =
        u32::from_str_radix(read("flags")?.trim_start_matches("0x"), 16).map_err(|e| e.to_string())?;
    let (up, multicast) = (0x1, 0x1000);
    if flags & up == 0 || flags & multicast == 0 {
        return Err("not up, or not for multicast".into());
    }
    let index = read("ifindex")?.parse().map_err(|_| "no index")?;
    there_and_back(name, index).map_err(|error| error.to_string())
}

fn there_and_back(name: &str, index: u32) -> std::io::Result<()> {
    let ears = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP))?;
    ears.bind(&SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)).into())?;
    ears.join_multicast_v4_n(&GROUP, &InterfaceIndexOrAddress::Index(index))?;
    let ears = UdpSocket::from(ears);
    ears.set_read_timeout(Some(WAY))?;
    let mouth = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP))?;
    mouth.bind_device(Some(name.as_bytes()))?;
    mouth.set_multicast_loop_v4(true)?;
    let word = std::process::id().to_le_bytes();
    UdpSocket::from(mouth).send_to(&word, (GROUP, ears.local_addr()?.port()))?;
    let mut heard = [0; 4];
    ears.recv(&mut heard)?;
    if heard == word { Ok(()) } else { Err(std::io::Error::other("somebody else's datagram came")) }
}
