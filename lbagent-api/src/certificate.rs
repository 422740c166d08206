//! Certificates: chain and private key by which TLS is ended, and what answers tell of them. Private
//! keys only come in: no answer holds one.

use std::fmt;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use time::{Duration, OffsetDateTime};
use uuid::Uuid;
use zeroize::Zeroizing;

use crate::envelope::{Item, Reference};
use crate::error_code::ErrorCode;
use crate::request::{ContractError, Selector, SelectorSpec, qualify_domain, validate_name};

/// Longest chain and longest key, in bytes of PEM.
pub const MAX_PEM: usize = 64 << 10;

/// Text that nobody may see: it has no `Serialize`, its `Debug` says nothing, and its memory is
/// overwritten when it is dropped.
#[derive(Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Secret(#[serde(deserialize_with = "zeroizing")] Zeroizing<String>);

fn zeroizing<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Zeroizing<String>, D::Error> {
    String::deserialize(deserializer).map(Zeroizing::new)
}

impl Secret {
    /// Takes a text over.
    pub fn new(text: String) -> Self {
        Self(Zeroizing::new(text))
    }

    /// The text.
    pub fn reveal(&self) -> &str {
        &self.0
    }

    /// For the places that mean to write it down, as `serialize_with`.
    pub fn serialize_revealed<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.reveal())
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// `POST /v1/certificates`: one of these, or an array.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct CertificateSpec {
    /// Unique name; made from the common name when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The fully-qualified domain name that the certificate is for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub common_name: Option<String>,
    /// Older form of `common_name`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cn: Option<String>,
    /// Certificates in PEM: that of the server first, then each one's issuer.
    pub chain: String,
    /// Private key in PEM.
    #[serde(serialize_with = "Secret::serialize_revealed")]
    pub pkey: Secret,
}

impl CertificateSpec {
    /// Checks the name, and returns the domain name in lower case without a trailing dot.
    pub fn validate(&self) -> Result<String, ContractError> {
        if let Some(name) = &self.name {
            validate_name(name)?;
        }
        let domain = match (&self.common_name, &self.cn) {
            (Some(_), Some(_)) => {
                return Err(ContractError::new(
                    ErrorCode::NotBoth,
                    "Members 'common_name' and 'cn' exclude each other",
                ));
            }
            (None, None) => return Err(ContractError::invalid("Missing member 'common_name'")),
            (Some(domain), None) | (None, Some(domain)) => domain,
        };
        check_pem(&self.chain, &self.pkey)?;
        qualify_domain(&format!("{}.", domain.trim_end_matches('.')), "")
    }
}

/// `PUT /v1/certificates`: one of these, or an array; on `/v1/certificates/{uuid}` without selector.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct RotationSpec {
    /// By identity.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<uuid::Uuid>))]
    pub uuid: Option<String>,
    /// By name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// As in [`CertificateSpec::chain`].
    pub chain: String,
    /// Private key in PEM.
    #[serde(serialize_with = "Secret::serialize_revealed")]
    pub pkey: Secret,
}

impl RotationSpec {
    /// The certificate named, if any.
    pub fn selector(&self) -> Result<Option<Selector>, ContractError> {
        check_pem(&self.chain, &self.pkey)?;
        let (uuid, name) = (self.uuid.clone(), self.name.clone());
        SelectorSpec { uuid, name }.selector()
    }
}

fn check_pem(chain: &str, pkey: &Secret) -> Result<(), ContractError> {
    for (member, text) in [("chain", chain), ("pkey", pkey.reveal())] {
        if text.len() > MAX_PEM {
            return Err(ContractError::new(
                ErrorCode::TooLong,
                format!("Value of '{member}' is longer than {MAX_PEM} bytes"),
            ));
        }
    }
    Ok(())
}

/// A certificate in an answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Certificate {
    /// Identity.
    pub uuid: Uuid,
    /// Unique name.
    pub name: String,
    /// When it was created.
    #[serde(with = "time::serde::rfc3339")]
    pub created_at: OffsetDateTime,
    /// The domain name that it is for.
    pub common_name: String,
    /// Distinguished name of its owner.
    pub subject: String,
    /// Distinguished name of whoever signed it.
    pub issuer: String,
    /// In hexadecimal, bytes separated by colons.
    pub serial_number: String,
    /// Valid from.
    #[serde(with = "time::serde::rfc3339")]
    pub not_before: OffsetDateTime,
    /// Valid until.
    #[serde(with = "time::serde::rfc3339")]
    pub not_after: OffsetDateTime,
    /// Whether it can be used.
    pub state: CertificateState,
    /// Service groups that use it.
    #[serde(default)]
    pub service_groups: Vec<Reference>,
}

/// Whether a certificate can be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum CertificateState {
    /// It is not issued yet.
    Pending,
    /// It can be used.
    Valid,
    /// It has expired, or is not valid yet.
    Error,
}

/// That a certificate is about to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ExpiryAlarm {
    /// In less than [`Self::SOON`]: time to renew it.
    Soon,
    /// In less than [`Self::VERY_SOON`]: whoever renews it has failed to.
    VerySoon,
    /// It has ended: clients refuse it.
    Over,
}

impl ExpiryAlarm {
    /// Certificates for 90 days are renewed with as much left.
    pub const SOON: Duration = Duration::days(30);
    /// A week.
    pub const VERY_SOON: Duration = Duration::days(7);

    /// Whether there is cause for alarm.
    pub fn of(not_after: OffsetDateTime, now: OffsetDateTime) -> Option<Self> {
        match not_after - now {
            left if left <= Duration::ZERO => Some(Self::Over),
            left if left < Self::VERY_SOON => Some(Self::VerySoon),
            left if left < Self::SOON => Some(Self::Soon),
            _ => None,
        }
    }
}

impl CertificateState {
    /// The contract's word.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Valid => "valid",
            Self::Error => "error",
        }
    }
}

/// `data` of answers about certificates.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(bound(deserialize = "T: DeserializeOwned"))]
pub struct Certificates<T> {
    /// One item for each object asked about.
    pub certificates: Vec<Item<T>>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request::parse_body;

    const BODY: &str = r#"{"cn":"WWW.Example.com.","chain":"C","pkey":"hush"}"#;

    #[test]
    fn a_key_is_not_shown() {
        let spec: CertificateSpec = parse_body(BODY.as_bytes()).unwrap();
        assert_eq!(spec.validate().unwrap(), "www.example.com");
        assert_eq!(spec.pkey.reveal(), "hush");
        assert!(!format!("{spec:?}").contains("hush"));
    }

    #[track_caller]
    fn check(body: &str, message: &str) {
        let refused =
            parse_body::<CertificateSpec>(body.as_bytes()).and_then(|spec| spec.validate());
        assert_eq!(refused.unwrap_err().message, message);
    }

    #[test]
    fn bad_requests() {
        check(
            r#"{"cn":"a.b","common_name":"a.b","chain":"","pkey":""}"#,
            "Members 'common_name' and 'cn' exclude each other",
        );
        check(r#"{"chain":"","pkey":""}"#, "Missing member 'common_name'");
        check(r#"{"cn":"a.b","pkey":""}"#, "Missing member 'chain'");
        check(r#"{"cn":"a.b","chain":""}"#, "Missing member 'pkey'");
        check(
            r#"{"cn":"a b.c","chain":"","pkey":""}"#,
            "Invalid DNS name 'a b.c.'",
        );
        check(
            r#"{"cn":"a.b","key":"","chain":"","pkey":""}"#,
            "Unknown member 'key'",
        );
        let long = format!(
            r#"{{"cn":"a.b","chain":"{}","pkey":""}}"#,
            "x".repeat(MAX_PEM + 1)
        );
        check(&long, "Value of 'chain' is longer than 65536 bytes");
        // serde would quote the value that has the wrong type.
        let wrong = parse_body::<CertificateSpec>(br#"{"cn":"a.b","chain":"","pkey":["hush"]}"#);
        assert!(!wrong.unwrap_err().message.contains("hush"));
    }
}
