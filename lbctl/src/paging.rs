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
            // The page of an object that is gone meanwhile is empty, not the end: the one before it
            // tells where to go on.
            if page.is_empty() && objects.pop().is_some() {
                continue;
            }
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

#[cfg(test)]
mod tests {
    use lbagent_api::envelope::ServiceGroups;
    use serde_json::json;
    use uuid::Uuid;

    use super::*;
    use crate::stub;

    const LAST: usize = PAGE - 1;

    fn uuid(number: usize) -> String {
        Uuid::from_u128(number as u128).to_string()
    }

    /// Lists objects that come in these pages, by their numbers; each but the first is asked for from
    /// an object.
    #[track_caller]
    fn check(pages: &[&[usize]], froms: &[usize], expected: &[usize]) {
        let object =
            |number: &usize| json!({"status": "success", "uuid": uuid(*number), "name": "x"});
        let answer = |page: &&[usize]| {
            let groups: Vec<_> = page.iter().map(object).collect();
            let body = json!({"status": "success", "data": {"service_groups": groups}});
            ("200 OK", body.to_string())
        };
        let (endpoint, server) = stub::start(pages.iter().map(answer).collect());
        let client = Client::new(endpoint, None);
        let found = client.list("/v1/services", |data: ServiceGroups<Reference>| {
            data.service_groups
        });
        let found: Vec<String> = found.unwrap().iter().map(Listed::uuid).collect();
        let expected: Vec<String> = expected.iter().copied().map(uuid).collect();
        assert_eq!(found, expected);
        let asked: Vec<String> = server.join().unwrap().into_iter().map(|it| it.0).collect();
        let first = "GET /v1/services?count=1000".to_owned();
        let next = froms
            .iter()
            .map(|from| format!("{first}&from={}", uuid(*from)));
        let lines: Vec<String> = [first.clone()].into_iter().chain(next).collect();
        assert_eq!(asked.len(), lines.len());
        for (head, line) in asked.iter().zip(lines) {
            assert!(head.starts_with(&format!("{line} HTTP/")), "{head}");
        }
    }

    #[test]
    fn pages_follow_each_other() {
        let full: Vec<usize> = (0..PAGE).collect();
        let more: Vec<usize> = (0..=PAGE).collect();
        check(&[&[]], &[], &[]);
        check(&[&[0, 1]], &[], &[0, 1]);
        check(&[&full, &[LAST, PAGE]], &[LAST], &more);
        check(&[&full, &[LAST]], &[LAST], &full);
    }

    #[test]
    fn an_object_that_goes_between_two_pages_does_not_end_them() {
        let full: Vec<usize> = (0..PAGE).collect();
        let left = [&full[..LAST - 1], &[PAGE]].concat();
        check(
            &[&full, &[], &[], &[LAST - 2, PAGE]],
            &[LAST, LAST - 1, LAST - 2],
            &left,
        );
    }
}
