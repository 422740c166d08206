//! Accounts do not see each other.

mod trespass;

use std::time::Duration;

use super::*;

pub(super) const THEM: Caller = Caller {
    account: Uuid::from_u128(7),
    role: Role::Member,
};

/// Adds their account, with a UUID that tests know.
fn open_for_two(directory: &Path) -> (Arc<RedbStore>, Desired) {
    let (store, desired) = open(directory);
    add_their_account(&desired, Quotas::UNLIMITED);
    (store, desired)
}

pub(super) fn add_their_account(desired: &Desired, quotas: Quotas) {
    let mut wanted = (*desired.current()).clone();
    let account = Account {
        uuid: THEM.account,
        name: "them".into(),
        created_at: NOW,
        quotas,
    };
    wanted.access.accounts.insert(account.uuid, account);
    desired.replace(&wanted.into()).unwrap().outcome.unwrap();
}

fn outcome<T, E: std::fmt::Display>(written: Written<Vec<Result<T, E>>>) -> String {
    match written.outcome.into_iter().next() {
        Some(Ok(_)) => "done".into(),
        Some(Err(error)) => error.to_string(),
        None => "no outcome".into(),
    }
}

#[test]
fn names_are_an_accounts_own_and_ports_domains_and_addresses_the_gateways() {
    let directory = tempfile::tempdir().unwrap();
    let (_, desired) = open_for_two(directory.path());
    let make = |caller, new: NewServiceGroup| {
        outcome(
            desired
                .create_service_groups(caller, &[new], &gateway(), NOW)
                .unwrap(),
        )
    };
    let with_domain = |name, port| NewServiceGroup {
        domains: Some(vec!["web.example.com".into()]),
        ..group(name, port)
    };
    assert_eq!(make(US, with_domain("secret", 80)), "done");
    assert_eq!(make(THEM, group("secret", 81)), "done");
    assert_eq!(
        make(THEM, group("b", 80)),
        "Port 80/tcp is in use; choose another port"
    );
    assert_eq!(
        make(THEM, with_domain("b", 82)),
        "Domain 'web.example.com' is in use; choose another one"
    );
    assert_eq!(
        make(US, with_domain("b", 82)),
        "Domain 'web.example.com' is in use by service group 'secret'; choose another one"
    );
    let join = |caller, name, host| {
        let group = NewInstanceGroup::Join(Selector::Name("secret".into()));
        let new = instance(name, host, group);
        outcome(
            desired
                .create_instances(caller, &[new], &gateway(), NOW)
                .unwrap(),
        )
    };
    assert_eq!(join(US, "i", 1), "done");
    assert_eq!(
        join(THEM, "j", 1),
        "Address 10.0.0.1 is in use; choose another one"
    );
    assert_eq!(join(THEM, "i", 2), "done");
    let gone = desired
        .delete_instances(US, &[Selector::Name("i".into())], NOW)
        .unwrap();
    assert_eq!(outcome(gone), "done");
    assert_eq!(join(THEM, "j", 1), "done");
}

#[test]
fn two_instances_at_an_address_keep_it_for_their_account_until_the_last_is_gone() {
    let directory = tempfile::tempdir().unwrap();
    let (_, desired) = open_for_two(directory.path());
    let make = |caller, name| {
        let new = instance(name, 1, NewInstanceGroup::None);
        let made = desired.create_instances(caller, &[new], &gateway(), NOW);
        outcome(made.unwrap())
    };
    let delete = |name: &str| {
        let selector = Selector::Name(name.into());
        outcome(desired.delete_instances(US, &[selector], NOW).unwrap())
    };
    assert_eq!(
        (make(US, "a"), make(US, "b")),
        ("done".into(), "done".into())
    );
    assert_eq!(delete("a"), "done");
    assert!(make(THEM, "c").contains("in use"));
    assert_eq!(delete("b"), "done");
    assert_eq!(make(THEM, "c"), "done");
}

#[test]
fn a_store_of_before_there_were_accounts_is_the_default_accounts() {
    let directory = tempfile::tempdir().unwrap();
    let (store, desired) = open(directory.path());
    drop(desired);
    let (g, i) = (Uuid::from_u128(1), Uuid::from_u128(2));
    let records = [
        (
            format!("/groups/{g}"),
            format!(
                r#"{{"uuid":"{g}","name":"web","created_at":"2026-01-02T03:04:05Z","persistent":true,
                 "soft_limit":1,"hard_limit":9,"services":[],"domains":["a.example.com"]}}"#
            ),
        ),
        ("/names/groups/web".into(), format!("\"{g}\"")),
        ("/domains/a.example.com".into(), format!("\"{g}\"")),
        (
            format!("/instances/{i}"),
            format!(
                r#"{{"uuid":"{i}","name":"a","created_at":"2026-01-02T03:04:05Z","image":null,
                 "state":{{"state":"running"}},"service_group":"{g}","addresses":["10.0.0.1/32"]}}"#
            ),
        ),
        ("/names/instances/a".into(), format!("\"{i}\"")),
    ];
    let put = |(key, value): (String, String)| Op::Put {
        key,
        value: value.into_bytes(),
    };
    let mut ops: Vec<Op> = records.map(put).into();
    ops.push(Op::Delete {
        key: keys::SCHEMA.into(),
    });
    store
        .txn(&Transaction {
            ops,
            ..Transaction::default()
        })
        .unwrap();
    let desired = Desired::load(store.clone()).unwrap();
    let state = desired.current();
    let find = |name: &str| Selector::Name(name.into());
    assert_eq!(state.service_group(US, &find("web")).unwrap().uuid, g);
    assert_eq!(state.instance(US, &find("a")).unwrap().uuid, i);
    assert!(state.instance(THEM, &Selector::Uuid(i)).is_none());
    add_their_account(&desired, Quotas::UNLIMITED);
    let taken = [instance("x", 1, NewInstanceGroup::None)];
    let taken = desired
        .create_instances(THEM, &taken, &gateway(), NOW)
        .unwrap();
    assert!(outcome(taken).contains("in use"));
    let mut keys = store.range("/names/groups/").unwrap().items;
    keys.extend(store.range("/names/instances/").unwrap().items);
    let keys: Vec<_> = keys.into_iter().map(|item| item.key).collect();
    let nil = Uuid::nil();
    assert_eq!(
        keys,
        [
            format!("/names/groups/{nil}/web"),
            format!("/names/instances/{nil}/a")
        ]
    );
}

#[test]
fn a_document_keeps_accounts_and_what_they_must_not_share() {
    let directory = tempfile::tempdir().unwrap();
    let (_, desired) = open_for_two(directory.path());
    for (caller, port) in [(US, 80), (THEM, 81)] {
        let made = desired
            .create_service_groups(caller, &[group("web", port)], &gateway(), NOW)
            .unwrap();
        assert_eq!(outcome(made), "done");
        let join = NewInstanceGroup::Join(Selector::Name("web".into()));
        let host = if caller == US { 1 } else { 2 };
        let made = desired
            .create_instances(caller, &[instance("i", host, join)], &gateway(), NOW)
            .unwrap();
        assert_eq!(outcome(made), "done");
    }
    let settings = crate::plan::testing::gateway(&[]);
    let exported = document::export(
        &desired.current(),
        &settings,
        None,
        &document::Secrets::default(),
    );
    let read = document::import(&exported, &gateway().vips).unwrap();
    let elsewhere = tempfile::tempdir().unwrap();
    let (_, copy) = open(elsewhere.path());
    copy.replace(&read).unwrap().outcome.unwrap();
    let (copied, original) = (copy.current(), desired.current());
    assert_eq!(copied.service_groups, original.service_groups);
    assert_eq!(copied.instances, original.instances);
    assert_eq!(copied.claims, original.claims);
    let mut foreign = exported.clone();
    foreign.instances[0].account = match foreign.instances[0].account {
        DEFAULT_ACCOUNT => THEM.account,
        _ => DEFAULT_ACCOUNT,
    };
    let error = document::import(&foreign, &gateway().vips).unwrap_err();
    assert!(error.message.contains("No service group"), "{error:?}");
    let mut shared = exported;
    shared.instances[0].addresses = shared.instances[1].addresses.clone();
    let error = document::import(&shared, &gateway().vips).unwrap_err();
    assert!(error.message.contains("in use by another"), "{error:?}");
}

#[test]
fn quotas_end_what_an_account_may_have_and_free_it_again() {
    let directory = tempfile::tempdir().unwrap();
    let (_, desired) = open(directory.path());
    add_their_account(
        &desired,
        Quotas {
            instances: Some(1),
            ..Quotas::CREATED
        },
    );
    let group_at = |port: u16| {
        let new = [group(&format!("g{port}"), port)];
        outcome(
            desired
                .create_service_groups(THEM, &new, &gateway(), NOW)
                .unwrap(),
        )
    };
    for port in 1..=4 {
        assert_eq!(group_at(port), "done");
    }
    let full = "Quota of 4 raw ports is used up (4 in use); delete some, or ask an operator for a \
                larger quota";
    assert_eq!(group_at(5), full);
    let wide = NewInstanceGroup::Create(group("wide", 6));
    let made = desired.create_instances(THEM, &[instance("i", 1, wide)], &gateway(), NOW);
    assert_eq!(outcome(made.unwrap()), full);
    let gone = desired.delete_service_groups(THEM, &[Selector::Name("g1".into())]);
    assert_eq!(outcome(gone.unwrap()), "done");
    assert_eq!(group_at(5), "done");
    let two: Vec<_> = (1..=2)
        .map(|n| instance(&format!("i{n}"), n, NewInstanceGroup::None))
        .collect();
    let made = desired
        .create_instances(THEM, &two, &gateway(), NOW)
        .unwrap()
        .outcome;
    let second = made[1].as_ref().unwrap_err();
    assert!(
        made[0].is_ok() && second.to_string().starts_with("Quota of 1 instances"),
        "{second}"
    );
    // A quota that is lowered leaves what is there.
    let quotas = Quotas {
        raw_ports: Some(1),
        ..Quotas::UNLIMITED
    };
    desired
        .set_quotas(&Selector::Uuid(THEM.account), quotas)
        .unwrap()
        .outcome
        .unwrap();
    let usage = desired.current().usage(THEM.account);
    assert_eq!(
        (
            usage.raw_ports,
            usage.service_groups,
            usage.instances,
            usage.live_instances
        ),
        (4, 4, 1, 1)
    );
    let loose = [instance("j", 9, NewInstanceGroup::None)];
    assert_eq!(
        outcome(
            desired
                .create_instances(THEM, &loose, &gateway(), NOW)
                .unwrap()
        ),
        "done"
    );
    assert_eq!(
        outcome(
            desired
                .create_service_groups(US, &[group("g", 99)], &gateway(), NOW)
                .unwrap()
        ),
        "done"
    );
    let empty = Selector::Name("them".into());
    let refused = desired.delete_account(&empty).unwrap().outcome.unwrap_err();
    assert_eq!(
        refused.to_string(),
        "Account 'them' has 4 service groups, 2 instances and 0 certificates; delete them first"
    );
}

#[test]
fn tokens_are_good_until_they_expire_are_revoked_or_lose_their_account() {
    let directory = tempfile::tempdir().unwrap();
    let (store, desired) = open_for_two(directory.path());
    let make = |role, lifetime| {
        let account = Selector::Uuid(THEM.account);
        let new = NewToken {
            role,
            account,
            label: "ci".into(),
            lifetime,
        };
        desired.create_token(&new, NOW).unwrap().outcome
    };
    let caller = |secret: &str, now| desired.current().access.caller(secret.as_bytes(), now);
    let (token, secret) = make(Role::Member, Some(Duration::from_secs(60))).unwrap();
    assert_eq!(caller(&secret, NOW), Some(THEM));
    assert_eq!(caller(&secret, NOW + Duration::from_secs(60)), None);
    assert_eq!(caller(&secret[1..], NOW), None);
    assert_eq!(caller("", NOW), None);
    let stored = store.range("/tokens/").unwrap().items;
    assert!(!String::from_utf8_lossy(&stored[0].value).contains(&secret[5..]));
    desired.revoke_token(token.uuid).unwrap().outcome.unwrap();
    assert_eq!(caller(&secret, NOW), None);
    assert!(desired.revoke_token(token.uuid).unwrap().outcome.is_err());
    assert_eq!(
        make(Role::Operator, None),
        Err(TokenError::OperatorOfAccount)
    );
    let (_, secret) = make(Role::Reader, None).unwrap();
    let read = Desired::load(store.clone()).unwrap();
    assert!(
        read.current()
            .access
            .caller(secret.as_bytes(), NOW)
            .is_some()
    );
    assert_eq!(*read.current(), *desired.current());
    desired
        .delete_account(&Selector::Name("them".into()))
        .unwrap()
        .outcome
        .unwrap();
    assert_eq!(caller(&secret, NOW), None);
    assert!(store.range("/tokens/").unwrap().items.is_empty());
    assert!(store.range("/accounts/").unwrap().items.is_empty());
}

#[test]
fn a_store_of_a_newer_version_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let (store, desired) = open(directory.path());
    drop(desired);
    let ops = vec![Op::Put {
        key: keys::SCHEMA.into(),
        value: b"99".into(),
    }];
    store
        .txn(&Transaction {
            ops,
            ..Transaction::default()
        })
        .unwrap();
    let error = Desired::load(store).err().unwrap();
    assert!(error.to_string().contains("schema 99"), "{error}");
}
