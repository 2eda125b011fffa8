//! Listens, and speaks HTTP or HTTPS.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::{Semaphore, oneshot};
use tokio_rustls::TlsAcceptor;

use super::gate::{Gate, Peer};
use super::tls::{self, TlsError};
use super::world::World;
use super::{resources, router};
use crate::config::Api as Settings;
use crate::policy::service::Service;
use crate::store::{Store, StoreError};

/// Clients at one time; more wait in the kernel's queue.
const CONNECTIONS: usize = 256;
/// Requests that are worked on at one time; more wait.
const THREADS: usize = 32;
/// A client that does not say what it wants, or does not finish the handshake, keeps its place no longer.
const HEADERS_WITHIN: Duration = Duration::from_secs(10);
/// How often the store is asked which tokens there are.
const TEND_EVERY: Duration = Duration::from_secs(1);
/// What goes on may end, when the server does.
const END_WITHIN: Duration = Duration::from_secs(2);

/// Why there is no API.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    #[error("the API cannot listen on {address}: {source}; [api] listen says where")]
    Listen { address: SocketAddr, source: io::Error },
    #[error(transparent)]
    Tls(#[from] TlsError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(
        "the API listens on {address} only with a certificate: give [api] certificate and key, or a loopback address such as 127.0.0.1:8443 as listen"
    )]
    NoCertificate { address: SocketAddr },
    #[error("the API listens on {address} only when there is a token: `gnomon token create NAME --role admin --store {}` makes one; or give a loopback address such as 127.0.0.1:8443 as [api] listen", store.display())]
    NoToken { address: SocketAddr, store: PathBuf },
    #[error("the API cannot start: {0}")]
    System(#[from] io::Error),
}

/// Serves until dropped.
#[derive(Debug)]
pub struct ApiServer {
    address: SocketAddr,
    is_tls: bool,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl ApiServer {
    /// Listens where the settings say, which must be somewhere, and asks the service. The tokens are in the store.
    ///
    /// # Errors
    /// The address cannot be used, or is open to others and something is missing for that.
    pub fn start(
        settings: &Settings,
        address: SocketAddr,
        store: Store,
        service: Arc<Service>,
    ) -> Result<Self, ApiError> {
        let path = store.path().to_owned();
        let acceptor = settings.tls.as_ref().map(tls::acceptor).transpose()?;
        let gate = Gate::new(store, settings.clients.clone(), settings.rate)?;
        if !address.ip().is_loopback() {
            if acceptor.is_none() {
                return Err(ApiError::NoCertificate { address });
            }
            if !gate.has_token() {
                return Err(ApiError::NoToken { address, store: path });
            }
        }
        let failed = |source| ApiError::Listen { address, source };
        let listener = TcpListener::bind(address).map_err(failed)?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .max_blocking_threads(THREADS)
            .thread_name("api-work")
            .build()?;
        let (stop, stopped) = oneshot::channel();
        let is_tls = acceptor.is_some();
        let endpoints = resources::endpoints();
        let world = Arc::new(World::new(service, gate, &endpoints));
        let router = router::router(&world, endpoints);
        let thread = thread::Builder::new().name("api".into()).spawn(move || {
            runtime.block_on(async {
                tokio::spawn(tend(world));
                tokio::spawn(async move {
                    if let Err(error) = serve(listener, acceptor, router).await {
                        log::error!("the API is not served any more: {error}");
                    }
                });
                // Ends when the sender is gone.
                let _ = stopped.await;
            });
            runtime.shutdown_timeout(END_WITHIN);
        })?;
        Ok(Self { address, is_tls, stop: Some(stop), thread: Some(thread) })
    }

    /// Where it listens; with port 0 asked for, the one that was free.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where clients find it.
    #[must_use]
    pub fn url(&self) -> String {
        format!("{}://{}", if self.is_tls { "https" } else { "http" }, self.address)
    }
}

impl Drop for ApiServer {
    fn drop(&mut self) {
        self.stop = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

async fn tend(world: Arc<World>) {
    loop {
        tokio::time::sleep(TEND_EVERY).await;
        let world = world.clone();
        let _ = tokio::task::spawn_blocking(move || world.gate.tend()).await;
    }
}

async fn serve(listener: TcpListener, acceptor: Option<TlsAcceptor>, router: Router) -> io::Result<()> {
    let listener = tokio::net::TcpListener::from_std(listener)?;
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let Ok(place) = places.clone().acquire_owned().await else { return Ok(()) };
        let (stream, address) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                // The client went away again, or there are no file descriptors left for the moment.
                log::debug!("api: {error}");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let (acceptor, router) = (acceptor.clone(), router.clone());
        tokio::spawn(async move {
            if let Err(error) = converse(stream, address, acceptor, router).await {
                log::debug!("api: {address}: {error}");
            }
            drop(place);
        });
    }
}

/// One connection.
async fn converse(
    stream: TcpStream,
    address: SocketAddr,
    acceptor: Option<TlsAcceptor>,
    router: Router,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    stream.set_nodelay(true)?;
    let Some(acceptor) = acceptor else {
        return speak(stream, Peer { address, certificate: None }, router).await;
    };
    let stream = tokio::time::timeout(HEADERS_WITHIN, acceptor.accept(stream)).await??;
    let shown = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first());
    // A certificate without a name is one that nobody has given a role.
    let certificate = shown.map(|shown| tls::common_name(shown).unwrap_or_default());
    speak(stream, Peer { address, certificate }, router).await
}

async fn speak(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    peer: Peer,
    router: Router,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let router = TowerToHyperService::new(router);
    let service = service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(peer.clone());
        hyper::service::Service::call(&router, request)
    });
    let mut server = http1::Builder::new();
    server.timer(TokioTimer::new()).header_read_timeout(HEADERS_WITHIN);
    Ok(server.serve_connection(TokioIo::new(stream), service).await?)
}
