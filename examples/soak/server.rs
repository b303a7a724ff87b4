//! An HTTP server that can also fail as no well-behaved one does: reset the connection, or never answer.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::mpsc,
};

pub(crate) enum Reply {
    Answer(Response<Full<Bytes>>),
    Reset,
    Hang,
}

impl Reply {
    pub(crate) fn status(status: u16) -> Self {
        Self::with(status, &[], "")
    }

    pub(crate) fn with(status: u16, headers: &[(&str, &str)], body: impl Into<Bytes>) -> Self {
        let headers = headers
            .iter()
            .fold(Response::builder().status(status), |answer, (name, value)| answer.header(*name, *value));
        // Each status and header here is a constant.
        headers.body(Full::new(body.into())).map_or(Self::Reset, Self::Answer)
    }
}

/// Serves on a port of the loopback interface for as long as the process lives.
pub(crate) async fn start<H, F>(handle: H) -> io::Result<SocketAddr>
where
    H: Fn(Request<Bytes>) -> F + Send + Sync + 'static,
    F: Future<Output = Reply> + Send + 'static,
{
    let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
    let address = listener.local_addr()?;
    let handle = Arc::new(handle);
    tokio::spawn(async move {
        loop {
            if let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, Arc::clone(&handle)));
            }
        }
    });
    Ok(address)
}

async fn serve<H, F>(stream: TcpStream, handle: Arc<H>)
where
    H: Fn(Request<Bytes>) -> F + Send + Sync + 'static,
    F: Future<Output = Reply> + Send + 'static,
{
    let (cut, mut was_cut) = mpsc::channel::<()>(1);
    let service = service_fn(move |request: Request<Incoming>| {
        let (handle, cut) = (Arc::clone(&handle), cut.clone());
        async move {
            let (head, body) = request.into_parts();
            let body = body.collect().await?.to_bytes();
            match handle(Request::from_parts(head, body)).await {
                Reply::Answer(answer) => return Ok::<_, hyper::Error>(answer),
                Reply::Reset => drop(cut.try_send(())),
                Reply::Hang => {}
            }
            // Until the client has had enough, or the connection is cut.
            std::future::pending().await
        }
    });
    let mut connection = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
    tokio::select! {
        _gone = &mut connection => {}
        Some(()) = was_cut.recv() => {
            let stream = connection.into_parts().io.into_inner();
            #[allow(deprecated, reason = "what replaces it came with tokio 1.49")]
            let _reset = stream.set_linger(Some(Duration::ZERO));
        }
    }
}
