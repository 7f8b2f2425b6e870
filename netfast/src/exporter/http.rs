//! The HTTP server: two pages to read, few connections, no patience.

use std::{convert::Infallible, sync::Arc, time::Duration};

use http_body_util::Full;
use hyper::{
    Method, Request, Response, StatusCode,
    body::{Bytes, Incoming},
    header::{ACCEPT, ALLOW, CONTENT_TYPE, HeaderValue},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{net::TcpListener, sync::Semaphore, time::sleep};
use tracing::debug;

use super::{
    Source,
    metrics::{self, Format},
};

/// Connections at once: a scraper needs one.
const CONNECTIONS: usize = 32;
/// For how long a client may take to say what it wants.
const READY_TIMEOUT: Duration = Duration::from_secs(5);
/// After a failure to accept (no descriptors left), others go first.
const PAUSE: Duration = Duration::from_millis(200);
/// Plain text.
const TEXT: &str = "text/plain; charset=utf-8";

/// A finished answer.
type Answer = Response<Full<Bytes>>;

/// Serves until it is dropped.
pub async fn serve(listener: TcpListener, source: Arc<Source>) {
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        // The semaphore is never closed.
        let Ok(place) = Arc::clone(&places).acquire_owned().await else {
            return;
        };
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                debug!("cannot accept a connection for metrics: {error}");
                sleep(PAUSE).await;
                continue;
            }
        };
        let source = Arc::clone(&source);
        tokio::spawn(async move {
            let service = service_fn(|request: Request<Incoming>| {
                let source = Arc::clone(&source);
                async move { Ok::<_, Infallible>(answer(&request, &source).await) }
            });
            let served = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(READY_TIMEOUT)
                .serve_connection(TokioIo::new(stream), service)
                .await;
            if let Err(error) = served {
                debug!("a connection for metrics broke: {error}");
            }
            drop(place);
        });
    }
}

async fn answer<B>(request: &Request<B>, source: &Arc<Source>) -> Answer {
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        let mut answer = text(StatusCode::METHOD_NOT_ALLOWED, TEXT, "only GET and HEAD\n".into());
        answer
            .headers_mut()
            .insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        return answer;
    }
    match request.uri().path() {
        "/metrics" => {
            let format = Format::accepted(request.headers().get(ACCEPT).and_then(|value| value.to_str().ok()));
            match source.status().await {
                Ok((status, aliases)) => text(
                    StatusCode::OK,
                    format.content_type(),
                    metrics::encode(&status, &aliases, &source.vitals(), format),
                ),
                Err(error) => {
                    let error = format!("{:#}\n", anyhow::Error::new(error));
                    text(StatusCode::INTERNAL_SERVER_ERROR, TEXT, error)
                }
            }
        }
        "/healthz" => match source.vitals().behind {
            None => text(StatusCode::OK, TEXT, "in sync\n".into()),
            Some(why) => text(StatusCode::SERVICE_UNAVAILABLE, TEXT, format!("not in sync: {why}\n")),
        },
        "/" => text(
            StatusCode::OK,
            TEXT,
            "netfast: /metrics for Prometheus, /healthz for health checks\n".into(),
        ),
        _ => text(StatusCode::NOT_FOUND, TEXT, "there are /metrics and /healthz\n".into()),
    }
}

fn text(status: StatusCode, content_type: &'static str, body: String) -> Answer {
    let mut answer = Response::new(Full::new(Bytes::from(body)));
    *answer.status_mut() = status;
    answer
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    answer
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt as _;

    use super::*;
    use crate::health::Health;

    async fn ask(source: &Arc<Source>, method: Method, path: &str) -> (StatusCode, String) {
        let request = Request::builder().method(method).uri(path).body(()).expect("a request");
        let answer = answer(&request, source).await;
        let status = answer.status();
        let body = answer.into_body().collect().await.expect("a body").to_bytes();
        (status, String::from_utf8_lossy(&body).into_owned())
    }

    #[tokio::test]
    async fn health_says_why_not() {
        let health = Health::default();
        let dir = tempfile::tempdir().expect("a directory");
        let source = Source::new(dir.path(), dir.path(), health.clone());
        let starting = ask(&source, Method::GET, "/healthz").await;
        assert_eq!(
            starting,
            (
                StatusCode::SERVICE_UNAVAILABLE,
                "not in sync: the daemon is starting\n".into()
            )
        );
        health.in_sync();
        let healthy = ask(&source, Method::GET, "/healthz").await;
        assert_eq!(healthy, (StatusCode::OK, "in sync\n".into()));
        health.failed("cannot attach to veth1 (7): out of memory".into());
        let (status, why) = ask(&source, Method::GET, "/healthz").await;
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(why, "not in sync: cannot attach to veth1 (7): out of memory\n");
    }

    #[tokio::test]
    async fn metrics_of_nothing_are_an_error_and_not_zeros() {
        let dir = tempfile::tempdir().expect("a directory");
        let source = Source::new(dir.path(), dir.path(), Health::default());
        let (status, why) = ask(&source, Method::GET, "/metrics").await;
        assert_eq!(status, StatusCode::INTERNAL_SERVER_ERROR);
        assert!(why.contains("nothing is pinned in"), "{why}");
    }

    #[tokio::test]
    async fn nothing_else_is_there() {
        let dir = tempfile::tempdir().expect("a directory");
        let source = Source::new(dir.path(), dir.path(), Health::default());
        assert_eq!(ask(&source, Method::GET, "/x").await.0, StatusCode::NOT_FOUND);
        assert_eq!(
            ask(&source, Method::POST, "/metrics").await.0,
            StatusCode::METHOD_NOT_ALLOWED
        );
        assert_eq!(ask(&source, Method::HEAD, "/").await.0, StatusCode::OK);
    }
}
