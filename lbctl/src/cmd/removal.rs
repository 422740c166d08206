//! `lbctl … rm`: which objects go, and what became of each.

use clap::Args;
use lbagent_api::Selector;
use lbagent_api::envelope::Reference;
use lbagent_api::request::SelectorSpec;
use serde::Serialize;
use ureq::http::Method;

use super::{Kind, advise_names, listing};
use crate::client::{Client, Outcomes, split};
use crate::error::CtlError;
use crate::output::{Format, print};
use crate::paging::Listed;

/// Which objects go.
#[derive(Clone, Debug, Args)]
#[group(skip)]
pub struct Chosen {
    /// Names or UUIDs
    #[arg(required_unless_present_any = ["all", "filters"], value_name = "NAME|UUID")]
    names: Vec<String>,
    /// All of them
    #[arg(short, long, conflicts_with = "names")]
    all: bool,
    /// All with these members, as `ls --filter` lists them
    #[arg(long = "filter", value_name = "EXPR", conflicts_with_all = ["names", "all"])]
    filters: Vec<String>,
}

impl Chosen {
    /// The names that were given, else the UUIDs of what fits; `members` are those that an object may
    /// have.
    pub fn words<T: Listed + Serialize>(
        &self,
        list: impl FnOnce() -> Result<Vec<T>, CtlError>,
        members: &[&str],
    ) -> Result<Vec<String>, CtlError> {
        if !self.names.is_empty() {
            return Ok(self.names.clone());
        }
        let listing = listing::Arguments::filtered(&self.filters)?;
        let objects = listing.select(list()?, members)?;
        Ok(objects.iter().map(Listed::uuid).collect())
    }
}

/// Deletes these objects in one request. Each that is not deleted is a line on stderr, with what
/// `advice` adds.
pub fn remove(
    kind: Kind,
    words: &[String],
    client: &Client,
    format: Format,
    advice: impl FnOnce(CtlError) -> CtlError,
) -> Result<(), CtlError> {
    if words.is_empty() {
        return Ok(());
    }
    let selectors: Vec<SelectorSpec> = words
        .iter()
        .map(|word| (&Selector::from_word(word)).into())
        .collect();
    let answer: Outcomes<Reference> = client.send(Method::DELETE, kind.path(), &selectors)?;
    let (done, failed) = split(answer.into_values().flatten().collect());
    print(format, &done, || {
        let line = |object: &Reference| format!("{} removed", object.name);
        done.iter().map(line).collect::<Vec<_>>().join("\n")
    })?;
    if failed.is_empty() {
        return Ok(());
    }
    let error = advice(CtlError::Items(failed));
    Err(advise_names(error, client, kind))
}
