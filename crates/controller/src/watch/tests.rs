use api::v1::Vpc;
use futures::stream;
use serde_json::json;
use tokio::time::{Instant, sleep};

use super::*;

type Item = watcher::Result<watcher::Event<Vpc>>;

/// What a watch says, each after so many seconds; then nothing more.
fn says(items: Vec<(u64, Item)>) -> impl Stream<Item = Item> {
    stream::iter(items)
        .then(|(after, item)| async move {
            sleep(Duration::from_secs(after)).await;
            item
        })
        .chain(stream::pending())
}

fn failed(how: fn(kube::Error) -> watcher::Error) -> Item {
    Err(how(kube::Error::LinesCodecMaxLineLengthExceeded))
}

fn vpc() -> Vpc {
    serde_json::from_value(json!({
        "apiVersion": "kubeovn.io/v1", "kind": "Vpc", "metadata": {"name": "v"}, "spec": {}
    }))
    .unwrap()
}

/// Starts the pump; events are taken and thrown away.
fn start(stream: impl Stream<Item = Item> + Send + 'static) -> Troubles {
    let troubles = Troubles::default();
    let (events, mut inbox) = mpsc::channel(8);
    tokio::spawn(async move { while inbox.recv().await.is_some() {} });
    tokio::spawn(pump(stream, events, troubles.clone()));
    troubles
}

async fn after(seconds: u64) {
    sleep(Duration::from_secs(seconds)).await;
}

#[tokio::test(start_paused = true)]
async fn a_watch_that_began_again_in_silence_works() {
    let troubles = start(says(vec![
        (1, failed(watcher::Error::WatchStartFailed)),
        (20, failed(watcher::Error::WatchStartFailed)),
    ]));
    after(2).await;
    assert_eq!(
        troubles.list(),
        ["watch of vpcs: failed to start watching object: Error finding newline character"]
    );
    // It complains again: the longest way to a complaint is shorter than the patience with silence.
    after(20 + CALM.as_secs() - 3).await;
    assert_eq!(troubles.list().len(), 1);
    after(5).await;
    assert!(troubles.list().is_empty(), "nothing is wrong any more");
}

#[tokio::test(start_paused = true)]
async fn what_a_watch_says_ends_its_trouble_but_not_that_it_begins_to_list() {
    let troubles = start(says(vec![
        (1, failed(watcher::Error::InitialListFailed)),
        (2, Ok(watcher::Event::Init)),
        (2, Ok(watcher::Event::InitApply(vpc()))),
        (2, failed(watcher::Error::WatchStartFailed)),
        (2, Ok(watcher::Event::Delete(vpc()))),
    ]));
    for wrong in [true, true, false, true, false] {
        after(2).await;
        assert_eq!(!troubles.list().is_empty(), wrong);
    }
}

#[tokio::test(start_paused = true)]
async fn a_watch_that_is_cut_off_is_no_trouble() {
    let troubles = start(says(vec![(1, failed(watcher::Error::WatchFailed))]));
    after(2).await;
    assert!(troubles.list().is_empty());
}

#[tokio::test(start_paused = true)]
async fn tries_that_fail_at_once_do_not_follow_each_other_at_once() {
    let start_time = Instant::now();
    let (tried, mut tries) = mpsc::unbounded_channel();
    let troubles = start(stream::repeat_with(move || {
        tried.send(start_time.elapsed()).unwrap();
        failed(watcher::Error::WatchStartFailed)
    }));
    after(60).await;
    assert_eq!(troubles.list().len(), 1);
    let mut times = Vec::new();
    while let Ok(time) = tries.try_recv() {
        times.push(time);
    }
    assert!(times[1] <= Duration::from_millis(200), "{times:?}");
    assert!((30..=40).contains(&times.len()), "{times:?}");
}

#[tokio::test(start_paused = true)]
async fn a_watch_that_is_cut_off_again_and_again_is_trouble() {
    let (tried, mut tries) = mpsc::unbounded_channel();
    let troubles = start(stream::repeat_with(move || {
        tried.send(()).unwrap();
        failed(watcher::Error::WatchFailed)
    }));
    after(1).await;
    assert!(troubles.list().is_empty());
    after(59).await;
    assert_eq!(troubles.list().len(), 1);
    let mut count = 0;
    while tries.try_recv().is_ok() {
        count += 1;
    }
    assert!((30..=40).contains(&count), "{count}");
}

#[tokio::test(start_paused = true)]
async fn a_list_that_is_asked_for_begins_after_it_was_asked_for() {
    let (begun, mut begins) = mpsc::unbounded_channel();
    let begin = move || {
        begun.send(Instant::now()).unwrap();
        says(vec![
            (0, Ok(watcher::Event::Init)),
            (0, Ok(watcher::Event::InitDone)),
        ])
    };
    let (events, mut inbox) = mpsc::channel(8);
    let (ask, asked) = watch::channel(None);
    tokio::spawn(keep::<Vpc, _>(begin, events, Troubles::default(), asked));
    after(5).await;
    let first = begins.recv().await.unwrap();
    let asked_at = Instant::now();
    assert!(first < asked_at);
    ask.send_replace(Some(EffectId(7)));
    after(5).await;
    assert!(begins.recv().await.unwrap() >= asked_at);
    assert!(begins.try_recv().is_err());
    let mut seen = Vec::new();
    while let Ok(Event::Kube(event)) = inbox.try_recv() {
        seen.push(event);
    }
    let (kind, id) = (Kind::Vpc, EffectId(7));
    let list = [KubeEvent::Begin(kind), KubeEvent::End(kind)];
    let asked = KubeEvent::Asked { kind, id };
    assert_eq!(seen, [&list[..], &[asked], &list[..]].concat());
}
