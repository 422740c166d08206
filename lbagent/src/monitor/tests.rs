use super::*;

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

#[test]
fn outcomes_are_chosen_by_label_and_by_verdict() {
    let bit = |outcome: Outcome| 1_u64 << (outcome as u32);
    let drops = outcomes(&words(&["drop"])).unwrap();
    assert_ne!(drops & bit(Outcome::DropNoBackend), 0);
    assert_eq!(drops & bit(Outcome::ForwardTx), 0);
    let two = outcomes(&words(&["drop_source", "pass_ttl"])).unwrap();
    assert_eq!(two, bit(Outcome::DropSource) | bit(Outcome::PassTtl));
    let all = outcomes(&[]).unwrap();
    assert_eq!(all & bit(Outcome::PassNotVip), 0);
    assert_ne!(all & bit(Outcome::ReturnRedirect), 0);
    assert!(outcomes(&words(&["drop", "dorp"])).is_err());
}

fn watcher(sample: u32) -> (Watcher, mpsc::Receiver<MonitorLine>) {
    let (lines, receiver) = mpsc::channel(QUEUE);
    let watcher = Watcher {
        sampling: Sampling {
            shift: sample.trailing_zeros() + 1,
            outcomes: u64::MAX,
        },
        group: None,
        lines,
        told: 0,
        second: Instant::now(),
        lost: 0,
        last_line: Instant::now(),
    };
    (watcher, receiver)
}

#[test]
fn a_coarser_sample_is_a_part_of_the_finest() {
    let (watcher, _lines) = watcher(16);
    let wanted = (0..16_000_u64)
        .map(|number| FlowEvent {
            time_ns: number * 1_237,
            ..FlowEvent::default()
        })
        .filter(|event| watcher.wants(event, None, 1))
        .count();
    assert!((800..=1_200).contains(&wanted), "{wanted} of 16,000");
}

#[test]
fn a_watcher_that_reads_nothing_is_told_how_many_it_missed() {
    let (mut watcher, mut lines) = watcher(1);
    let event = || Names::default().event(&FlowEvent::default(), &DesiredState::default());
    assert!(event().is_some());
    let told = QUEUE as u64 + 500;
    for _ in 0..told {
        watcher.tell(event);
    }
    watcher.keep_up();
    let mut events = 0;
    let mut lost = None;
    while let Ok(line) = lines.try_recv() {
        match line {
            MonitorLine::Event(_) => events += 1,
            MonitorLine::Lost { events } => lost = Some(events),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(lost, Some(told - events));
    assert!(events > 4_000);
}

#[test]
fn a_watcher_is_told_no_more_than_a_person_can_bear() {
    let (mut watcher, mut lines) = watcher(1);
    let event = || Names::default().event(&FlowEvent::default(), &DesiredState::default());
    let mut events = 0;
    for _ in 0..3 * MOST_PER_SECOND {
        watcher.second = Instant::now();
        watcher.tell(event);
        events += u32::from(lines.try_recv().is_ok());
    }
    assert_eq!(events, MOST_PER_SECOND);
    assert_eq!(watcher.lost, u64::from(2 * MOST_PER_SECOND));
}
