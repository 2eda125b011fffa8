//! HTTP for one page.

use std::convert::Infallible;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{ALLOW, CONTENT_TYPE as CONTENT_TYPE_HEADER, HeaderValue};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::sync::{Semaphore, oneshot};

use super::exposition::CONTENT_TYPE;

/// Readers served at one time; more wait in the kernel's queue.
const READERS: usize = 8;
/// A connection ends after this, whatever it does: a slow reader keeps a place from others no longer.
const LONGEST: Duration = Duration::from_secs(10);

type Render = dyn Fn() -> String + Send + Sync;

/// Serves the page until dropped.
#[derive(Debug)]
pub struct MetricsServer {
    address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl MetricsServer {
    /// Listens, and calls `render` for each reader.
    ///
    /// # Errors
    /// The address cannot be listened on.
    pub fn start(listen: SocketAddr, render: impl Fn() -> String + Send + Sync + 'static) -> io::Result<Self> {
        let listener = TcpListener::bind(listen)?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (stop, stopped) = oneshot::channel();
        let thread = thread::Builder::new().name("metrics".into()).spawn(move || {
            runtime.block_on(async {
                tokio::spawn(async move {
                    if let Err(error) = serve(listener, Arc::new(render)).await {
                        log::error!("metrics are not served any more: {error}");
                    }
                });
                // Ends when the sender is gone; what is spawned ends with the runtime.
                let _ = stopped.await;
            });
        })?;
        Ok(Self { address, stop: Some(stop), thread: Some(thread) })
    }

    /// Where it listens; with port 0 asked for, the one that was free.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for MetricsServer {
    fn drop(&mut self) {
        self.stop = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

async fn serve(listener: TcpListener, render: Arc<Render>) -> io::Result<()> {
    let listener = tokio::net::TcpListener::from_std(listener)?;
    let places = Arc::new(Semaphore::new(READERS));
    loop {
        let Ok(place) = places.clone().acquire_owned().await else { return Ok(()) };
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                // The reader went away again, or there are no file descriptors left for the moment.
                log::debug!("metrics: {error}");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let render = render.clone();
        tokio::spawn(async move {
            let service = service_fn(|request| std::future::ready(answer(&request, &*render)));
            let connection = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service);
            if let Ok(Err(error)) = tokio::time::timeout(LONGEST, connection).await {
                log::debug!("metrics: {error}");
            }
            drop(place);
        });
    }
}

fn answer(request: &Request<Incoming>, render: &Render) -> Result<Response<Full<Bytes>>, Infallible> {
    let text = |status, kind: &'static str, body: String| {
        let mut response = Response::new(Full::new(Bytes::from(body)));
        *response.status_mut() = status;
        response.headers_mut().insert(CONTENT_TYPE_HEADER, HeaderValue::from_static(kind));
        response
    };
    let plain = "text/plain; charset=utf-8";
    Ok(match (request.method(), request.uri().path()) {
        (&Method::GET | &Method::HEAD, "/metrics") => text(StatusCode::OK, CONTENT_TYPE, render()),
        (&Method::GET | &Method::HEAD, _) => text(StatusCode::NOT_FOUND, plain, "metrics are at /metrics\n".into()),
        _ => {
            let mut response = text(StatusCode::METHOD_NOT_ALLOWED, plain, "only GET\n".into());
            response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
            response
        }
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::net::TcpStream;

    fn ask(address: SocketAddr, request: &str) -> String {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }

    #[test]
    fn one_page_and_nothing_else() {
        let server = MetricsServer::start("127.0.0.1:0".parse().unwrap(), || "gnomon_x 1\n".to_owned()).unwrap();
        let address = server.address();
        let request = |line: &str| ask(address, &format!("{line} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"));
        let page = request("GET /metrics");
        assert!(page.starts_with("HTTP/1.1 200 OK") && page.ends_with("\r\n\r\ngnomon_x 1\n"), "{page}");
        assert!(page.contains("content-type: text/plain; version=0.0.4"), "{page}");
        assert!(request("GET /").starts_with("HTTP/1.1 404"));
        assert!(request("POST /metrics").starts_with("HTTP/1.1 405"));
        assert!(ask(address, "nonsense\r\n\r\n").starts_with("HTTP/1.1 400"));
        assert!(MetricsServer::start(address, String::new).is_err(), "the address is taken");
        // More silent readers than places do not keep the server from stopping.
        let silent: Vec<_> = (0..READERS + 4).map(|_| TcpStream::connect(address).unwrap()).collect();
        drop(server);
        assert!(TcpStream::connect(address).is_err(), "nobody listens any more");
        drop(silent);
    }
}
