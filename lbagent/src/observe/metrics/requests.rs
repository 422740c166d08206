//! How long requests to the API take.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use lbagent_api::terminator::Durations;

use super::Family;

/// What requests are told apart by: their method, the path as the API describes it, and the class of the
/// answer's status. Who asks chooses none of these words.
type Sort = (&'static str, String, &'static str);

/// How long requests took until the head of their answer. Of a stream that is its beginning; a request that
/// waits for instances waits as long as it was told to.
#[derive(Debug, Default)]
pub struct RequestTimes(Mutex<BTreeMap<Sort, Durations>>);

impl RequestTimes {
    /// One more request was answered. `route` is a path of the API's description.
    pub fn add(&self, method: &str, route: &str, status: u16, took: Duration) {
        const METHODS: [&str; 6] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"];
        const CLASSES: [&str; 6] = ["other", "1xx", "2xx", "3xx", "4xx", "5xx"];
        let known = METHODS.into_iter().find(|known| *known == method);
        let class = CLASSES
            .get(usize::from(status / 100))
            .unwrap_or(&CLASSES[0]);
        let sort = (known.unwrap_or("other"), route.to_owned(), *class);
        // No number is half-written when anything panics.
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.entry(sort).or_default().add(took);
    }

    pub(super) fn family(&self) -> Family {
        let help = "From the head of a request to the API to that of its answer";
        let mut family = Family::histogram("api_request_duration_seconds", help);
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for ((method, route, class), durations) in &*all {
            let labels = [("method", *method), ("path", route), ("class", *class)];
            family.add_durations(labels, durations);
        }
        family
    }
}
