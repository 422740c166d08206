//! What an export is to hold.

use crate::error_code::ErrorCode;
use crate::request::ContractError;

/// What a client of `GET /v1/x/state` asks for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ExportQuery {
    /// Whether certificates come with their private keys (`private_keys=true`).
    pub private_keys: bool,
}

impl ExportQuery {
    /// Reads the pairs of a query string, already percent-decoded.
    pub fn parse<'a>(
        pairs: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> Result<Self, ContractError> {
        let mut query = Self::default();
        for (key, value) in pairs {
            query.private_keys = match (key, value) {
                ("private_keys", "true") => true,
                ("private_keys", "false") => false,
                ("private_keys", _) => {
                    return Err(ContractError::invalid(format!(
                        "Invalid value '{value}' of 'private_keys': expected true or false"
                    )));
                }
                _ => {
                    return Err(ContractError::new(
                        ErrorCode::UnknownMember,
                        format!("Unknown query parameter '{key}'"),
                    ));
                }
            };
        }
        Ok(query)
    }
}
