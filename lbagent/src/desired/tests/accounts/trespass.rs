//! Random operations of two accounts: neither sees or changes what the other has.

use super::*;

/// One step of an account: which operation, and on which of four names.
#[derive(Clone, Copy, Debug)]
struct Step {
    operation: u8,
    name: u8,
}

fn any_step() -> impl Strategy<Value = Step> {
    (0..7_u8, 0..4_u8).prop_map(|(operation, name)| Step { operation, name })
}

/// Does a step within an account; `lane` keeps ports and addresses of accounts apart.
fn step(desired: &Desired, caller: Caller, lane: u8, Step { operation, name }: Step) -> String {
    let word = format!("n{name}");
    let named = Selector::Name(word.clone());
    let port = 1_000 * u16::from(lane) + u16::from(name) + 1;
    match operation {
        0 => {
            let new = [group(&word, port)];
            outcome(
                desired
                    .create_service_groups(caller, &new, &gateway(), NOW)
                    .unwrap(),
            )
        }
        1 => outcome(desired.delete_service_groups(caller, &[named]).unwrap()),
        2 | 3 => {
            let join = NewInstanceGroup::Join(named);
            let new = [instance(&word, 10 * lane + name, join)];
            outcome(
                desired
                    .create_instances(caller, &new, &gateway(), NOW)
                    .unwrap(),
            )
        }
        4 => {
            let stop = StopRequest {
                selector: named,
                drain: Duration::ZERO,
                only_if: None,
            };
            outcome(desired.stop_instances(caller, &[stop], NOW).unwrap())
        }
        5 => outcome(desired.start_instances(caller, &[named]).unwrap()),
        _ => outcome(desired.delete_instances(caller, &[named], NOW).unwrap()),
    }
}

/// Every operation on an object of another account, by its UUID; what each answers.
fn trespass(desired: &Desired, caller: Caller, uuid: Uuid) -> Vec<String> {
    let it = Selector::Uuid(uuid);
    let join = instance("spy", 99, NewInstanceGroup::Join(it.clone()));
    let stop = StopRequest {
        selector: it.clone(),
        drain: Duration::ZERO,
        only_if: None,
    };
    let policy = |outcome: Result<(), SetPolicyError>| outcome.unwrap_err().to_string();
    let set_group = desired
        .set_group_policy(caller, &it, &GroupPolicy::default(), &gateway().vips)
        .unwrap();
    let set_instance = desired.set_instance_policy(caller, &it, &InstancePolicy::default());
    let state = desired.current();
    assert!(state.service_group(caller, &it).is_none() && state.instance(caller, &it).is_none());
    let answers = vec![
        outcome(
            desired
                .delete_service_groups(caller, std::slice::from_ref(&it))
                .unwrap(),
        ),
        outcome(
            desired
                .create_instances(caller, &[join], &gateway(), NOW)
                .unwrap(),
        ),
        outcome(desired.stop_instances(caller, &[stop], NOW).unwrap()),
        outcome(
            desired
                .start_instances(caller, std::slice::from_ref(&it))
                .unwrap(),
        ),
        outcome(desired.delete_instances(caller, &[it], NOW).unwrap()),
        policy(set_group.outcome.map(drop)),
        policy(set_instance.unwrap().outcome.map(drop)),
    ];
    let hide = |answer: String| answer.replace(&uuid.to_string(), "UUID");
    answers.into_iter().map(hide).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    /// An account's answers are the same whatever another one does, down to the last word.
    #[test]
    fn an_account_cannot_tell_whether_there_are_others(
        steps in prop::collection::vec((any::<bool>(), any_step()), 1..60),
    ) {
        let (shared, alone) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let ((_, shared), (_, alone)) = (open_for_two(shared.path()), open_for_two(alone.path()));
        for (is_ours, this) in steps {
            if !is_ours {
                step(&shared, THEM, 2, this);
                continue;
            }
            prop_assert_eq!(step(&shared, US, 1, this), step(&alone, US, 1, this));
        }
        let names = |desired: &Desired| {
            let state = desired.current();
            let groups = state.service_groups_of(US).map(|group| group.name.clone());
            let instances = state.instances_of(US).map(|one| (one.name.clone(), one.state.clone()));
            (groups.collect::<BTreeSet<_>>(), instances.map(|i| format!("{i:?}")).collect::<BTreeSet<_>>())
        };
        prop_assert_eq!(names(&shared), names(&alone));
        let before = shared.current();
        let unknown = trespass(&shared, THEM, Uuid::from_u128(0xdead));
        for uuid in before.service_groups_of(US).map(|g| g.uuid).chain(before.instances_of(US).map(|i| i.uuid)) {
            prop_assert_eq!(&trespass(&shared, THEM, uuid), &unknown);
        }
        prop_assert_eq!(shared.current(), before);
    }
}
