//! What happens, as it happens: server-sent events.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::thread;
use std::time::Duration;

use axum::body::Body;
use crossbeam::channel::{Receiver, RecvTimeoutError};
use hyper::body::{Bytes, Frame};
use tokio::sync::mpsc;

use crate::api::call::{Answer, Call};
use crate::api::endpoint::{Endpoint, Method};
use crate::api::problem::Problem;
use crate::api::world::World;
use crate::policy::service::Event;

/// Listeners at one time.
const MOST: usize = 64;
/// Events that wait for the network; the service lets a listener go that falls behind further.
const AHEAD: usize = 64;
/// So that a listener that is gone is noticed, and what stands between knows that the connection lives.
const QUIET: Duration = Duration::from_secs(10);

pub(super) fn endpoints() -> Vec<Endpoint> {
    vec![
        Endpoint::new(Method::Get, "/events", "events", events)
            .summary("events", "What happens from now on, as server-sent events")
            .about(
                "`event` is `generation`, `draft`, `inbox`, `suggestion` or `alert`; `data` is a JSON object. The stream \
                 ends when the listener falls too far behind: it should read anew what it follows, and connect again.",
            )
            .gives_other("text/event-stream"),
    ]
}

fn events(world: &World, _: &Call) -> Result<Answer, Problem> {
    let Some(place) = Place::take(&world.listeners) else {
        let detail = format!("{MOST} listen already");
        return Err(Problem::new(503, "busy", detail));
    };
    let (sender, receiver) = mpsc::channel(AHEAD);
    let events = world.service.listen();
    let forward = move || {
        forward(&events, &sender);
        drop(place);
    };
    thread::Builder::new().name("api-events".into()).spawn(forward).map_err(|error| {
        log::error!("events cannot be sent: {error}");
        Problem::internal()
    })?;
    Ok(Answer::of("text/event-stream", Body::new(Stream(receiver))))
}

/// Sends what comes until either side is gone.
fn forward(events: &Receiver<Event>, to: &mpsc::Sender<Bytes>) {
    let mut next = Bytes::from_static(b": gnomon\nretry: 2000\n\n");
    while to.blocking_send(next).is_ok() {
        next = match events.recv_timeout(QUIET) {
            Ok(event) => format!("event: {}\ndata: {}\n\n", event.kind, event.data).into(),
            Err(RecvTimeoutError::Timeout) => Bytes::from_static(b":\n\n"),
            Err(RecvTimeoutError::Disconnected) => return,
        };
    }
}

/// One of the listeners.
#[derive(Debug)]
struct Place(Arc<AtomicUsize>);

impl Place {
    fn take(listeners: &Arc<AtomicUsize>) -> Option<Self> {
        let place = Self(listeners.clone());
        let before = listeners.fetch_add(1, Ordering::Relaxed);
        // Dropped, it counts back.
        (before < MOST).then_some(place)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A body that ends when the sender is gone.
#[derive(Debug)]
struct Stream(mpsc::Receiver<Bytes>);

impl hyper::body::Body for Stream {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        self.0.poll_recv(context).map(|bytes| bytes.map(|bytes| Ok(Frame::data(bytes))))
    }
}
