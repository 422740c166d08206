//! Requests that create several objects: some may break a rule, some may fail when they are written.

use lbagent_api::envelope::Item;
use lbagent_api::{ContractError, ItemError};

use super::error::{self, ApiError};

/// What a request asks for, checked, before anything is written.
pub(super) struct Batch<N> {
    /// What breaks no rule, in the order of the request.
    pub(super) valid: Vec<N>,
    pub(super) refused: Refused,
}

/// For each object of a request in its order: why it was refused, or nothing if it was valid.
pub(super) struct Refused(Vec<Option<ItemError>>);

impl<N> Batch<N> {
    /// Checks all of them. What breaks a rule refuses the request as a whole, but for what the
    /// contract counts as the object's own failure.
    pub(super) fn check<S>(
        specs: &[S],
        name: impl Fn(&S) -> Option<&str>,
        check: impl Fn(&S) -> Result<N, ContractError>,
    ) -> Result<Self, ApiError> {
        let mut valid = Vec::with_capacity(specs.len());
        let mut refused = Vec::with_capacity(specs.len());
        for spec in specs {
            refused.push(match check(spec) {
                Ok(new) => {
                    valid.push(new);
                    None
                }
                Err(error) => Some(error::refused(name(spec), error)?),
            });
        }
        Ok(Self {
            valid,
            refused: Refused(refused),
        })
    }
}

impl Refused {
    /// One item for each object: the refusal, or what became of the valid one. `failed` gets the
    /// place in the request.
    pub(super) fn merge<O, E, T>(
        self,
        outcomes: Vec<Result<O, E>>,
        done: impl Fn(O) -> T,
        failed: impl Fn(usize, &E) -> ItemError,
    ) -> Vec<Item<T>> {
        let mut outcomes = outcomes.into_iter();
        let item = |(place, refused): (usize, Option<ItemError>)| match refused {
            Some(error) => Item::Failed(error),
            None => match outcomes.next() {
                Some(Ok(object)) => Item::Done(done(object)),
                Some(Err(error)) => Item::Failed(failed(place, &error)),
                None => unreachable!("every valid object has an outcome"),
            },
        };
        self.0.into_iter().enumerate().map(item).collect()
    }
}
