//! Session tickets, sealed with keys that the agent hands out: another process, and another gateway
//! with the same keys, opens them too.
//!
//! A ticket is the key's name (16 bytes), a random nonce (12 bytes), and the session sealed with
//! AES-256-GCM-SIV, whose key withstands a nonce that comes again. Name and key are derived from the
//! agent's secret by HKDF-SHA256.

use std::fmt;

use arc_swap::ArcSwap;
use aws_lc_rs::aead::{AES_256_GCM_SIV, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::hkdf::{HKDF_SHA256, KeyType, Prk, Salt};
use lbagent_api::terminator::TicketKey;
use rustls::server::ProducesTickets;

/// How long clients are told to keep a ticket, in seconds.
const LIFETIME_S: u32 = 12 * 60 * 60;

/// Bytes of a secret of the agent.
const SECRET_LEN: usize = 32;

/// Bytes of a key's name.
const NAME_LEN: usize = 16;

/// Seals sessions with the first key and opens those sealed with any of them.
#[derive(Default)]
pub struct Tickets {
    keys: ArcSwap<Vec<SealingKey>>,
}

impl fmt::Debug for Tickets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Tickets({} keys)", self.keys.load().len())
    }
}

impl Tickets {
    /// Other keys from now on, the newest first; without any, no tickets are made.
    pub fn replace(&self, keys: Vec<SealingKey>) {
        self.keys.store(keys.into());
    }
}

/// What is derived from one secret of the agent.
pub struct SealingKey {
    name: [u8; NAME_LEN],
    key: LessSafeKey,
}

impl SealingKey {
    /// Derives all keys, or says which one cannot be used.
    pub fn derive_all(keys: &[TicketKey]) -> Result<Vec<Self>, String> {
        let derive = |(index, key): (usize, &TicketKey)| {
            let secret = parse_secret(key.secret.reveal());
            secret
                .and_then(|secret| Self::derive(&secret))
                .ok_or_else(|| {
                    format!(
                        "ticket key {} is not {SECRET_LEN} bytes in hexadecimal",
                        index + 1
                    )
                })
        };
        keys.iter().enumerate().map(derive).collect()
    }

    fn derive(secret: &[u8; SECRET_LEN]) -> Option<Self> {
        let prk: Prk = Salt::new(HKDF_SHA256, b"lbterm session tickets").extract(secret);
        let mut name = [0; NAME_LEN];
        let named = prk.expand(&[b"name"], Name).ok()?;
        named.fill(&mut name).ok()?;
        let key = prk.expand(&[b"key"], &AES_256_GCM_SIV).ok()?;
        let key = LessSafeKey::new(UnboundKey::from(key));
        Some(Self { name, key })
    }

    fn seal(&self, session: &[u8]) -> Option<Vec<u8>> {
        let mut nonce = [0; NONCE_LEN];
        aws_lc_rs::rand::fill(&mut nonce).ok()?;
        let mut sealed = session.to_vec();
        let nonce_used = Nonce::assume_unique_for_key(nonce);
        self.key
            .seal_in_place_append_tag(nonce_used, Aad::from(self.name), &mut sealed)
            .ok()?;
        Some([&self.name[..], &nonce, &sealed].concat())
    }

    fn open(&self, nonce: &[u8; NONCE_LEN], sealed: &[u8]) -> Option<Vec<u8>> {
        let mut session = sealed.to_vec();
        let nonce = Nonce::assume_unique_for_key(*nonce);
        let opened = self
            .key
            .open_in_place(nonce, Aad::from(self.name), &mut session)
            .ok()?;
        let length = opened.len();
        session.truncate(length);
        Some(session)
    }
}

/// Length of a key's name, for HKDF.
struct Name;

impl KeyType for Name {
    fn len(&self) -> usize {
        NAME_LEN
    }
}

fn parse_secret(text: &str) -> Option<[u8; SECRET_LEN]> {
    let digits: Vec<u8> = text
        .chars()
        .map(|digit| {
            digit
                .to_digit(16)
                .and_then(|digit| u8::try_from(digit).ok())
        })
        .collect::<Option<_>>()?;
    let bytes: Vec<u8> = digits
        .chunks(2)
        .map(|pair| pair.iter().fold(0, |byte, digit| byte << 4 | digit))
        .collect();
    // An odd number of digits would make a byte of the last one.
    (digits.len() == 2 * SECRET_LEN)
        .then_some(bytes)?
        .try_into()
        .ok()
}

impl ProducesTickets for Tickets {
    fn enabled(&self) -> bool {
        !self.keys.load().is_empty()
    }

    fn lifetime(&self) -> u32 {
        LIFETIME_S
    }

    fn encrypt(&self, session: &[u8]) -> Option<Vec<u8>> {
        self.keys.load().first()?.seal(session)
    }

    fn decrypt(&self, ticket: &[u8]) -> Option<Vec<u8>> {
        let (name, rest) = ticket.split_first_chunk::<NAME_LEN>()?;
        let (nonce, sealed) = rest.split_first_chunk::<NONCE_LEN>()?;
        let keys = self.keys.load();
        // A key's name is no secret: it travels in the ticket.
        let key = keys.iter().find(|key| key.name == *name)?;
        key.open(nonce, sealed)
    }
}

#[cfg(test)]
mod tests {
    use lbagent_api::certificate::Secret;

    use super::*;

    fn keys(secrets: &[&str]) -> Result<Vec<SealingKey>, String> {
        let key = |secret: &&str| TicketKey {
            secret: Secret::new((*secret).to_owned()),
        };
        let keys: Vec<_> = secrets.iter().map(key).collect();
        SealingKey::derive_all(&keys)
    }

    fn tickets(secrets: &[&str]) -> Tickets {
        let tickets = Tickets::default();
        tickets.replace(keys(secrets).unwrap());
        tickets
    }

    #[test]
    fn whoever_has_the_key_opens_the_ticket() {
        let [one, two] = ["01".repeat(32), "02".repeat(32)];
        let first = tickets(&[&one]);
        let ticket = first.encrypt(b"session").unwrap();
        for secrets in [vec![&*one], vec![&*two, &*one], vec![&*one, &*two]] {
            assert_eq!(tickets(&secrets).decrypt(&ticket).unwrap(), b"session");
        }
        assert_eq!(tickets(&[&two]).decrypt(&ticket), None);
        // The newest makes them.
        let ticket = tickets(&[&two, &one]).encrypt(b"session").unwrap();
        assert_eq!(first.decrypt(&ticket), None);
        assert_ne!(first.encrypt(b"session"), first.encrypt(b"session"));
        first.replace(Vec::new());
        assert!(!first.enabled());
        assert_eq!(first.encrypt(b"session"), None);
    }

    #[test]
    fn a_ticket_that_was_changed_anywhere_is_none() {
        let tickets = tickets(&[&"01".repeat(32)]);
        let ticket = tickets.encrypt(b"session").unwrap();
        for index in 0..ticket.len() {
            let mut changed = ticket.clone();
            changed[index] ^= 1;
            assert_eq!(tickets.decrypt(&changed), None, "byte {index}");
            assert_eq!(tickets.decrypt(&ticket[..index]), None, "cut at {index}");
        }
    }

    #[test]
    fn a_secret_is_32_bytes_in_hexadecimal() {
        for bad in [
            "",
            "00",
            &"0".repeat(63),
            &"0".repeat(65),
            &"0".repeat(66),
            &"g".repeat(64),
            &"é".repeat(32),
        ] {
            let message = keys(&[&"00".repeat(32), bad]).err().unwrap();
            assert_eq!(message, "ticket key 2 is not 32 bytes in hexadecimal");
        }
        assert_eq!(parse_secret(&"0f".repeat(32)), Some([15; 32]));
    }
}
