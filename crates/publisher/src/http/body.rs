//! Reading the body of a request, within its bounds.

use std::time::Duration;

use axum::body::{Body, Bytes};
use carillon_service::problem::Problem;
use futures_util::StreamExt;

/// How long a body may take to arrive.
const LIMIT: Duration = Duration::from_secs(30);
/// What is read and thrown away of a body that is too large, so that its sender gets to the answer.
const DISCARDED: usize = 16 << 20;

/// Reads a whole body of at most `most` bytes.
pub(super) async fn read(body: Body, most: usize) -> Result<Bytes, Problem> {
    let read = tokio::time::timeout(LIMIT, collect(body, most)).await;
    read.unwrap_or_else(|_| Err(Problem::timeout("the body did not arrive in time")))
}

async fn collect(body: Body, most: usize) -> Result<Bytes, Problem> {
    let mut stream = body.into_data_stream();
    let mut whole = Vec::new();
    let mut size = 0usize;
    while let Some(chunk) = stream.next().await {
        let chunk = chunk.map_err(|_| Problem::bad_request("the body ended early"))?;
        size = size.saturating_add(chunk.len());
        if size > DISCARDED.max(most) {
            break;
        }
        if size <= most {
            whole.extend_from_slice(&chunk);
        } else {
            whole = Vec::new();
        }
    }
    if size > most {
        return Err(Problem::too_large(format!("the body has more than {most} bytes")));
    }
    Ok(whole.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_body_is_read_up_to_its_bound() {
        assert_eq!(read(Body::from("12345"), 5).await.unwrap(), "12345");
        let problem = read(Body::from("123456"), 5).await.unwrap_err();
        assert_eq!(problem.status().as_u16(), 413);
    }
}
