//! The HTTP side: connections, the table of routes, and what every request goes through.

mod access;
mod body;
mod dicomweb;
mod films;
mod jobs;
mod multipart;
mod openapi;
mod problem;
mod reading;
mod routes;
mod state;
mod web;

use crate::error::ServeError;
use crate::node::Node;
use crate::tls;
use access::Rates;
use axum::body::Body;
use axum::extract::Request;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use problem::Problem;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio_rustls::TlsAcceptor;
use tower_service::Service;

/// Time for requests to end when the service does.
const GRACE: Duration = Duration::from_secs(5);

/// What every request needs.
#[derive(Clone)]
pub(crate) struct App {
    pub node: Arc<Node>,
    pub rates: Arc<Rates>,
}

/// Where a request comes from.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Peer(pub SocketAddr);

impl App {
    /// Runs what waits for the disk apart from the threads that serve others.
    pub async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Node) -> Result<T, Problem> + Send + 'static,
    ) -> Result<T, Problem> {
        let node = Arc::clone(&self.node);
        match tokio::task::spawn_blocking(move || work(&node)).await {
            Ok(result) => result,
            Err(_) => {
                self.node.warn("answering a request: a thread panicked");
                Err(Problem::internal())
            }
        }
    }

    /// Tells the operator what happened, and the client only that something did.
    pub fn internal(&self, error: &ServeError) -> Problem {
        self.node.warn(&format!("answering a request: {error}"));
        Problem::internal()
    }
}

/// The running server.
pub(crate) struct Running {
    stop: watch::Sender<bool>,
    thread: JoinHandle<()>,
}

impl Running {
    /// Takes no more connections, and waits for the requests under way.
    pub fn stop(self) {
        // Nobody listens any more only when the thread has ended.
        let _ = self.stop.send(true);
        let _ = self.thread.join();
    }
}

pub(crate) fn start(node: &Arc<Node>, listener: TcpListener) -> Result<Running, ServeError> {
    let io = || ServeError::io("http.listen");
    listener.set_nonblocking(true).map_err(io())?;
    let http = &node.config.http;
    let tls = match (&http.tls_certificate, &http.tls_key) {
        (Some(certificate), Some(key)) => Some(TlsAcceptor::from(tls::server(certificate, key, None)?)),
        _ => None,
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .thread_name("http")
        .enable_all()
        .build()
        .map_err(io())?;
    let listener = {
        let _inside = runtime.enter();
        tokio::net::TcpListener::from_std(listener).map_err(io())?
    };
    let (stop, stopped) = watch::channel(false);
    let app = App { node: Arc::clone(node), rates: Arc::default() };
    let thread = crate::node::spawn(node, "http", move |_| {
        runtime.block_on(serve(app, listener, tls, stopped));
        runtime.shutdown_timeout(GRACE);
    })?;
    Ok(Running { stop, thread })
}

async fn serve(
    app: App,
    listener: tokio::net::TcpListener,
    tls: Option<TlsAcceptor>,
    mut stopped: watch::Receiver<bool>,
) {
    let room = Arc::new(Semaphore::new(app.node.config.http.max_connections));
    let router = routes::router(&app);
    let graceful = GracefulShutdown::new();
    loop {
        // With no room left, clients wait in the system's queue.
        let permit = tokio::select! {
            permit = Arc::clone(&room).acquire_owned() => permit.expect("the semaphore is never closed"),
            _ = stopped.wait_for(|stop| *stop) => break,
        };
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = stopped.wait_for(|stop| *stop) => break,
        };
        match accepted {
            Ok((socket, address)) => {
                let watcher = graceful.watcher();
                let (app, router, tls) = (app.clone(), router.clone(), tls.clone());
                tokio::spawn(async move {
                    let http = &app.node.config.http;
                    let patience = Duration::from_secs(http.header_timeout_s);
                    match tls {
                        None => connection(socket, address, router, patience, permit, watcher).await,
                        Some(tls) => {
                            if let Ok(Ok(socket)) = tokio::time::timeout(patience, tls.accept(socket)).await {
                                connection(socket, address, router, patience, permit, watcher).await;
                            }
                        }
                    }
                });
            }
            Err(error) => {
                app.node.warn(&format!("accepting connections: {error}"));
                tokio::time::sleep(Duration::from_millis(500)).await;
            }
        }
    }
    drop(listener);
    // Whoever is still busy then is cut off; what it had not been answered it will send again.
    let _ = tokio::time::timeout(GRACE, graceful.shutdown()).await;
}

async fn connection(
    socket: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    address: SocketAddr,
    router: axum::Router,
    patience: Duration,
    permit: OwnedSemaphorePermit,
    watcher: hyper_util::server::graceful::Watcher,
) {
    let service = hyper::service::service_fn(move |request: hyper::Request<hyper::body::Incoming>| {
        let mut request: Request = request.map(Body::new);
        request.extensions_mut().insert(Peer(address));
        router.clone().call(request)
    });
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(patience)
        .max_buf_size(64 << 10)
        .serve_connection(TokioIo::new(socket), service);
    // A client that breaks off, or sends no HTTP, has its answer in that.
    let _ = watcher.watch(connection).await;
    drop(permit);
}
