//! Bytes that come from the agent.

use lbagent_api::terminator::link::Link;
use lbagent_api::terminator::{FromAgent, FromTerminator, Snapshot};

use super::{block_on, sent};
use crate::route::Routes;

/// Bytes from the agent: as many messages as there are whole frames of JSON.
pub fn link(input: &[u8]) {
    let mut frames = 0;
    let mut rest = input;
    while let Some((length, body)) = rest.split_first_chunk::<4>() {
        let Some((body, after)) = body.split_at_checked(u32::from_be_bytes(*length) as usize)
        else {
            break;
        };
        if serde_json::from_slice::<FromAgent>(body).is_err() {
            break;
        }
        (frames, rest) = (frames + 1, after);
    }
    let received = block_on(async {
        let stream = tokio::net::UnixStream::from_std(sent(input)).expect("a stream");
        let mut link = Link::<FromTerminator, FromAgent>::from(stream);
        let mut received = 0;
        while link.receive().await.is_ok() {
            received += 1;
        }
        received
    });
    assert_eq!(received, frames);
}

/// What the agent says, as JSON. A snapshot compiles or has faults, and compiles to the same again.
pub fn snapshot(input: &[u8]) {
    let snapshot = match serde_json::from_slice::<FromAgent>(input) {
        Ok(FromAgent::Snapshot(snapshot)) => *snapshot,
        Ok(_) => return,
        Err(_) => match serde_json::from_slice::<Snapshot>(input) {
            Ok(snapshot) => snapshot,
            Err(_) => return,
        },
    };
    match Routes::compile(&snapshot, &Routes::default()) {
        Ok(routes) => {
            let again = Routes::compile(&snapshot, &routes).expect("it was right before");
            assert_eq!(again.groups().count(), snapshot.groups.len());
        }
        Err(faults) => assert!(faults.iter().all(|fault| !fault.reason.is_empty())),
    }
}
