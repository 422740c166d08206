//! The way from what the agent has to what is asked for, by the contract's calls.
//!
//! What goes is deleted first, so that its ports and addresses are free. What the agent refuses
//! because another object still has it is tried again as long as others get done.

use lbagent_api::ErrorCode;

use super::calls::{create, delete, make};
use super::{Action, Change};
use crate::client::Client;
use crate::cmd::Kind;
use crate::error::CtlError;

/// A change and how it went.
pub type Done<'a> = (&'a Change, Result<(), CtlError>);

/// Makes all changes; one that fails keeps no other from being made.
pub fn execute<'a>(changes: &'a [Change], client: &Client) -> Vec<Done<'a>> {
    let mut done: Vec<Done<'a>> = Vec::new();
    let of = |kind: Kind, actions: &[Action]| -> Vec<&'a Change> {
        let wanted = |change: &&'a Change| {
            let manifest = change.manifest();
            manifest.is_some_and(|manifest| manifest.kind() == kind)
                && actions.contains(&change.action())
        };
        changes.iter().filter(wanted).collect()
    };
    let to_do = [Action::Changed, Action::Created];
    let pruned = |kind| of(kind, &[Action::Pruned]);
    phase(pruned(Kind::Instance), delete, client, &mut done);
    // All that are replaced go before the first one comes: they may trade addresses.
    let mut gone = Vec::new();
    for kind in [Kind::Instance, Kind::Certificate] {
        for change in of(kind, &[Action::Replaced]) {
            match delete(change, client) {
                Ok(()) => gone.push(change),
                Err(error) => done.push((change, Err(error))),
            }
        }
    }
    phase(pruned(Kind::ServiceGroup), delete, client, &mut done);
    // Domains find their certificates from the first moment on.
    phase(of(Kind::Certificate, &to_do), make, client, &mut done);
    phase(of(Kind::ServiceGroup, &to_do), make, client, &mut done);
    phase(gone, create, client, &mut done);
    phase(of(Kind::Instance, &to_do), make, client, &mut done);
    phase(pruned(Kind::Certificate), delete, client, &mut done);
    for kind in Kind::ALL {
        let same = of(kind, &[Action::Unchanged]);
        done.extend(same.into_iter().map(|change| (change, Ok(()))));
    }
    done
}

/// One way to make a change.
type Make = fn(&Change, &Client) -> Result<(), CtlError>;

fn phase<'a>(mut waiting: Vec<&'a Change>, make: Make, client: &Client, done: &mut Vec<Done<'a>>) {
    loop {
        let before = waiting.len();
        let mut blocked = Vec::new();
        for change in waiting {
            match make(change, client) {
                Err(error) if is_taken(&error) => blocked.push((change, error)),
                result => done.push((change, result)),
            }
        }
        if blocked.is_empty() || blocked.len() == before {
            done.extend(
                blocked
                    .into_iter()
                    .map(|(change, error)| (change, Err(error))),
            );
            return;
        }
        waiting = blocked.into_iter().map(|(change, _)| change).collect();
    }
}

/// Whether another object has what this one wants.
fn is_taken(error: &CtlError) -> bool {
    match error {
        CtlError::Items(items) => items
            .iter()
            .any(|item| matches!(item.error, ErrorCode::AlreadyExists | ErrorCode::NoFree)),
        CtlError::Refused { status, .. } => *status == 409,
        _ => false,
    }
}
