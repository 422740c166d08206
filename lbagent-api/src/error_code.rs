//! Numeric `error` codes of failed items.

use serde::{Deserialize, Serialize};

macro_rules! codes {
    ($( #[doc = $text:literal] $name:ident = $value:literal; )+) => {
        /// Why an item failed; travels as a number.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
        #[serde(into = "u16", from = "u16")]
        #[repr(u16)]
        pub enum ErrorCode { $( #[doc = $text] $name = $value, )+ }

        impl ErrorCode {
            /// All codes, ordered by number.
            pub const ALL: &'static [Self] = &[ $( Self::$name, )+ ];

            /// What the code means.
            pub fn meaning(self) -> &'static str {
                match self { $( Self::$name => $text.trim_ascii(), )+ }
            }
        }

        impl From<u16> for ErrorCode {
            /// A number that this version does not know is [`ErrorCode::Unknown`]: a newer agent
            /// must not break an older client.
            fn from(value: u16) -> Self {
                match value { $( $value => Self::$name, )+ _ => Self::Unknown }
            }
        }
    };
}

codes! {
    /// None of the others.
    Unknown = 0;
    /// The agent cannot do this.
    NotSupported = 1;
    /// The path exists, not with this method.
    WrongMethod = 2;
    /// No such path.
    NoApiEndpoint = 3;
    /// Some operations failed.
    FailNotAll = 4;
    /// Too many objects in one request.
    TooMany = 5;
    /// A JSON member that the contract does not have.
    UnknownMember = 6;
    /// A value that breaks a rule.
    Invalid = 7;
    /// No object with this name or UUID.
    NotFound = 8;
    /// Nothing of what was asked for is free.
    NoFree = 9;
    /// The operation was tried and failed.
    FailedOperation = 10;
    /// The instance's state does not allow this.
    FailedWrongVmState = 11;
    /// It took too long.
    TimedOut = 12;
    /// Neither a name nor a UUID was given.
    MissingId = 13;
    /// The account may not do this.
    NotAllowed = 14;
    /// The object is in use by others.
    Attached = 15;
    /// The body is not what the endpoint takes.
    MalformedRequest = 16;
    /// Two members that exclude each other.
    NotBoth = 17;
    /// A service could not be added.
    AddService = 18;
    /// The quota is used up.
    Quota = 19;
    /// Too little memory for the guest.
    GuestMemoryTooSmall = 20;
    /// The object is not attached.
    NotAttached = 21;
    /// A value is too long.
    TooLong = 22;
    /// Name, domain or port is taken.
    AlreadyExists = 23;
    /// The object cannot be used for this.
    CannotBeUsed = 24;
    /// The instance belongs to autoscaling.
    AutoscaleInstance = 25;
    /// Autoscaling is configured.
    AutoscaleConfigured = 26;
    /// Autoscaling is not configured.
    AutoscaleNotConfigured = 27;
    /// Autoscaling is switched off.
    AutoscaleDisabled = 28;
    /// The size of the autoscaling group is out of range.
    AutoscaleSizeOutOfRange = 29;
    /// The certificate is for another name.
    CertificateNameMismatch = 30;
}

impl From<ErrorCode> for u16 {
    fn from(code: ErrorCode) -> Self {
        code as Self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_their_position() {
        assert_eq!(ErrorCode::ALL.len(), 31);
        for (position, &code) in ErrorCode::ALL.iter().enumerate() {
            assert_eq!(usize::from(u16::from(code)), position);
            assert_eq!(ErrorCode::from(u16::from(code)), code);
        }
    }

    #[test]
    fn a_code_travels_as_a_number() {
        assert_eq!(serde_json::to_string(&ErrorCode::NotFound).unwrap(), "8");
        assert_eq!(
            serde_json::from_str::<ErrorCode>("23").unwrap(),
            ErrorCode::AlreadyExists
        );
        assert_eq!(
            serde_json::from_str::<ErrorCode>("999").unwrap(),
            ErrorCode::Unknown
        );
    }
}
