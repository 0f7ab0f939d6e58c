//! A run that was recorded does the same again: what the engine does depends on nothing but what it was told.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "this is a test"
)]

mod common;

use std::sync::Arc;

use common::Lab;
use engine::{Config, Engine, Event, Kind, ObjectKey};

/// Through the text of a recording.
fn read_back<T: serde::Serialize + serde::de::DeserializeOwned>(value: &T) -> T {
    serde_json::from_str(&serde_json::to_string(value).unwrap()).unwrap()
}

#[test]
fn a_recording_replays_effect_by_effect() {
    let mut lab = Lab::with(Config {
        brakes: ovn::Brakes {
            rows: 2,
            percent: 10,
        },
        ..common::config()
    });
    // A server of an older version: what it cannot hold is not sent, this time and the next.
    let schema = Arc::make_mut(&mut lab.nb.schema);
    let router = schema.tables.get_mut("Logical_Router").unwrap();
    router.columns.remove("options").unwrap();
    lab.populate();
    lab.restart();
    lab.record = Some(Vec::new());
    lab.run();
    let pods = ["a", "b", "c", "d", "f", "g"];
    for pod in pods {
        lab.pod("default", pod, "n1");
    }
    lab.run();
    lab.kube.refused.insert(ObjectKey::pod("default", "e"));
    lab.pod("default", "e", "n2");
    lab.news_at_once();
    for pod in pods.into_iter().filter(|pod| *pod != "d") {
        lab.kube.lose(&ObjectKey::pod("default", pod));
    }
    lab.list_again(Kind::Pod);
    lab.run_for(jiff::SignedDuration::from_secs(10));
    assert!(!lab.engine.held().is_empty());
    lab.event(Event::ReleaseBrakes { rows: 5 });
    lab.kube.delete(&ObjectKey::cluster(Kind::Node, "n1"));
    lab.run_for(jiff::SignedDuration::from_secs(10));
    assert_eq!(lab.ports(), ["d.default", "e.default", "node-n2"]);

    let record = lab.record.take().unwrap();
    assert!(record.len() > 100);
    let mut engine = Engine::new(read_back(lab.config()), record[0].0);
    for (number, (now, events, effects)) in record.iter().enumerate() {
        let events: Vec<Event> = read_back(events);
        let again = engine.step_all(events, *now);
        assert_eq!(again, *effects, "step {number}");
    }
}
