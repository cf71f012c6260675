use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use anyhow::{Context as _, bail};
use bytes::Bytes;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper::header::{CONNECTION, HeaderMap, HeaderName, HeaderValue, TRANSFER_ENCODING, UPGRADE};
use hyper::{Request, Response, StatusCode, client};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

use super::{Action, Seen, Shared, Upstream};

const LARGEST_BODY: usize = 64 << 20;

type Body = BoxBody<Bytes, hyper::Error>;

pub(super) async fn handle(
    mut request: Request<Incoming>,
    peer: SocketAddr,
    shared: Arc<Shared>,
    open: CancellationToken,
) -> anyhow::Result<Response<Body>> {
    let seen = Seen {
        number: shared.number.fetch_add(1, Ordering::Relaxed),
        method: request.method().to_string(),
        target: request.uri().to_string(),
        headers: request.headers().clone(),
        upgrade: request.headers().contains_key(UPGRADE),
    };
    let plan = shared.plan.lock().clone();
    let action = plan(&seen);
    if let Action::Refuse(status) = action {
        return Ok(answer(StatusCode::from_u16(status)?));
    }

    let upgrade = seen.upgrade.then(|| hyper::upgrade::on(&mut request));
    let (mut head, body) = request.into_parts();
    let body = Limited::new(body, LARGEST_BODY)
        .collect()
        .await
        .map_err(anyhow::Error::from_boxed)?;
    let body = Full::new(body.to_bytes());
    if upgrade.is_none() {
        remove_hop_by_hop(&mut head.headers);
    }
    let forwarded_for = HeaderName::from_static("x-forwarded-for");
    head.headers
        .append(forwarded_for, HeaderValue::from_str(&peer.ip().to_string())?);
    let request = Request::from_parts(head, body);

    let fixed = if let Action::To(i) = action { Some(i) } else { None };
    let Ok(mut response) = send(&shared, &request, fixed, &open).await else {
        return Ok(answer(StatusCode::BAD_GATEWAY));
    };
    if action == Action::Repeat {
        response.into_body().collect().await?;
        response = send(&shared, &request, None, &open).await?;
    }
    if action == Action::LoseResponse {
        response.into_body().collect().await?;
        bail!("response lost as planned");
    }

    if let (Some(client), StatusCode::SWITCHING_PROTOCOLS) = (upgrade, response.status()) {
        let server = hyper::upgrade::on(&mut response);
        tokio::spawn(async move {
            tokio::select! {
                () = open.cancelled() => {}
                _ = join(client, server) => {}
            }
        });
    } else {
        remove_hop_by_hop(response.headers_mut());
    }
    Ok(response.map(|body| body.boxed()))
}

/// Sends the request to the first candidate that accepts a connection.
async fn send(
    shared: &Shared,
    request: &Request<Full<Bytes>>,
    fixed: Option<usize>,
    open: &CancellationToken,
) -> anyhow::Result<Response<Incoming>> {
    for Upstream { addr, served } in shared.candidates(fixed) {
        let Ok(stream) = TcpStream::connect(addr).await else {
            continue;
        };
        let _ = stream.set_nodelay(true);
        served.fetch_add(1, Ordering::Relaxed);
        let (mut sender, connection) = client::conn::http1::handshake(TokioIo::new(stream)).await?;
        let open = open.clone();
        tokio::spawn(async move {
            tokio::select! {
                () = open.cancelled() => {}
                // A failure reaches the sender too.
                _ = connection.with_upgrades() => {}
            }
        });
        return sender
            .send_request(request.clone())
            .await
            .context("server gave no response");
    }
    bail!("no server accepts connections")
}

async fn join(client: hyper::upgrade::OnUpgrade, server: hyper::upgrade::OnUpgrade) -> anyhow::Result<()> {
    let (client, server) = tokio::try_join!(client, server)?;
    tokio::io::copy_bidirectional(&mut TokioIo::new(client), &mut TokioIo::new(server)).await?;
    Ok(())
}

fn remove_hop_by_hop(headers: &mut HeaderMap) {
    for name in [
        CONNECTION,
        TRANSFER_ENCODING,
        HeaderName::from_static("keep-alive"),
    ] {
        headers.remove(name);
    }
}

fn answer(status: StatusCode) -> Response<Body> {
    let body = Full::new(Bytes::new()).map_err(|never| match never {}).boxed();
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response
}
