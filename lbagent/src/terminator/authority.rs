//! A development gateway's own certificate authority, and the wildcard certificate that it signs for the
//! metro domain. Nobody trusts it unless they are told to.

use std::sync::Arc;
use std::time::Duration;

use lbagent_api::Selector;
use lbagent_api::certificate::Secret;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose,
};
use time::OffsetDateTime;
use tracing::{info, warn};

use crate::desired::certificate::{NewCertificate, Rotation};
use crate::desired::{Caller, DEFAULT_ACCOUNT, Desired, StoredAuthority};

/// Name of the certificate in the default account.
pub(super) const NAME: &str = "lbagent-development";
/// The authority lasts longer than any gateway in development.
const AUTHORITY_LIFE: time::Duration = time::Duration::days(3_650);
/// Some clients refuse certificates that are valid for more than 398 days.
const LIFE: time::Duration = time::Duration::days(90);
/// A certificate is renewed when it has less than this left: before that is a condition.
const RENEWAL: time::Duration = time::Duration::days(31);
/// Clocks differ.
const SLACK: time::Duration = time::Duration::hours(1);
/// How often the certificate is looked at.
const ROUND: Duration = Duration::from_secs(3_600);

/// Keeps the certificate in place until the agent stops.
pub(super) async fn keep(desired: Arc<Desired>, metro_domain: String) {
    loop {
        let (desired, domain) = (Arc::clone(&desired), metro_domain.clone());
        let work = move || ensure(&desired, &domain, OffsetDateTime::now_utc());
        match tokio::task::spawn_blocking(work).await {
            Ok(Ok(true)) => info!(
                "signed *.{metro_domain} by the development authority; `lbctl terminator ca` shows \
                 whom to trust"
            ),
            Ok(Ok(false)) => {}
            Ok(Err(error)) => warn!(error = format!("{error:#}"), "no development certificate"),
            Err(error) => warn!(%error, "no development certificate"),
        }
        tokio::time::sleep(ROUND).await;
    }
}

/// Makes authority and certificate if they are missing or about to end. Whether a certificate was
/// signed.
pub(super) fn ensure(
    desired: &Desired,
    metro_domain: &str,
    now: OffsetDateTime,
) -> anyhow::Result<bool> {
    let caller = Caller::operator(DEFAULT_ACCOUNT);
    let selector = Selector::Name(NAME.to_owned());
    let name = format!("*.{metro_domain}");
    let state = desired.current();
    let present = state.certificate(caller, &selector);
    if present.is_some_and(|it| it.not_after - now > RENEWAL && it.names.contains(&name)) {
        return Ok(false);
    }
    let authority = match desired.authority() {
        Some(authority) => authority,
        None => desired.ensure_authority(&make_authority(now)?)?.outcome,
    };
    let (chain, key) = sign(&authority, metro_domain, now)?;
    let is_for_it = present.is_some_and(|present| present.common_name == name);
    if is_for_it {
        let rotation = Rotation::read(selector, &chain, key)?;
        let written = desired.rotate_certificates(caller, &[rotation])?;
        written.outcome.into_iter().collect::<Result<Vec<_>, _>>()?;
        return Ok(true);
    }
    if present.is_some() {
        let written = desired.delete_certificates(caller, &[selector])?;
        written.outcome.into_iter().collect::<Result<Vec<_>, _>>()?;
    }
    let new = NewCertificate::read(Some(NAME.to_owned()), name, &chain, key)?;
    let written = desired.create_certificates(caller, &[new], now)?;
    written.outcome.into_iter().collect::<Result<Vec<_>, _>>()?;
    Ok(true)
}

fn make_authority(now: OffsetDateTime) -> anyhow::Result<StoredAuthority> {
    let key = KeyPair::generate()?;
    let mut params = authority_params();
    params.not_before = now - SLACK;
    params.not_after = now + AUTHORITY_LIFE;
    Ok(StoredAuthority {
        certificate: params.self_signed(&key)?.pem(),
        key: Secret::new(key.serialize_pem()),
    })
}

/// What its certificate says that does not depend on when it was made: the signer of others.
fn authority_params() -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = common_name("lbagent development authority");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

/// A chain and its key for everything below a domain.
fn sign(
    authority: &StoredAuthority,
    metro_domain: &str,
    now: OffsetDateTime,
) -> anyhow::Result<(String, Secret)> {
    let issuer = Issuer::new(
        authority_params(),
        KeyPair::from_pem(authority.key.reveal())?,
    );
    let name = format!("*.{metro_domain}");
    let mut params = CertificateParams::new([name.clone(), metro_domain.to_owned()])?;
    params.distinguished_name = common_name(&name);
    params.not_before = now - SLACK;
    params.not_after = now + LIFE;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.use_authority_key_identifier_extension = true;
    let key = KeyPair::generate()?;
    let signed = params.signed_by(&key, &issuer)?;
    let chain = format!("{}{}", signed.pem(), authority.certificate);
    Ok((chain, Secret::new(key.serialize_pem())))
}

fn common_name(name: &str) -> DistinguishedName {
    let mut distinguished = DistinguishedName::new();
    distinguished.push(DnType::CommonName, name);
    distinguished
}
