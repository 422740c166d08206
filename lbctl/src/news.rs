//! What the agent tells without being asked: its stream of events.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;

use lbagent_api::events::ChangeType;
use lbagent_api::paths;

use crate::client::Client;
use crate::error::CtlError;

/// One thing that the stream tells.
#[derive(Debug)]
pub enum News {
    /// Objects may be other than before: the stream has begun, something changed, or the agent does
    /// not know any more what did.
    Change,
    /// The agent is there.
    Heartbeat,
    /// The stream is over.
    End(CtlError),
}

/// Opens a stream of its own. It ends with a [`News::End`], or when nobody receives any more.
pub fn listen(client: &Client) -> Receiver<News> {
    let (sender, receiver) = channel();
    let client = client.clone();
    // A thread, because reading can wait for ever; it ends with the process if not before.
    thread::spawn(move || {
        if let Err(error) = tell(&client, &sender) {
            // Nobody is left to be told.
            let _ = sender.send(News::End(error));
        }
    });
    receiver
}

fn tell(client: &Client, sender: &Sender<News>) -> Result<(), CtlError> {
    let lines = client.stream(paths::EVENTS)?;
    let is_heard = |news| sender.send(news).is_ok();
    if !is_heard(News::Change) {
        return Ok(());
    }
    for line in lines {
        if !meaning(&line?).is_none_or(is_heard) {
            break;
        }
    }
    Ok(())
}

/// What a line of server-sent events tells: its name is enough. `applied` is no change of objects.
fn meaning(line: &str) -> Option<News> {
    if line.starts_with(':') {
        return Some(News::Heartbeat);
    }
    let name = line.strip_prefix("event:")?.trim();
    let changes = [
        ChangeType::Created,
        ChangeType::Changed,
        ChangeType::Deleted,
    ];
    let is_change = changes.iter().any(|change| change.name() == name) || name == "gap";
    is_change.then_some(News::Change)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stub;

    #[test]
    fn a_stream_is_understood() {
        let text = ": heartbeat\n\nevent: applied\ndata: {}\n\nevent: gap\ndata: {}\nid: 7\n\n\
                    event: deleted\ndata: {\"type\": \"deleted\"}\n\n";
        let (endpoint, server) = stub::start(vec![("200 OK", text.to_owned())]);
        let told: Vec<String> = listen(&Client::new(endpoint.clone(), None))
            .iter()
            .map(|news| match news {
                News::End(error) => error.to_string(),
                news => format!("{news:?}"),
            })
            .collect();
        let (end, told) = told.split_last().unwrap();
        assert_eq!(told, ["Change", "Heartbeat", "Change", "Change"]);
        assert!(end.contains("the agent ended the stream"), "{end}");
        let (head, _) = server.join().unwrap().remove(0);
        assert!(head.starts_with("GET /v1/x/events HTTP"), "{head}");
    }
}
