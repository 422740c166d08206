//! Listings, page by page.

use lbagent_api::Item;
use lbagent_api::certificate::Certificate;
use lbagent_api::envelope::Reference;
use lbagent_api::instance::Instance;
use lbagent_api::service_group::ServiceGroup;
use serde::de::DeserializeOwned;

use crate::client::{Client, all};
use crate::error::CtlError;

/// Objects of a listing that are asked for at once.
const PAGE: usize = 1000;

/// An object of a listing.
pub trait Listed: DeserializeOwned {
    /// Its identity, which is where a page can begin.
    fn uuid(&self) -> String;
}

macro_rules! listed {
    ($($object:ty),*) => {$(
        impl Listed for $object {
            fn uuid(&self) -> String {
                self.uuid.to_string()
            }
        }
    )*};
}

listed!(Reference, ServiceGroup, Instance, Certificate);

impl Client {
    /// All objects of a listing, page by page; `items` takes a page's items out of its data.
    pub fn list<D: DeserializeOwned, T: Listed>(
        &self,
        path: &str,
        items: impl Fn(D) -> Vec<Item<T>>,
    ) -> Result<Vec<T>, CtlError> {
        let mut objects: Vec<T> = Vec::new();
        loop {
            // A page begins with the object that it is asked from: the last one that is known.
            let from = objects
                .last()
                .map(|last| format!("&from={}", last.uuid()))
                .unwrap_or_default();
            let page = all(items(self.get(&format!("{path}?count={PAGE}{from}"))?))?;
            let is_last = page.len() < PAGE;
            let known = objects.last().map(Listed::uuid);
            objects.extend(
                page.into_iter()
                    .filter(|object| Some(object.uuid()) != known),
            );
            if is_last {
                return Ok(objects);
            }
        }
    }
}
