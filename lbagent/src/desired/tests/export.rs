//! The exported document holds everything that the store does, and an import is all or nothing.

use std::sync::LazyLock;
use std::time::Duration;

use lbagent_api::certificate::Secret;
use lbagent_api::state::{StateDocument, StateTerminator};
use rcgen::{CertificateParams, KeyPair};

use super::accounts::THEM;
use super::*;
use crate::desired::certificate::{NewCertificate, Rotation};
use crate::desired::document::{ReplaceError, Replaced, Secrets, Wanted};
use crate::plan::testing;

/// A chain for `a.example.com` and `*.example.com`, and its key.
type Pair = (String, String);

/// Two chains of one key, and one of another.
static PAIRS: LazyLock<[Pair; 3]> = LazyLock::new(|| {
    let names = vec!["a.example.com".to_owned(), "*.example.com".to_owned()];
    let params = CertificateParams::new(names).unwrap();
    let (one, other) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
    let chain = |days: i64, key: &KeyPair| {
        let mut params = params.clone();
        params.not_after = NOW + time::Duration::days(days);
        let chain = params.self_signed(key).unwrap().pem();
        (chain, key.serialize_pem())
    };
    [chain(30, &one), chain(60, &one), chain(90, &other)]
});

#[derive(Clone, Debug)]
enum Step {
    Objects(Action),
    AddAccount(u8),
    SetQuotas(u8, u32),
    DeleteAccount(u8),
    AddToken(Option<u8>, bool),
    RevokeToken(usize),
    AddCertificate(u8, usize),
    Rotate(u8, usize),
    DeleteCertificate(u8),
    NameCertificate(u8, Option<u8>),
    GroupPolicy(u8, bool),
    Weight(u8, u16),
    TicketKey(u8),
    Authority(usize),
}

fn any_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => any_action().prop_map(Step::Objects),
        1 => (0..3_u8).prop_map(Step::AddAccount),
        1 => (0..3_u8, any::<u32>()).prop_map(|(a, n)| Step::SetQuotas(a, n)),
        1 => (0..3_u8).prop_map(Step::DeleteAccount),
        1 => (prop::option::of(0..3_u8), any::<bool>()).prop_map(|(a, brief)| Step::AddToken(a, brief)),
        1 => (0..4_usize).prop_map(Step::RevokeToken),
        2 => (0..3_u8, 0..3_usize).prop_map(|(c, pair)| Step::AddCertificate(c, pair)),
        1 => (0..3_u8, 0..3_usize).prop_map(|(c, pair)| Step::Rotate(c, pair)),
        1 => (0..3_u8).prop_map(Step::DeleteCertificate),
        2 => (0..4_u8, prop::option::of(0..3_u8)).prop_map(|(g, c)| Step::NameCertificate(g, c)),
        1 => (0..4_u8, any::<bool>()).prop_map(|(g, dsr)| Step::GroupPolicy(g, dsr)),
        1 => (0..4_u8, 0..1000_u16).prop_map(|(i, weight)| Step::Weight(i, weight)),
        1 => (0..9_u8).prop_map(Step::TicketKey),
        1 => (0..3_usize).prop_map(Step::Authority),
    ]
}

fn named(kind: char, number: u8) -> Selector {
    Selector::Name(format!("{kind}{number}"))
}

fn take(desired: &Desired, step: &Step) {
    match step {
        Step::Objects(action) => act(desired, action),
        Step::AddAccount(a) => drop(desired.create_account(&format!("a{a}"), Quotas::CREATED, NOW)),
        Step::SetQuotas(a, instances) => {
            let quotas = Quotas {
                instances: Some(*instances),
                ..Quotas::CREATED
            };
            // One of them is the default account.
            let account = match a {
                0 => Selector::Name("default".into()),
                _ => named('a', *a),
            };
            drop(desired.set_quotas(&account, quotas));
        }
        Step::DeleteAccount(a) => drop(desired.delete_account(&named('a', *a))),
        Step::AddToken(account, brief) => {
            let new = NewToken {
                role: if account.is_some() {
                    Role::Member
                } else {
                    Role::Operator
                },
                account: account.map_or(Selector::Name("default".into()), |a| named('a', a)),
                label: "ci".into(),
                lifetime: brief.then_some(Duration::from_secs(60)),
            };
            drop(desired.create_token(&new, NOW));
        }
        Step::RevokeToken(place) => {
            if let Some(uuid) = desired.current().access.tokens.keys().nth(*place) {
                drop(desired.revoke_token(*uuid));
            }
        }
        Step::AddCertificate(c, pair) => add_certificate(desired, *c, *pair),
        Step::Rotate(c, pair) => {
            let (chain, key) = &PAIRS[*pair];
            let rotation = Rotation::read(named('c', *c), chain, Secret::new(key.clone()));
            drop(desired.rotate_certificates(US, &[rotation.unwrap()]));
        }
        Step::DeleteCertificate(c) => drop(desired.delete_certificates(US, &[named('c', *c)])),
        Step::NameCertificate(g, c) => {
            let domain = Domain {
                certificate: c.map(|c| (&named('c', c)).into()),
                ..format!("g{g}.example.com").as_str().into()
            };
            let operation = PatchOperation {
                selector: named('g', *g),
                change: Change::SetDomains(vec![domain]),
            };
            drop(desired.patch_service_groups(US, &[operation], &gateway(), NOW));
        }
        Step::GroupPolicy(g, dsr) => {
            let mut policy = GroupPolicy::default();
            if *dsr {
                policy.forwarding_mode = ForwardingMode::DsrIpip;
                policy.vips.extend(gateway().vips.first());
            }
            drop(desired.set_group_policy(US, &named('g', *g), &policy, &gateway().vips));
        }
        Step::Weight(i, weight) => {
            let policy = InstancePolicy {
                weight: *weight,
                ..InstancePolicy::default()
            };
            drop(desired.set_instance_policy(US, &named('i', *i), &policy));
        }
        Step::TicketKey(day) => {
            let now = NOW + time::Duration::days(i64::from(*day));
            drop(desired.rotate_ticket_keys(now));
        }
        Step::Authority(pair) => {
            let (certificate, key) = PAIRS[*pair].clone();
            let key = Secret::new(key);
            drop(desired.ensure_authority(&StoredAuthority { certificate, key }));
        }
    }
}

fn add_certificate(desired: &Desired, c: u8, pair: usize) {
    let (chain, key) = &PAIRS[pair];
    let key = Secret::new(key.clone());
    let new = NewCertificate::read(Some(format!("c{c}")), "a.example.com".into(), chain, key);
    desired
        .create_certificates(US, &[new.unwrap()], NOW)
        .unwrap();
}

/// Everything in the store.
fn stored(store: &RedbStore) -> BTreeMap<String, String> {
    let items = store.range("").unwrap().items.into_iter();
    items
        .map(|item| (item.key, String::from_utf8(item.value).unwrap()))
        .collect()
}

/// As `GET /v1/x/state` answers, and back.
fn exported(desired: &Desired, with_keys: bool) -> StateDocument {
    let (state, mut secrets) = desired.with_private_keys().unwrap();
    if !with_keys {
        secrets = Secrets::default();
    }
    let settings = crate::plan::GatewaySettings {
        hash_seed: desired.hash_seed(),
        ..testing::gateway(&[])
    };
    let document = document::export(&state, &settings, None, &secrets);
    let text = serde_json::to_string(&document).unwrap();
    document::parse(text.as_bytes()).unwrap()
}

fn read(document: &StateDocument) -> Wanted {
    document::import(document, &gateway().vips).unwrap()
}

/// What follows from the objects is the same, whether it was made at once or kept up.
fn assert_same_index(read: &DesiredState, kept_up: &DesiredState) {
    assert_eq!(read.revisions, kept_up.revisions);
    assert_eq!(read.usage, kept_up.usage);
    for account in read.access.accounts.keys() {
        let caller = Caller::operator(*account);
        let groups = |state: &DesiredState| -> Vec<_> {
            let groups = state.service_groups_of(caller);
            groups
                .map(|group| {
                    (
                        group.uuid,
                        state.members(group.uuid).cloned().collect::<Vec<_>>(),
                    )
                })
                .collect()
        };
        assert_eq!(groups(read), groups(kept_up));
        assert!(read.instances_of(caller).eq(kept_up.instances_of(caller)));
        for name in read.certificates_of(caller).flat_map(|found| &found.names) {
            let named =
                |state| DesiredState::certificates_named(state, *account, name).map(|it| it.uuid);
            assert!(named(read).eq(named(kept_up)));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn an_empty_store_becomes_the_one_that_was_exported(
        steps in prop::collection::vec(any_step(), 1..40),
        before in prop::collection::vec(any_step(), 0..20),
    ) {
        let [here, there] = [(); 2].map(|()| tempfile::tempdir().unwrap());
        let (store, desired) = open(here.path());
        steps.iter().for_each(|step| take(&desired, step));
        let document = exported(&desired, true);
        let (other_store, other) = open(there.path());
        let generation = other.current().generation;
        let written = other.replace(&read(&document)).unwrap();
        prop_assert_eq!(written.outcome, Ok(Replaced { tokens_left_out: false }));
        prop_assert!(written.generation <= generation + 1, "one transaction");
        prop_assert_eq!(stored(&other_store), stored(&store));
        prop_assert_eq!(other.hash_seed(), desired.hash_seed());
        // What is published is what a reader of the store would find.
        let found = Desired::load(other_store).unwrap();
        prop_assert_eq!(&*found.current(), &*other.current());
        assert_same_index(&found.current(), &other.current());
        // Again, and with the agent's own keys: nothing changes.
        for document in [&document, &exported(&desired, false)] {
            let again = desired.replace(&read(document)).unwrap();
            prop_assert_eq!(again.outcome, Ok(Replaced { tokens_left_out: false }));
            prop_assert_eq!(again.generation, desired.current().generation);
        }
        // In the place of anything else: the same objects, and no claims but theirs.
        let elsewhere = tempfile::tempdir().unwrap();
        let (third_store, third) = open(elsewhere.path());
        before.iter().for_each(|step| take(&third, step));
        match third.replace(&read(&document)).unwrap().outcome {
            Ok(_) => {
                let of_access = ["/accounts/", "/tokens/", "/names/accounts/", "/settings/"];
                let objects = |store: &RedbStore| {
                    let mut all = stored(store);
                    all.retain(|key, _| !of_access.iter().any(|prefix| key.starts_with(prefix)));
                    all
                };
                prop_assert_eq!(objects(&third_store), objects(&store));
            }
            Err(error) => {
                let is_account = matches!(&error, ReplaceError::Account(AccountError::NameTaken { .. }));
                prop_assert!(is_account, "{}", error);
            }
        }
    }
}

#[test]
fn certificates_without_keys_are_told_and_nothing_is_changed() {
    let [here, there] = [(); 2].map(|()| tempfile::tempdir().unwrap());
    let (_, desired) = open(here.path());
    add_certificate(&desired, 0, 0);
    add_certificate(&desired, 1, 2);
    let document = exported(&desired, false);
    let (store, other) = open(there.path());
    let before = stored(&store);
    let error = other
        .replace(&read(&document))
        .unwrap()
        .outcome
        .unwrap_err();
    let text = error.to_string();
    assert!(
        text.contains("'c0'") && text.contains("'c1'") && text.contains("private keys"),
        "{text}"
    );
    assert_eq!(stored(&store), before);
    // Another chain of the same key goes with the key that the agent has; one of another does not.
    let (_, keys) = desired.with_private_keys().unwrap();
    for (pair, fits) in [(1, true), (2, false)] {
        let mut document = document.clone();
        let list = document.certificates.as_mut().unwrap();
        let c0 = list.iter_mut().find(|it| it.name == "c0").unwrap();
        c0.chain = PAIRS[pair].0.clone();
        let outcome = desired.replace(&read(&document)).unwrap().outcome;
        assert_eq!(outcome.is_ok(), fits, "{outcome:?}");
        assert_eq!(desired.with_private_keys().unwrap().1, keys);
    }
    // Where the document says nothing of certificates they stay.
    let mut silent = document;
    silent.certificates = None;
    desired.replace(&read(&silent)).unwrap().outcome.unwrap();
    assert_eq!(desired.current().certificates.len(), 2);
}

#[test]
fn tokens_come_only_where_there_are_none() {
    let directory = tempfile::tempdir().unwrap();
    let (_, desired) = open(directory.path());
    let new = NewToken {
        role: Role::Operator,
        account: Selector::Name("default".into()),
        label: "laptop".into(),
        lifetime: None,
    };
    let make = || desired.create_token(&new, NOW).unwrap().outcome.unwrap();
    let (lost, secret) = make();
    let (_, kept) = make();
    let document = exported(&desired, false);
    assert!(!serde_json::to_string(&document).unwrap().contains(&secret));
    desired.revoke_token(lost.uuid).unwrap().outcome.unwrap();
    let done = desired.replace(&read(&document)).unwrap().outcome.unwrap();
    assert!(done.tokens_left_out);
    let state = desired.current();
    let lets_in = |state: &DesiredState, shown: &String| state.access.caller(shown.as_bytes(), NOW);
    assert_eq!(lets_in(&state, &secret), None, "a revoked token came back");
    assert!(lets_in(&state, &kept).is_some());
    // On a new host they do.
    let elsewhere = tempfile::tempdir().unwrap();
    let (_, copy) = open(elsewhere.path());
    copy.replace(&read(&document)).unwrap().outcome.unwrap();
    assert!(lets_in(&copy.current(), &secret).is_some());
}

#[test]
fn a_wrong_document_names_the_object() {
    let directory = tempfile::tempdir().unwrap();
    let (store, desired) = open(directory.path());
    for step in [
        Step::AddAccount(1),
        Step::AddToken(Some(1), false),
        Step::AddToken(None, false),
        Step::AddCertificate(0, 0),
        Step::Objects(Action::CreateGroup(0)),
        Step::Objects(Action::CreateInstance(0, Some(0))),
        Step::Objects(Action::CreateInstance(1, Some(0))),
        Step::NameCertificate(0, Some(0)),
    ] {
        take(&desired, &step);
    }
    let (document, before) = (exported(&desired, true), stored(&store));
    #[track_caller]
    fn check(
        desired: &Desired,
        document: &StateDocument,
        words: &str,
        edit: impl FnOnce(&mut StateDocument),
    ) {
        let mut document = document.clone();
        edit(&mut document);
        let message = match document::import(&document, &gateway().vips) {
            Err(error) => error.message,
            Ok(wanted) => match desired.replace(&wanted).unwrap().outcome {
                Err(error) => error.to_string(),
                Ok(_) => panic!("imported; expected: {words}"),
            },
        };
        assert!(message.contains(words), "{message}");
    }
    let check = |words: &str, edit: &dyn Fn(&mut StateDocument)| {
        check(&desired, &document, words, edit);
        assert_eq!(stored(&store), before, "{words}");
    };
    check("Token '", &|d| d.tokens[0].digest = "+".repeat(64));
    check("expected 64 hexadecimal digits", &|d| {
        d.tokens[0].digest.truncate(63)
    });
    check("No account with uuid", &|d| {
        d.tokens[0].account = THEM.account
    });
    check("It occurs twice", &|d| {
        d.tokens[1].digest = d.tokens[0].digest.clone()
    });
    check("acts for all accounts", &|d| {
        for token in &mut d.tokens {
            (token.account, token.role) = (d.accounts[0].uuid, Role::Operator);
        }
    });
    check("Account 'a1' occurs twice", &|d| {
        d.accounts.push(d.accounts[0].clone())
    });
    check("name 'a1' already exists", &|d| {
        d.accounts[0].uuid = THEM.account;
        d.tokens.clear();
    });
    let certificate = |edit: fn(&mut lbagent_api::state::StateCertificate)| {
        move |d: &mut StateDocument| edit(&mut d.certificates.as_mut().unwrap()[0])
    };
    check("Certificate 'c0': ", &certificate(|c| c.chain = "x".into()));
    check(
        "not the key of",
        &certificate(|c| c.private_key = Some(Secret::new(PAIRS[2].1.clone()))),
    );
    check(
        "Certificate 'c0': The certificate is for",
        &certificate(|c| c.common_name = "b.org".into()),
    );
    check(
        "Service group 'g0': Domain 'g0.example.com' names a certificate that does not exist",
        &|d| {
            d.certificates = Some(Vec::new());
        },
    );
    check("Service group 'g0': Certificate 'c0' is for", &|d| {
        d.service_groups[0].domains[0].fqdn = "g0.example.org".into();
    });
    check("Service group 'g0': Invalid DNS name", &|d| {
        d.service_groups[0].domains[0].fqdn = "g0 .example.com".into();
    });
    check("Address 10.0.0.1 belongs to instance", &|d| {
        let address = d
            .instances
            .iter()
            .find(|one| one.name == "i0")
            .unwrap()
            .addresses
            .clone();
        d.instances
            .iter_mut()
            .for_each(|one| one.addresses.clone_from(&address));
    });
}

#[test]
fn secrets_of_terminators_go_where_there_are_none_and_must_be_good() {
    let [here, there] = [(); 2].map(|()| tempfile::tempdir().unwrap());
    let (_, desired) = open(here.path());
    desired.rotate_ticket_keys(NOW).unwrap();
    take(&desired, &Step::Authority(0));
    let silent = serde_json::to_string(&exported(&desired, false)).unwrap();
    let keys = desired.ticket_keys();
    assert!(!silent.contains(keys[0].reveal()) && !silent.contains("PRIVATE"));
    let document = exported(&desired, true);
    let mistakes: [fn(&mut StateTerminator); 3] = [
        |it| it.ticket_keys[0].secret = Secret::new("A".repeat(64)),
        |it| it.ticket_keys = vec![it.ticket_keys[0].clone(); 4],
        |it| it.development_ca.as_mut().unwrap().key = Secret::new(PAIRS[2].1.clone()),
    ];
    for mistake in mistakes {
        let mut document = document.clone();
        mistake(document.terminator.as_mut().unwrap());
        let error = document::import(&document, &gateway().vips).unwrap_err();
        assert!(error.message.contains("of 'terminator'"), "{error:?}");
        assert!(!error.message.contains("AAAA") && !error.message.contains("PRIVATE"));
    }
    let (_, other) = open(there.path());
    take(&other, &Step::Authority(2));
    let own = other.authority();
    other.replace(&read(&document)).unwrap().outcome.unwrap();
    assert_eq!(other.ticket_keys(), keys);
    assert_eq!(other.authority(), own, "what clients trust stays");
}
