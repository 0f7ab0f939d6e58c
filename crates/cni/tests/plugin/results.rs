//! What each verb asks the daemon, and what it gives to the runtime.

use api::cni::{
    self, Attachment, CheckRequest, Dns, GcRequest, Request, Route, StatusRequest, code,
};
use serde_json::{Value, json};

use crate::harness::{Daemon, dual, run, run_with};

#[test]
fn add_says_everything_to_the_daemon() {
    let daemon = Daemon::answering(200, &dual());
    let mut config = daemon.config("1.1.0");
    config["provider"] = json!("net1.shop.ovn");
    config["routes"] = json!([{ "dst": "1.2.3.0/24", "gw": "10.16.0.254" }]);
    config["dns"] = json!({ "nameservers": ["10.68.0.10"], "search": ["svc"] });
    config["deviceID"] = json!("0000:01:00.0");
    config["vf_driver"] = json!("vfio-pci");
    config["runtimeConfig"] = json!({ "portMappings": [] });
    assert!(run("ADD", &config).success);
    assert_eq!(
        daemon.saw::<Request>(cni::PATH_ADD),
        Request {
            cni_type: "kube-ovn".into(),
            pod_name: "web-0".into(),
            pod_namespace: "shop".into(),
            container_id: "c0ffee".into(),
            net_ns: "/var/run/netns/cni-1".into(),
            if_name: "eth0".into(),
            provider: "net1.shop.ovn".into(),
            routes: vec![Route {
                dst: "1.2.3.0/24".into(),
                gw: "10.16.0.254".into()
            }],
            dns: Dns {
                nameservers: vec!["10.68.0.10".into()],
                search: vec!["svc".into()],
                ..Dns::default()
            },
            vf_driver: "vfio-pci".into(),
            device_id: "0000:01:00.0".into(),
            ..Request::default()
        }
    );
}

#[test]
fn the_daemon_learns_which_pod_of_that_name_it_is() {
    let uid = |arguments: &str| {
        let daemon = Daemon::answering(200, &dual());
        let config = daemon.config("1.1.0");
        run_with("ADD", &config, &[("CNI_ARGS", arguments)]);
        daemon.saw::<Value>(cni::PATH_ADD)["pod_uid"].clone()
    };
    let named = "K8S_POD_NAMESPACE=shop;K8S_POD_NAME=web-0";
    assert_eq!(uid(named), Value::Null);
    assert_eq!(uid(&format!("{named};K8S_POD_UID=u-1")), json!("u-1"));
}

#[test]
fn add_gives_the_result_of_each_version() {
    let daemon = Daemon::answering(200, &dual());
    let result = |version: &str| run("ADD", &daemon.config(version)).result();

    assert_eq!(
        result("1.1.0"),
        json!({
            "cniVersion": "1.1.0",
            "interfaces": [{
                "name": "eth0", "mac": "00:00:00:53:6b:b6", "mtu": 1400, "sandbox": "/var/run/netns/cni-1",
            }],
            "ips": [
                { "interface": 0, "address": "10.16.0.12/16", "gateway": "10.16.0.1" },
                { "interface": 0, "address": "fd00:10:16::c/112", "gateway": "fd00:10:16::1" },
            ],
            "routes": [{ "dst": "0.0.0.0/0", "gw": "10.16.0.1" }, { "dst": "::/0", "gw": "fd00:10:16::1" }],
            "dns": {},
        })
    );

    let mut older = result("1.1.0");
    older["cniVersion"] = json!("1.0.0");
    older["interfaces"][0]
        .as_object_mut()
        .unwrap()
        .remove("mtu");
    assert_eq!(result("1.0.0"), older, "1.0.0 has no mtu");

    older["ips"][0]["version"] = json!("4");
    older["ips"][1]["version"] = json!("6");
    for version in ["0.4.0", "0.3.1", "0.3.0"] {
        older["cniVersion"] = json!(version);
        assert_eq!(result(version), older, "addresses had versions");
    }

    let oldest = json!({
        "cniVersion": "0.2.0",
        "ip4": { "ip": "10.16.0.12/16", "gateway": "10.16.0.1", "routes": [{ "dst": "0.0.0.0/0", "gw": "10.16.0.1" }] },
        "ip6": { "ip": "fd00:10:16::c/112", "gateway": "fd00:10:16::1", "routes": [{ "dst": "::/0", "gw": "fd00:10:16::1" }] },
        "dns": {},
    });
    assert_eq!(result("0.2.0"), oldest);
    let mut without = daemon.config("");
    without.as_object_mut().unwrap().remove("cniVersion");
    assert_eq!(
        run("ADD", &without).result()["cniVersion"],
        "0.1.0",
        "a configuration without a version is of the first"
    );
}

#[test]
fn routes_of_the_daemon_replace_the_default_routes() {
    let mut response = dual();
    response.routes = vec![
        Route {
            dst: "192.0.2.0/24".into(),
            gw: "10.16.0.1".into(),
        },
        Route {
            dst: String::new(),
            gw: "fd00:10:16::1".into(),
        },
    ];
    let daemon = Daemon::answering(200, &response);
    assert_eq!(
        run("ADD", &daemon.config("1.0.0")).result()["routes"],
        json!([{ "dst": "192.0.2.0/24", "gw": "10.16.0.1" }, { "dst": "::/0", "gw": "fd00:10:16::1" }])
    );
}

#[test]
fn an_address_without_gateway_gets_no_route() {
    let mut response = dual();
    response.ips.pop();
    response.ips[0].gateway = None;
    let daemon = Daemon::answering(200, &response);
    let mut config = daemon.config("1.0.0");
    config["routes"] = Value::Null;
    config["ipam"] = Value::Null;
    config["dns"] = json!({ "nameservers": ["10.68.0.10"] });
    let result = run("ADD", &config).result();
    assert_eq!(result.get("routes"), None);
    assert_eq!(
        result["ips"],
        json!([{ "interface": 0, "address": "10.16.0.12/16" }])
    );
    assert_eq!(result["dns"], json!({ "nameservers": ["10.68.0.10"] }));
}

#[test]
fn another_plugin_may_ask_for_addresses_only() {
    let mut response = dual();
    response.nicname = String::new();
    response.mac_address = None;
    let daemon = Daemon::answering(200, &response);
    let config = json!({
        "cniVersion": "1.0.0", "name": "mac", "type": "macvlan", "master": "eth1",
        "ipam": {
            "type": "kube-ovn", "server_socket": daemon.socket(), "provider": "mac.shop",
            "routes": [{ "dst": "1.2.3.0/24" }],
        },
    });
    let result = run("ADD", &config).result();
    assert_eq!(
        result.get("interfaces"),
        None,
        "the interface is the other plugin's"
    );
    assert_eq!(
        result["ips"][0],
        json!({ "address": "10.16.0.12/16", "gateway": "10.16.0.1" })
    );
    let request: Request = daemon.saw(cni::PATH_ADD);
    assert_eq!(
        (
            &*request.cni_type,
            &*request.provider,
            &*request.routes[0].dst
        ),
        ("macvlan", "mac.shop", "1.2.3.0/24")
    );
}

#[test]
fn del_says_enough_to_find_what_is_left() {
    let daemon = Daemon::done();
    let mut config = daemon.config("0.3.1");
    config["prevResult"] = json!({ "cniVersion": "0.3.1", "ips": [] });
    let output = run("DEL", &config);
    assert!(output.success && output.stdout.is_empty(), "{output:?}");
    let request: Request = daemon.saw(cni::PATH_DEL);
    assert_eq!(
        (
            &*request.pod_name,
            &*request.container_id,
            &*request.if_name
        ),
        ("web-0", "c0ffee", "eth0")
    );
    // Again, and when namespace and pod are unknown: as often as the runtime likes.
    for arguments in ["", "nonsense"] {
        let output = run_with(
            "DEL",
            &config,
            &[("CNI_NETNS", ""), ("CNI_ARGS", arguments)],
        );
        assert!(output.success, "{output:?}");
        let request: Request = daemon.saw(cni::PATH_DEL);
        assert_eq!((&*request.net_ns, &*request.container_id), ("", "c0ffee"));
    }
}

#[test]
fn check_sends_what_add_returned() {
    let daemon = Daemon::done();
    let mut config = daemon.config("1.0.0");
    config["prevResult"] = json!({
        "cniVersion": "1.0.0",
        "interfaces": [
            { "name": "vethhost" },
            { "name": "eth0", "mac": "00:00:00:53:6b:b6", "sandbox": "/var/run/netns/cni-1" },
            { "name": "net1", "mac": "00:00:00:00:00:01", "sandbox": "/var/run/netns/cni-1" },
        ],
        "ips": [
            { "interface": 1, "address": "10.16.0.12/16", "gateway": "10.16.0.1" },
            { "interface": 2, "address": "192.0.2.1/24" },
            { "interface": 1, "address": "fd00:10:16::c/112" },
        ],
    });
    assert!(run("CHECK", &config).success);
    let request: CheckRequest = daemon.saw(cni::PATH_CHECK);
    assert_eq!(request.request.pod_name, "web-0");
    assert_eq!(request.addresses, ["10.16.0.12/16", "fd00:10:16::c/112"]);
    assert_eq!(request.mac_address, "00:00:00:53:6b:b6");

    config.as_object_mut().unwrap().remove("prevResult");
    let (code, text) = run("CHECK", &config).error();
    assert_eq!(code, code::INVALID_NETWORK_CONFIG);
    assert!(text.contains("prevResult"), "{text}");
}

#[test]
fn gc_sends_what_is_still_valid() {
    let daemon = Daemon::done();
    let nothing: &[(&str, &str)] = &[
        ("CNI_CONTAINERID", ""),
        ("CNI_NETNS", ""),
        ("CNI_IFNAME", ""),
        ("CNI_ARGS", ""),
    ];
    for key in ["cni.dev/valid-attachments", "cni.dev/attachments"] {
        let mut config = daemon.config("1.1.0");
        config[key] = json!([{ "containerID": "c0ffee", "ifname": "eth0" }]);
        let output = run_with("GC", &config, nothing);
        assert!(output.success && output.stdout.is_empty(), "{output:?}");
        assert_eq!(
            daemon.saw::<GcRequest>(cni::PATH_GC),
            GcRequest {
                cni_type: "kube-ovn".into(),
                network: "kube-ovn".into(),
                provider: "ovn".into(),
                valid_attachments: vec![Attachment {
                    container_id: "c0ffee".into(),
                    if_name: "eth0".into()
                }],
            }
        );
    }
    // libcni writes a list of nothing as null.
    let mut config = daemon.config("1.1.0");
    config["cni.dev/valid-attachments"] = Value::Null;
    assert!(run_with("GC", &config, nothing).success);
    let request: GcRequest = daemon.saw(cni::PATH_GC);
    assert!(request.valid_attachments.is_empty());
    // Without the list, everything would go.
    let (code, text) = run_with("GC", &daemon.config("1.1.0"), nothing).error();
    assert_eq!(code, code::INVALID_NETWORK_CONFIG);
    assert!(text.contains("valid-attachments"), "{text}");
}

#[test]
fn status_asks_the_daemon() {
    let daemon = Daemon::done();
    let output = run_with(
        "STATUS",
        &daemon.config("1.1.0"),
        &[("CNI_CONTAINERID", ""), ("CNI_IFNAME", "")],
    );
    assert!(output.success && output.stdout.is_empty(), "{output:?}");
    assert_eq!(
        daemon.saw::<StatusRequest>(cni::PATH_STATUS),
        StatusRequest {
            cni_type: "kube-ovn".into(),
            provider: "ovn".into()
        }
    );
}
