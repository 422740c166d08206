//! Who asks for something, and for which account.

use lbagent_api::access::Role;
use uuid::Uuid;

/// The account that exists without being created. Objects stored before there were accounts are
/// its own.
pub const DEFAULT_ACCOUNT: Uuid = Uuid::nil();

/// Every operation and every listing is one caller's: it sees and changes objects of its account
/// only, and cannot tell one of another account from one that does not exist.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Caller {
    /// Whose objects the request is about.
    pub account: Uuid,
    /// What the caller may do.
    pub role: Role,
}

impl Caller {
    /// An operator, acting for an account.
    pub const fn operator(account: Uuid) -> Self {
        Self {
            account,
            role: Role::Operator,
        }
    }
}
