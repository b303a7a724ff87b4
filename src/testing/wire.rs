//! The part of a server that is below any answer: it listens, reads one request per connection, and delivers what it is
//! told to deliver, or fails to in the way it is told to.
//!
//! It is written on bare sockets, because half of what the kit has to do (cut a status line, reset, never answer) is what
//! a well-behaved HTTP server makes impossible.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpSocket, TcpStream},
    sync::Mutex,
    task::{JoinHandle, JoinSet},
    time::{Instant, sleep},
};

use super::{
    grants::Pair,
    message::{Message, Request},
    script::{Answer, Mishap},
};

/// What answers: called once per connection, with the request or with what is wrong with it.
type Respond = dyn Fn(Result<Request, String>, Instant) -> Reply + Send + Sync;

/// An answer on its way.
pub(super) struct Reply {
    message: Message,
    delay: Duration,
    mishap: Option<Mishap>,
    /// Dropped when the exchange is over.
    in_flight: Box<dyn Send>,
}

impl Reply {
    pub(super) fn new(answer: &Answer, issued: Option<&Pair>, in_flight: Box<dyn Send>) -> Self {
        Self { message: answer.message(issued), delay: answer.delay(), mishap: answer.mishap(), in_flight }
    }
}

/// A server on a port of the loopback interface, in the runtime that started it. Dropping it ends its tasks.
pub(super) struct Server {
    address: SocketAddr,
    respond: Arc<Respond>,
    listening: Mutex<Listening>,
}

enum Listening {
    Yes(Task),
    /// The port stays bound, so that nobody else gets it; a bound socket that does not listen refuses connections.
    No(Option<TcpSocket>),
}

impl Server {
    pub(super) fn start(respond: impl Fn(Result<Request, String>, Instant) -> Reply + Send + Sync + 'static) -> Self {
        let respond: Arc<Respond> = Arc::new(respond);
        let started = || {
            let socket = bind((Ipv4Addr::LOCALHOST, 0).into())?;
            io::Result::Ok((socket.local_addr()?, listen(socket, &respond)?))
        };
        let (address, task) = started().expect("the loopback interface has a port to listen on");
        Self { address, respond, listening: Mutex::new(Listening::Yes(task)) }
    }

    pub(super) const fn address(&self) -> SocketAddr {
        self.address
    }

    /// As if the process had died: connections are cut, and new ones refused.
    pub(super) async fn refuse_connections(&self) {
        let mut listening = self.listening.lock().await;
        if let Listening::Yes(task) = &mut *listening {
            task.0.abort();
            // The port is free only when the task has been dropped; its result says no more than that.
            let _cancelled = (&mut task.0).await;
            *listening = Listening::No(bind(self.address).ok());
        }
    }

    pub(super) async fn listen_again(&self) {
        let mut listening = self.listening.lock().await;
        if let Listening::No(socket) = &mut *listening {
            let socket = socket.take().map_or_else(|| bind(self.address), Ok);
            let task = socket.and_then(|socket| listen(socket, &self.respond));
            *listening = Listening::Yes(task.expect("the port of the server is still its own"));
        }
    }
}

fn bind(address: SocketAddr) -> io::Result<TcpSocket> {
    let socket = TcpSocket::new_v4()?;
    // Connections of the first life, in TIME_WAIT, would block the port. On Windows the option means something else.
    #[cfg(not(windows))]
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    Ok(socket)
}

fn listen(socket: TcpSocket, respond: &Arc<Respond>) -> io::Result<Task> {
    let listener = socket.listen(BACKLOG)?;
    let task = tokio::spawn(accept(listener, Arc::clone(respond)));
    Ok(Task(task))
}

async fn accept(listener: TcpListener, respond: Arc<Respond>) {
    let mut connections = JoinSet::new();
    loop {
        // An error here is about one connection that died in the queue.
        if let Ok((stream, _)) = listener.accept().await {
            let respond = Arc::clone(&respond);
            connections.spawn(async move {
                // An error means that the client has gone; it is the client's test that has to care.
                let _gone = serve(stream, &*respond).await;
            });
        }
        while connections.try_join_next().is_some() {}
    }
}

async fn serve(mut stream: TcpStream, respond: &Respond) -> io::Result<()> {
    let mut received = Vec::new();
    let request = loop {
        match Request::parse(&received) {
            Ok(Some(request)) => break Ok(request),
            Ok(None) => {}
            Err(complaint) => break Err(complaint),
        }
        if stream.read_buf(&mut received).await? == 0 {
            return Ok(());
        }
    };
    deliver(stream, respond(request, now())).await
}

async fn deliver(mut stream: TcpStream, reply: Reply) -> io::Result<()> {
    let Reply { message: Message { head, body }, delay, mishap, in_flight: _in_flight } = reply;
    if !delay.is_zero() {
        tokio::select! {
            biased;
            () = hung_up(&mut stream) => return Ok(()),
            () = sleep(delay) => {}
        }
    }
    match mishap {
        None => {
            stream.write_all(&[head, body].concat()).await?;
        }
        Some(Mishap::Truncated) => {
            let half = body.get(..body.len() / 2).unwrap_or_default();
            stream.write_all(&[&*head, half].concat()).await?;
        }
        Some(Mishap::HalfAStatusLine) => stream.write_all(b"HTTP/1.1 2").await?,
        Some(Mishap::Drip(pause)) => {
            stream.write_all(&head).await?;
            for byte in body {
                sleep(pause).await;
                stream.write_all(&[byte]).await?;
            }
        }
        Some(Mishap::Eof) => {}
        Some(Mishap::Reset) => {
            #[allow(deprecated, reason = "what replaces it came with tokio 1.49")]
            stream.set_linger(Some(Duration::ZERO))?;
            return Ok(());
        }
        Some(Mishap::Hang) => {
            hung_up(&mut stream).await;
            return Ok(());
        }
    }
    stream.shutdown().await
}

/// Waits until the client closes the connection.
async fn hung_up(stream: &mut TcpStream) {
    let mut ignored = [0; 256];
    while let Ok(1..) = stream.read(&mut ignored).await {}
}

/// The kit lives by the clock of the test.
pub(super) fn now() -> Instant {
    #[expect(clippy::disallowed_methods, reason = "the library's clock is under test; the kit has its own")]
    Instant::now()
}

/// A task that ends with its handle.
struct Task(JoinHandle<()>);

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

const BACKLOG: u32 = 1024;
