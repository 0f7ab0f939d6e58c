//! Values, rows, schemas and frames: what the server's notation means and that nothing is lost in it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs;

use ovsdb::wire::{
    Atom, AtomMap, AtomSet, Condition, DatabaseSchema, Datum, FrameBuffer, FramingError, Incoming,
    Mutation, OpOutcome, Operation, RefType, Row, RowUpdate2, TableUpdates2,
};
use proptest::prelude::*;
use uuid::Uuid;

fn schema(path: &str) -> DatabaseSchema {
    let text = fs::read_to_string(path)
        .unwrap_or_else(|e| panic!("{path}: {e}; install the Debian package ovn-central"));
    serde_json::from_str(&text).unwrap()
}

fn northbound() -> DatabaseSchema {
    schema("/usr/share/ovn/ovn-nb.ovsschema")
}

fn atom() -> impl Strategy<Value = Atom> {
    prop_oneof![
        any::<i64>().prop_map(Atom::Int),
        // Whole reals turn into integers on the way: only the column's type tells them apart.
        (-1e9..1e9)
            .prop_filter("not whole", |r: &f64| r.fract() != 0.0)
            .prop_map(Atom::Real),
        any::<bool>().prop_map(Atom::Bool),
        any::<String>().prop_map(Atom::from),
        any::<u128>().prop_map(|u| Atom::Uuid(Uuid::from_u128(u))),
        "[a-z_][a-z0-9_]{0,9}".prop_map(|s| Atom::NamedUuid(s.into())),
    ]
}

/// Few different values, so that two sets overlap.
fn small_set() -> impl Strategy<Value = Datum> {
    prop::collection::vec(0_i64..12, 0..10).prop_map(Datum::set)
}

fn small_map() -> impl Strategy<Value = Datum> {
    prop::collection::vec((0_i64..8, 0_i64..3), 0..8).prop_map(Datum::map)
}

fn datum() -> impl Strategy<Value = Datum> {
    prop_oneof![
        atom().prop_map(Datum::Atom),
        prop::collection::vec(atom(), 0..6)
            .prop_map(|v| Datum::from(v.into_iter().collect::<AtomSet>())),
        prop::collection::vec((atom(), atom()), 0..6)
            .prop_map(|v| Datum::from(v.into_iter().collect::<AtomMap>())),
    ]
}

proptest! {
    #[test]
    fn values_survive_json(datum in datum()) {
        let text = serde_json::to_string(&datum).unwrap();
        prop_assert_eq!(serde_json::from_str::<Datum>(&text).unwrap(), datum);
    }

    #[test]
    fn rows_survive_json(columns in prop::collection::btree_map("[a-z]{1,8}", datum(), 0..8)) {
        let row: Row = columns.into_iter().map(|(c, d)| (c.into(), d)).collect();
        let text = serde_json::to_string(&row).unwrap();
        prop_assert_eq!(serde_json::from_str::<Row>(&text).unwrap(), row);
    }

    #[test]
    fn a_difference_leads_from_old_to_new(
        (old, new) in prop_oneof![(small_set(), small_set()), (small_map(), small_map())],
    ) {
        let difference = old.difference(&new);
        prop_assert_eq!(difference.is_empty(), old == new);
        prop_assert_eq!(old.clone().apply_difference(&difference), new);
    }

    /// Of sets: the same difference leads back, the order of two does not matter.
    #[test]
    fn differences_of_sets_are_their_own_inverse(
        old in small_set(), one in small_set(), two in small_set(),
    ) {
        prop_assert_eq!(old.clone().apply_difference(&one).apply_difference(&one), old.clone());
        prop_assert_eq!(
            old.clone().apply_difference(&one).apply_difference(&two),
            old.clone().apply_difference(&two).apply_difference(&one)
        );
        prop_assert_eq!(
            old.clone().apply_difference(&one.clone().apply_difference(&two)),
            old.apply_difference(&one).apply_difference(&two)
        );
    }

    #[test]
    fn a_modify_leads_from_row_to_row(old in nb_row(), new in nb_row()) {
        let schema = northbound();
        let table = &schema.tables["Logical_Switch_Port"];
        let (old, new) = (table.normalize_row(old), table.normalize_row(new));
        let modify = table.modify_between(&old, &new);
        let text = serde_json::to_string(&modify).unwrap();
        let modify = serde_json::from_str(&text).unwrap();
        prop_assert_eq!(table.apply_modify(old, modify), new);
    }

    #[test]
    fn sets_do_not_depend_on_the_order_of_insertion(values in prop::collection::vec(atom(), 0..12)) {
        let at_once: AtomSet = values.iter().cloned().collect();
        let mut one_by_one = AtomSet::default();
        for atom in values.iter().rev() {
            one_by_one.insert(atom.clone());
        }
        prop_assert_eq!(&at_once, &one_by_one);
        for atom in &values {
            prop_assert!(at_once.contains(atom));
        }
    }

    #[test]
    fn the_last_of_equal_keys_wins(pairs in prop::collection::vec((0_i64..5, any::<i64>()), 0..12)) {
        let at_once: AtomMap = pairs.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect();
        let mut one_by_one = AtomMap::default();
        for (k, v) in pairs {
            one_by_one.insert(k.into(), v.into());
        }
        prop_assert_eq!(at_once, one_by_one);
    }

    /// However the bytes are cut up, the same messages come out.
    #[test]
    fn frames_do_not_depend_on_reads(
        texts in prop::collection::vec(any::<String>(), 1..6),
        cuts in prop::collection::vec(1_usize..7, 1..40),
    ) {
        let mut stream = Vec::new();
        let mut expected = Vec::new();
        for text in &texts {
            let message = serde_json::json!({"{": text, "\"}\\": [{}, {"x": [text]}]});
            let message = serde_json::to_vec(&message).unwrap();
            stream.extend_from_slice(&message);
            stream.push(b'\n');
            expected.push(message);
        }
        let mut frames = FrameBuffer::new(1 << 20);
        let mut found = Vec::new();
        let mut rest = stream.as_slice();
        for cut in cuts.iter().cycle() {
            if rest.is_empty() {
                break;
            }
            let (now, later) = rest.split_at((*cut).min(rest.len()));
            frames.extend(now);
            rest = later;
            while let Some(frame) = frames.next_frame().unwrap() {
                found.push(frame.to_vec());
            }
        }
        prop_assert_eq!(found, expected);
        prop_assert!(frames.pending() <= 1, "at most the last newline is left");
    }

    #[test]
    fn arbitrary_bytes_do_no_harm(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let mut frames = FrameBuffer::new(100);
        frames.extend(&bytes);
        while let Ok(Some(frame)) = frames.next_frame() {
            let _ = Incoming::parse(frame);
            let _ = serde_json::from_slice::<TableUpdates2>(frame);
        }
    }
}

/// Rows of a table with columns of all shapes.
fn nb_row() -> impl Strategy<Value = Row> {
    (
        prop::option::of("[a-c]{0,2}"),
        prop::collection::vec("[a-c]{1,2}", 0..5),
        prop::collection::vec(("[a-c]", "[a-c]"), 0..5),
        prop::option::of(0_i64..4),
        prop::option::of(any::<bool>()),
    )
        .prop_map(|(name, addresses, ids, tag, up)| {
            let mut row = Row::new()
                .with("addresses", Datum::set(addresses))
                .with("external_ids", Datum::map(ids))
                .with("tag", Datum::optional(tag))
                .with("up", Datum::optional(up));
            if let Some(name) = name {
                row.insert("name", name);
            }
            row
        })
}

#[test]
fn reads_the_notation_of_section_5_1() {
    let uuid = "550e8400-e29b-41d4-a716-446655440000";
    let read = |text: &str| serde_json::from_str::<Datum>(text).unwrap();
    assert_eq!(read("1"), Datum::from(1_i64));
    assert_eq!(read("1.5"), Datum::from(1.5));
    assert_eq!(read("-0.0"), Datum::from(0.0));
    assert_eq!(read(r#""a\"\u00e9""#), Datum::from("a\"é"));
    assert_eq!(
        read(&format!(r#"["uuid","{uuid}"]"#)),
        Datum::from(uuid.parse::<Uuid>().unwrap())
    );
    assert_eq!(read(r#"["set",[]]"#), Datum::empty());
    assert_eq!(read(r#"["set",[2,1,2]]"#), Datum::set([1_i64, 2]));
    assert_eq!(read(r#"["set",[7]]"#), Datum::from(7_i64));
    assert_eq!(
        read(r#"["map",[["b","2"],["a","1"]]]"#),
        Datum::map([("a", "1"), ("b", "2")])
    );
    assert_ne!(Datum::empty(), Datum::empty_map());
    for wrong in [
        "null",
        "[]",
        "{}",
        r#"["uuid"]"#,
        r#"["uuid","x"]"#,
        r#"["set",1]"#,
        r#"["set",[],[]]"#,
        r#"["set",[["set",[]]]]"#,
        r#"["map",[["a"]]]"#,
        "18446744073709551615",
        r#"["bag",[]]"#,
    ] {
        assert!(serde_json::from_str::<Datum>(wrong).is_err(), "{wrong}");
    }
}

#[test]
fn writes_operations_as_section_5_2_has_them() {
    let uuid = Uuid::from_u128(1);
    let json = |operation: &Operation| serde_json::to_value(operation).unwrap();
    assert_eq!(
        json(&Operation::insert(
            "T",
            uuid,
            Row::new().with("c", Datum::set(["a", "b"]))
        )),
        serde_json::json!({
            "op": "insert", "table": "T", "uuid": uuid.to_string(), "row": {"c": ["set", ["a", "b"]]}
        })
    );
    // A set of one key stays a set: a bare atom would not be read as keys.
    assert_eq!(
        json(&Operation::mutate(
            "T",
            Condition::row(uuid),
            vec![Mutation::delete_keys("m", ["k"])]
        )),
        serde_json::json!({
            "op": "mutate", "table": "T", "where": [["_uuid", "==", ["uuid", uuid.to_string()]]],
            "mutations": [["m", "delete", ["set", ["k"]]]]
        })
    );
    assert_eq!(
        json(&Operation::delete("T", Condition::Always(true))),
        serde_json::json!({"op": "delete", "table": "T", "where": [true]})
    );
    let operations = vec![
        Operation::insert_named(
            "T",
            "row0",
            Row::new().with("c", Datum::Atom(Atom::NamedUuid("row1".into()))),
        ),
        Operation::update("T", Condition::includes("c", 1_i64), Row::new()),
        Operation::require(
            "T",
            vec![],
            vec!["c".into()],
            ovsdb::wire::Until::NotEqual,
            vec![],
        ),
        Operation::Commit { durable: true },
        Operation::Abort,
        Operation::comment("why"),
        Operation::Assert { lock: "l".into() },
    ];
    let text = serde_json::to_string(&operations).unwrap();
    assert_eq!(
        serde_json::from_str::<Vec<Operation>>(&text).unwrap(),
        operations
    );
}

#[test]
fn reads_results() {
    let text = r#"[{"uuid":["uuid","00000000-0000-0000-0000-000000000001"]},{"count":2},{},
        {"rows":[{"name":"x"}]},{"error":"timed out","details":"wait"},null]"#;
    let outcomes: Vec<OpOutcome> = serde_json::from_str(text).unwrap();
    let done = |i: usize| match &outcomes[i] {
        OpOutcome::Done(result) => result.clone(),
        other => panic!("{other:?}"),
    };
    assert_eq!(done(0).uuid, Some(Uuid::from_u128(1)));
    assert_eq!(done(1).count, Some(2));
    assert_eq!(done(2), ovsdb::wire::OpResult::default());
    assert_eq!(done(3).rows.unwrap()[0].str("name"), "x");
    assert!(matches!(&outcomes[4], OpOutcome::Error(e) if e.to_string() == "timed out: wait"));
    assert_eq!(outcomes[5], OpOutcome::NotRun(()));
}

#[test]
fn reads_the_schemas_of_the_distribution() {
    let nb = northbound();
    assert_eq!(nb.name, "OVN_Northbound");
    let switch = &nb.tables["Logical_Switch"];
    assert!(switch.is_root && !nb.tables["ACL"].is_root);
    let ports = &switch.columns["ports"].ty;
    assert!(ports.sends_difference() && !ports.is_map() && !ports.is_optional());
    assert_eq!(ports.key.ref_table.as_deref(), Some("Logical_Switch_Port"));
    assert_eq!(ports.key.ref_type, RefType::Strong);
    assert!(switch.columns["external_ids"].ty.is_map());
    assert!(switch.columns["name"].ty.is_scalar());
    let port = &nb.tables["Logical_Switch_Port"];
    assert!(port.columns["tag"].ty.is_optional());
    assert_eq!(port.columns["tag"].ty.key.max_integer, Some(4095));
    assert_eq!(port.indexes, [["name"]]);
    let action = &nb.tables["ACL"].columns["action"].ty.key;
    assert!(action.allowed.contains(&Atom::from("allow-related")));
    assert_eq!(
        nb.tables["Port_Group"].columns["name"].ty.default_datum(),
        Datum::from("")
    );
    schema("/usr/share/ovn/ovn-sb.ovsschema");
    let ovs = schema("/usr/share/openvswitch/vswitch.ovsschema");
    assert_eq!(
        ovs.tables["Interface"].columns["statistics"]
            .ty
            .default_datum(),
        Datum::empty_map()
    );
}

#[test]
fn a_normal_row_has_types_and_no_defaults() {
    let schema: DatabaseSchema = serde_json::from_value(serde_json::json!({
        "name": "D", "version": "1.0.0", "tables": {"T": {"columns": {
            "real": {"type": "real"},
            "reals": {"type": {"key": "real", "min": 0, "max": "unlimited"}},
            "load": {"type": {"key": "string", "value": "real", "min": 0, "max": "unlimited"}},
            "name": {"type": "string"},
            "flag": {"type": "boolean", "mutable": false},
            "ids": {"type": {"key": "string", "value": "string", "min": 0, "max": "unlimited"}},
        }}}
    }))
    .unwrap();
    let table = &schema.tables["T"];
    assert!(!table.columns["flag"].mutable);
    let row: Row = serde_json::from_str(
        r#"{"real":1,"reals":["set",[1,2.5]],"load":["map",[["a",3]]],"name":"","flag":false,"ids":["map",[]],"new":7}"#,
    )
    .unwrap();
    assert_eq!(
        table.normalize_row(row),
        Row::new()
            .with("real", 1.0)
            .with("reals", Datum::set([1.0, 2.5]))
            .with("load", Datum::map([("a", 3.0)]))
    );
}

#[test]
fn reads_updates() {
    let text = r#"{"T":{"00000000-0000-0000-0000-000000000001":{"insert":{"a":1}},
        "00000000-0000-0000-0000-000000000002":{"delete":null},
        "00000000-0000-0000-0000-000000000003":{"modify":{"a":["set",[1,2]]}},
        "00000000-0000-0000-0000-000000000004":{"initial":{}}}}"#;
    let updates: TableUpdates2 = serde_json::from_str(text).unwrap();
    let (table, rows) = &updates.0[0];
    assert_eq!(table, "T");
    let kinds: Vec<_> = rows.0.iter().map(|(_, update)| update.clone()).collect();
    assert_eq!(
        kinds,
        [
            RowUpdate2::Insert(Row::new().with("a", 1_i64)),
            RowUpdate2::Delete,
            RowUpdate2::Modify(Row::new().with("a", Datum::set([1_i64, 2]))),
            RowUpdate2::Initial(Row::new()),
        ]
    );
    assert!(serde_json::from_str::<RowUpdate2>(r#"{"insert":{},"delete":null}"#).is_err());
    assert!(serde_json::from_str::<RowUpdate2>("{}").is_err());
}

#[test]
fn frames_have_a_limit_and_begin_with_a_brace() {
    let mut frames = FrameBuffer::new(10);
    frames.extend(b" \r\n{}x");
    assert_eq!(frames.next_frame(), Ok(Some(&b"{}"[..])));
    assert_eq!(frames.next_frame(), Err(FramingError::Garbage(b'x')));
    let mut frames = FrameBuffer::new(10);
    frames.extend(b"{\"0123456789");
    assert_eq!(frames.next_frame(), Err(FramingError::TooLong(10)));
}

#[test]
fn tells_messages_apart() {
    let echo = br#"{"id":"echo","method":"echo","params":[]}"#;
    assert!(matches!(
        Incoming::parse(echo).unwrap(),
        Incoming::Request { method, id, .. } if method == "echo" && id.get() == "\"echo\""
    ));
    let update = br#"{"id":null,"method":"update3","params":["m"]}"#;
    assert!(matches!(
        Incoming::parse(update).unwrap(),
        Incoming::Notification { method, .. } if method == "update3"
    ));
    let reply = br#"{"id":7,"result":{},"error":null}"#;
    assert!(matches!(
        Incoming::parse(reply).unwrap(),
        Incoming::Reply {
            id: 7,
            result: Ok(_)
        }
    ));
    let refusal = br#"{"id":7,"result":null,"error":"unknown method"}"#;
    assert!(matches!(
        Incoming::parse(refusal).unwrap(),
        Incoming::Reply {
            id: 7,
            result: Err(_)
        }
    ));
    assert!(Incoming::parse(b"{}").is_err());
}

#[test]
fn a_schema_that_was_written_reads_back_equal() {
    let files = concat!(env!("CARGO_MANIFEST_DIR"), "/../ovn/schemas");
    let mut compared = 0;
    for release in fs::read_dir(files).unwrap() {
        for file in fs::read_dir(release.unwrap().path()).unwrap() {
            let read = schema(file.unwrap().path().to_str().unwrap());
            let written = serde_json::to_string(&read).unwrap();
            assert_eq!(
                serde_json::from_str::<DatabaseSchema>(&written).unwrap(),
                read
            );
            compared += 1;
        }
    }
    assert!(compared >= 6);
    // What no schema of OVN has.
    let text = r#"{"name":"D","version":"1.0.0","tables":{"T":{"columns":{"c":{
        "type":{"key":{"type":"real","minReal":-1.5,"maxReal":2},"value":{"type":"string","minLength":1,"maxLength":9},
                "min":1,"max":7},
        "ephemeral":true,"mutable":false}},"maxRows":3,"indexes":[["c"]]}}}"#;
    let read: DatabaseSchema = serde_json::from_str(text).unwrap();
    let written = serde_json::to_value(&read).unwrap();
    assert_eq!(
        serde_json::from_value::<DatabaseSchema>(written.clone()).unwrap(),
        read
    );
    let value = &written["tables"]["T"]["columns"]["c"]["type"]["value"];
    assert_eq!(
        *value,
        serde_json::json!({"type": "string", "minLength": 1, "maxLength": 9})
    );
}
