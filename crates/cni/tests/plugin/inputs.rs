//! Environments and configurations, right and wrong.

use std::collections::BTreeMap;

use api::cni::code;
use serde_json::json;

use crate::harness::{Daemon, POD, execute, run, run_with};

#[test]
fn verbs_are_refused_in_configurations_that_are_older_than_they() {
    let daemon = Daemon::done();
    for (verb, version) in [
        ("CHECK", "0.3.1"),
        ("GC", "1.0.0"),
        ("STATUS", "1.0.0"),
        ("STATUS", "0.3.1"),
    ] {
        let (code, text) = run(verb, &daemon.config(version)).error();
        assert_eq!(code, code::INCOMPATIBLE_VERSION, "{verb} {version}");
        assert!(text.contains(verb), "{text}");
    }
}

#[test]
fn wrong_environments_name_the_variable() {
    let daemon = Daemon::done();
    let config = daemon.config("0.3.1");
    for (verb, changes, named) in [
        ("ADD", &[("CNI_CONTAINERID", "")][..], "CNI_CONTAINERID"),
        ("ADD", &[("CNI_CONTAINERID", "-x")], "CNI_CONTAINERID"),
        ("ADD", &[("CNI_CONTAINERID", "a/b")], "CNI_CONTAINERID"),
        ("ADD", &[("CNI_NETNS", "")], "CNI_NETNS"),
        ("ADD", &[("CNI_IFNAME", "")], "CNI_IFNAME"),
        ("ADD", &[("CNI_IFNAME", "a/b")], "CNI_IFNAME"),
        ("ADD", &[("CNI_IFNAME", "sixteen-letters-")], "CNI_IFNAME"),
        ("ADD", &[("CNI_IFNAME", "..")], "CNI_IFNAME"),
        ("ADD", &[("CNI_ARGS", "")], "K8S_POD_NAME"),
        (
            "ADD",
            &[("CNI_ARGS", "K8S_POD_NAME=a")],
            "K8S_POD_NAMESPACE",
        ),
        ("ADD", &[("CNI_ARGS", "nonsense")], "CNI_ARGS"),
        ("DEL", &[("CNI_IFNAME", "")], "CNI_IFNAME"),
        ("HELLO", &[], "HELLO"),
    ] {
        let (code, text) = run_with(verb, &config, changes).error();
        assert_eq!(code, code::INVALID_ENVIRONMENT, "{changes:?}: {text}");
        assert!(text.contains(named), "{text}");
    }
}

#[test]
fn wrong_configurations_say_what_is_wrong() {
    let environment = BTreeMap::from([
        ("CNI_COMMAND", "ADD"),
        ("CNI_CONTAINERID", "c"),
        ("CNI_NETNS", "/n"),
        ("CNI_IFNAME", "eth0"),
        ("CNI_ARGS", POD),
    ]);
    for (stdin, expected, named) in [
        ("", code::DECODING_FAILURE, "EOF"),
        ("{", code::DECODING_FAILURE, "EOF"),
        (r#"{"name": 3}"#, code::DECODING_FAILURE, "string"),
        (
            r#"{"cniVersion":"2.0.0","name":"n"}"#,
            code::INCOMPATIBLE_VERSION,
            "2.0.0",
        ),
        (
            r#"{"cniVersion":"1.0.0","type":"kube-ovn","server_socket":"/s"}"#,
            code::INVALID_NETWORK_CONFIG,
            "name",
        ),
        (
            r#"{"cniVersion":"1.0.0","name":"n","type":"kube-ovn"}"#,
            code::INVALID_NETWORK_CONFIG,
            "server_socket",
        ),
        (
            r#"{"cniVersion":"1.0.0","name":"n","type":"macvlan","server_socket":"/s","ipam":{}}"#,
            code::INVALID_NETWORK_CONFIG,
            "server_socket",
        ),
    ] {
        let output = execute(&environment, stdin);
        let (code, text) = output.error();
        assert_eq!(code, expected, "{stdin}: {text}");
        assert!(text.contains(named), "{text}");
    }
    let refused = execute(&environment, r#"{"cniVersion":"0.4.0"}"#).json();
    assert_eq!(
        refused["cniVersion"], "0.4.0",
        "an error is of the configuration's version"
    );
}

#[test]
fn version_lists_the_versions() {
    let all = json!([
        "0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"
    ]);
    for (asked, answered) in [("0.4.0", "0.4.0"), ("9.9.9", "1.1.0"), ("", "1.1.0")] {
        let output = run("VERSION", &json!({ "cniVersion": asked }));
        assert_eq!(
            output.result(),
            json!({ "cniVersion": answered, "supportedVersions": all })
        );
    }
    let environment = BTreeMap::from([("CNI_COMMAND", "VERSION")]);
    assert!(execute(&environment, "").success, "also without any input");
}

#[test]
fn without_a_command_the_program_introduces_itself() {
    let output = execute(&BTreeMap::new(), "");
    assert!(output.success && output.stdout.is_empty());
    assert!(output.stderr.contains("CNI kube-ovn plugin"), "{output:?}");
    assert!(output.stderr.contains("1.1.0"), "{output:?}");
}
