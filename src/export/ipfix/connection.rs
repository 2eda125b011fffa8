//! The way to one collector: UDP, or TCP that comes back by itself.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpStream, ToSocketAddrs, UdpSocket};
use std::time::{Duration, Instant};

use crate::config::IpfixTransport;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// A collector that takes nothing for so long is as good as gone.
const WRITE_TIMEOUT: Duration = Duration::from_secs(5);
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// A connection that lasted so long was a good one: should it break, the first pause is short again.
const LASTING: Duration = Duration::from_secs(10);

/// A connection that is made when needed, and again after it broke.
#[derive(Debug)]
pub struct Connection {
    collector: String,
    transport: IpfixTransport,
    link: Option<Link>,
    retry_at: Option<Instant>,
    pause: Duration,
    opened: Instant,
    /// Flow records went over this link.
    carried: bool,
    broken: u64,
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
        Self {
            collector: collector.to_owned(),
            transport,
            link: None,
            retry_at: None,
            pause: FIRST_PAUSE,
            opened: Instant::now(),
            carried: false,
            broken: 0,
        }
    }

    /// Connects if there is no connection and it is time to try.
    pub fn ready(&mut self) -> Ready {
        if self.link.as_ref().is_some_and(Link::is_closed) {
            self.lose();
        }
        if self.link.is_some() {
            return Ready::Open;
        }
        if let Some(at) = self.retry_at.filter(|at| Instant::now() < *at) {
            return Ready::Later(at, None);
        }
        match self.open() {
            Ok(link) => {
                (self.link, self.opened, self.carried) = (Some(link), Instant::now(), false);
                Ready::New
            }
            Err(error) => Ready::Later(self.put_off(), Some(error)),
        }
    }

    /// Sends one message with so many flow records. After an error over TCP the connection is gone, and nothing of the
    /// message has arrived in a way that could be read. Over UDP the error may be that of the message before (nobody
    /// listens): the connection stays.
    pub fn send(&mut self, message: &[u8], records: u64) -> io::Result<()> {
        let outcome = match &mut self.link {
            None => return Err(ErrorKind::NotConnected.into()),
            Some(Link::Udp(socket)) => return socket.send(message).map(drop),
            Some(Link::Tcp(stream)) => stream.write_all(message),
        };
        match outcome {
            Ok(()) => self.carried |= records > 0,
            Err(_) => self.lose(),
        }
        outcome
    }

    /// Ends the connection in good order: over TCP waits until the collector has read everything and closed, too.
    ///
    /// # Errors
    /// It broke, or closed before it was told the end, or did not close within `limit`; this counts as broken.
    pub fn finish(&mut self, limit: Duration) -> io::Result<()> {
        let Some(link) = self.link.take() else { return Ok(()) };
        let closed_early = link.is_closed();
        let Link::Tcp(stream) = link else { return Ok(()) };
        let early = || Err(io::Error::new(ErrorKind::ConnectionAborted, "closed before it had everything"));
        let outcome = if closed_early { early() } else { read_to_end(stream, limit) };
        self.broken += u64::from(outcome.is_err() && self.carried);
        outcome
    }

    /// Connections with flow records on them that broke: the last of these may not have arrived.
    pub fn broken(&self) -> u64 {
        self.broken
    }

    fn lose(&mut self) {
        self.link = None;
        self.broken += u64::from(self.carried);
        if self.opened.elapsed() > LASTING {
            self.pause = FIRST_PAUSE;
        }
        self.put_off();
    }

    /// When to try again: ever more seldom.
    fn put_off(&mut self) -> Instant {
        let at = Instant::now() + self.pause;
        self.retry_at = Some(at);
        self.pause = (self.pause * 2).min(LONGEST_PAUSE);
        at
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

/// Says that no more comes, and waits for the other side to say the same.
fn read_to_end(mut stream: TcpStream, limit: Duration) -> io::Result<()> {
    let end = Instant::now() + limit;
    stream.shutdown(Shutdown::Write)?;
    loop {
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::Error::new(ErrorKind::TimedOut, "did not close after the last message"));
        }
        stream.set_read_timeout(Some(left))?;
        match stream.read(&mut [0; 1024]) {
            // A reset that came after the other side's end shows only here.
            Ok(0) => return stream.take_error()?.map_or(Ok(()), Err),
            Ok(_) => {}
            Err(error) if matches!(error.kind(), ErrorKind::Interrupted | ErrorKind::WouldBlock) => {}
            Err(error) => return Err(error),
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
