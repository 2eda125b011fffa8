//! The way to one collector: UDP, or TCP that comes back by itself.

use std::io::{self, ErrorKind, Write};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, ToSocketAddrs, UdpSocket};
use std::time::{Duration, Instant};

use crate::config::IpfixTransport;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// A collector that takes nothing for so long is as good as gone.
const WRITE_TIMEOUT: Duration = Duration::from_secs(5);
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// A connection that is made when needed, and again after it broke.
#[derive(Debug)]
pub struct Connection {
    collector: String,
    transport: IpfixTransport,
    link: Option<Link>,
    retry_at: Option<Instant>,
    pause: Duration,
}

#[derive(Debug)]
enum Link {
    Udp(UdpSocket),
    Tcp(TcpStream),
}

/// Whether messages can be sent.
#[derive(Debug)]
pub enum Ready {
    /// As before.
    Open,
    /// A new transport session: sequence numbers start again and the collector knows nothing.
    New,
    /// Not before this.
    Later(Instant, Option<io::Error>),
}

impl Connection {
    /// Makes no connection yet.
    pub fn new(collector: &str, transport: IpfixTransport) -> Self {
        Self { collector: collector.to_owned(), transport, link: None, retry_at: None, pause: FIRST_PAUSE }
    }

    /// Connects if there is no connection and it is time to try.
    pub fn ready(&mut self) -> Ready {
        if self.link.as_ref().is_some_and(Link::is_closed) {
            self.link = None;
        }
        if self.link.is_some() {
            return Ready::Open;
        }
        if let Some(at) = self.retry_at.filter(|at| Instant::now() < *at) {
            return Ready::Later(at, None);
        }
        match self.open() {
            Ok(link) => {
                self.link = Some(link);
                (self.retry_at, self.pause) = (None, FIRST_PAUSE);
                Ready::New
            }
            Err(error) => {
                let at = Instant::now() + self.pause;
                self.retry_at = Some(at);
                self.pause = (self.pause * 2).min(LONGEST_PAUSE);
                Ready::Later(at, Some(error))
            }
        }
    }

    /// Sends one message. After an error over TCP the connection is gone, and nothing of the message has arrived in a way
    /// that could be read. Over UDP the error may be that of the message before (nobody listens): the connection stays.
    pub fn send(&mut self, message: &[u8]) -> io::Result<()> {
        let outcome = match &mut self.link {
            None => return Err(ErrorKind::NotConnected.into()),
            Some(Link::Udp(socket)) => return socket.send(message).map(drop),
            Some(Link::Tcp(stream)) => stream.write_all(message),
        };
        if outcome.is_err() {
            self.link = None;
        }
        outcome
    }

    fn open(&self) -> io::Result<Link> {
        let mut last = io::Error::new(ErrorKind::NotFound, "the name has no address");
        for address in self.collector.to_socket_addrs()? {
            match self.open_to(address) {
                Ok(link) => return Ok(link),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    fn open_to(&self, address: SocketAddr) -> io::Result<Link> {
        match self.transport {
            IpfixTransport::Udp => {
                let socket = match address {
                    SocketAddr::V4(_) => UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?,
                    SocketAddr::V6(_) => UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0))?,
                };
                socket.connect(address)?;
                Ok(Link::Udp(socket))
            }
            IpfixTransport::Tcp => {
                let stream = TcpStream::connect_timeout(&address, CONNECT_TIMEOUT)?;
                stream.set_write_timeout(Some(WRITE_TIMEOUT))?;
                stream.set_nodelay(true)?;
                Ok(Link::Tcp(stream))
            }
        }
    }
}

impl Link {
    /// True when the other side has closed a TCP connection. Collectors send nothing, so anything to read is the end.
    fn is_closed(&self) -> bool {
        let Link::Tcp(stream) = self else { return false };
        if stream.set_nonblocking(true).is_err() {
            return true;
        }
        let open = matches!(stream.peek(&mut [0]), Err(error) if error.kind() == ErrorKind::WouldBlock);
        !open || stream.set_nonblocking(false).is_err()
    }
}
