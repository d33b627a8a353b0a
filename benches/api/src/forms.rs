//! What a list of all Nodes costs, by its form. Bytes are those of the bodies.

use http_body_util::BodyExt;
use hyper::header::{ACCEPT, ACCEPT_ENCODING};
use hyper::http::Request;
use kube::Client;

use crate::Failure;
use crate::control_plane::ControlPlane;
use crate::report::Report;

/// Nodes in a page, as agents ask for them.
const PAGE: usize = 50;

/// How often each form is asked for. The kernel counts CPU in hundredths of a second.
const TIMES: u32 = 3;

const JSON: &str = "application/json";
const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";
const METADATA: &str = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1";

/// Ends a streamed list.
const END: &[u8] = b"k8s.io/initial-events-end";

/// Asks for all forms, in turns.
pub fn measure(server: &ControlPlane, nodes: u32, report: &mut Report) -> Result<(), Failure> {
    let places = server.run(async |client| places(&client).await)?;
    let mut rows = Vec::new();
    for (name, accept, encoding) in [
        ("pages, JSON", JSON, "identity"),
        ("pages, JSON, gzip", JSON, "gzip"),
        ("streamed, JSON", JSON, ""),
        ("pages, protobuf", PROTOBUF, "identity"),
        ("pages, protobuf, gzip", PROTOBUF, "gzip"),
        ("pages, metadata only", METADATA, "identity"),
        ("pages, metadata only, gzip", METADATA, "gzip"),
    ] {
        let before = server.spent()?;
        let bytes = server.run(async |client| {
            let mut bytes = 0;
            for _ in 0..TIMES {
                bytes = match encoding {
                    "" => streamed(&client).await?,
                    _ => paged(&client, &places, accept, encoding).await?,
                };
            }
            Ok(bytes)
        })?;
        rows.push((name, bytes, (server.spent()? - before).server / f64::from(TIMES)));
    }
    report.forms(&format!("list of {nodes} Nodes"), &rows);
    Ok(())
}

/// Where each page begins, as the server says it.
async fn places(client: &Client) -> Result<Vec<String>, Failure> {
    let mut places = vec![String::new()];
    while let Some(place) = places.last() {
        let request = Request::get(path(place)).header(ACCEPT, METADATA);
        let text = client.request_text(request.body(Vec::new())?).await?;
        let next = text.split_once("\"continue\":\"").and_then(|it| it.1.split_once('"'));
        match next {
            Some((next, _)) if !next.is_empty() => places.push(next.to_owned()),
            _ => break,
        }
    }
    Ok(places)
}

fn path(place: &str) -> String {
    let from = if place.is_empty() { String::new() } else { format!("&continue={place}") };
    format!("/api/v1/nodes?limit={PAGE}{from}")
}

async fn paged(client: &Client, places: &[String], accept: &str, encoding: &str) -> Result<usize, Failure> {
    let mut bytes = 0;
    for place in places {
        let request = Request::get(path(place)).header(ACCEPT, accept).header(ACCEPT_ENCODING, encoding);
        let answer = client.send(request.body(kube::client::Body::empty())?).await?;
        if !answer.status().is_success() {
            return Err(format!("{}: {}", path(place), answer.status()).into());
        }
        let mut body = answer.into_body();
        while let Some(frame) = body.frame().await {
            bytes += frame?.data_ref().map_or(0, |data| data.len());
        }
    }
    Ok(bytes)
}

async fn streamed(client: &Client) -> Result<usize, Failure> {
    let path = "/api/v1/nodes?watch=true&sendInitialEvents=true&resourceVersionMatch=NotOlderThan\
                &allowWatchBookmarks=true&timeoutSeconds=60";
    let answer = client.send(Request::get(path).body(kube::client::Body::empty())?).await?;
    if !answer.status().is_success() {
        return Err(format!("{path}: {}", answer.status()).into());
    }
    let (mut body, mut bytes, mut tail) = (answer.into_body(), 0, Vec::new());
    while let Some(frame) = body.frame().await {
        let frame = frame?;
        let Some(data) = frame.data_ref() else { continue };
        bytes += data.len();
        // The bookmark may come in two frames.
        tail.extend_from_slice(data);
        if tail.windows(END.len()).any(|it| it == END) {
            return Ok(bytes);
        }
        tail.drain(..tail.len().saturating_sub(END.len()));
    }
    Err("the streamed list has no end".into())
}
