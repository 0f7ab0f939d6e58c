//! The control plane on the first node, and what every node runs: containerd, kubelet, kube-proxy.
//!
//! Flags follow what was measured to be fast and to work without systemd: etcd without fsync (a lab's data dies with
//! the lab), no priority-and-fairness, a short list of admission plugins less.

use std::fmt::Write as _;
use std::fs;
use std::time::Duration;

use anyhow::{Context as _, Result};
use serde_json::Value;

use crate::cgroup;
use crate::command::{capture, capture_with_input};
use crate::lab::{Cni, DNS, DNS6, Lab, Launch, Node, OUTSIDE, REGISTRY, write_if_changed};

/// Admission plugins that a lab does without; each costs a look-up per request.
const WITHOUT: &str = "StorageObjectInUseProtection,CertificateApproval,CertificateSigning,\
CertificateSubjectRestriction,DefaultIngressClass,PersistentVolumeClaimResize,RuntimeClass,TaintNodesByCondition,\
PodSecurity,ClusterTrustBundleAttest,NodeDeclaredFeatureValidator";

/// Start etcd and the API server; returns when the API server is ready.
pub fn api(lab: &Lab) -> Result<()> {
    let first = lab.first()?;
    let program = |name: &str| lab.spec.kubernetes.join(name).display().to_string();
    lab.ensure(
        &Launch::on(first, "etcd", &program("etcd"))
            .args(["--name=lab", "--unsafe-no-fsync", "--log-level=warn"])
            .arg(format!("--data-dir={}", lab.dir.join("etcd").display()))
            .args([
                "--listen-client-urls=http://127.0.0.1:2379",
                "--advertise-client-urls=http://127.0.0.1:2379",
            ])
            .args([
                "--listen-peer-urls=http://127.0.0.1:2380",
                "--initial-advertise-peer-urls=http://127.0.0.1:2380",
            ])
            .arg("--initial-cluster=lab=http://127.0.0.1:2380")
            // One member elects itself: as fast as it may.
            .args(["--heartbeat-interval=10", "--election-timeout=50"]),
    )?;
    let pki = |file: &str| lab.pki(file).display().to_string();
    lab.ensure(
        &Launch::on(first, "kube-apiserver", &program("kube-apiserver"))
            .arg("--etcd-servers=http://127.0.0.1:2379")
            .args(["--bind-address=0.0.0.0", "--secure-port=6443"])
            .arg(format!("--advertise-address={}", first.address()))
            .arg(format!(
                "--service-cluster-ip-range={}",
                lab.spec.services()
            ))
            .arg("--authorization-mode=Node,RBAC")
            .arg(format!("--client-ca-file={}", pki("ca.crt")))
            .arg(format!("--tls-cert-file={}", pki("apiserver.crt")))
            .arg(format!("--tls-private-key-file={}", pki("apiserver.key")))
            .arg("--service-account-issuer=https://kubernetes.default.svc.cluster.local")
            .arg(format!("--service-account-key-file={}", pki("sa.pub")))
            .arg(format!(
                "--service-account-signing-key-file={}",
                pki("sa.key")
            ))
            .arg(format!(
                "--kubelet-client-certificate={}",
                pki("kubelet-client.crt")
            ))
            .arg(format!(
                "--kubelet-client-key={}",
                pki("kubelet-client.key")
            ))
            .arg(format!("--kubelet-certificate-authority={}", pki("ca.crt")))
            // Node names do not resolve in a lab.
            .arg("--kubelet-preferred-address-types=InternalIP")
            .arg(format!(
                "--requestheader-client-ca-file={}",
                pki("front-proxy-ca.crt")
            ))
            .arg("--requestheader-allowed-names=front-proxy-client")
            .arg("--requestheader-extra-headers-prefix=X-Remote-Extra-")
            .arg("--requestheader-group-headers=X-Remote-Group")
            .arg("--requestheader-username-headers=X-Remote-User")
            .arg(format!(
                "--proxy-client-cert-file={}",
                pki("front-proxy-client.crt")
            ))
            .arg(format!(
                "--proxy-client-key-file={}",
                pki("front-proxy-client.key")
            ))
            .args([
                "--enable-aggregator-routing=true",
                "--allow-privileged=true",
                "--profiling=false",
            ])
            .args([
                "--endpoint-reconciler-type=master-count",
                "--enable-priority-and-fairness=false",
            ])
            .args([
                "--max-requests-inflight=0",
                "--max-mutating-requests-inflight=0",
            ])
            .arg(format!("--disable-admission-plugins={WITHOUT}")),
    )?;
    let processes = [("etcd", &first.name), ("kube-apiserver", &first.name)];
    lab.wait_with(&processes, "the API server", Duration::from_mins(1), || {
        kubectl(lab, &["get", "--raw", "/readyz"]).map(Some)
    })?;
    Ok(())
}

/// Start controller-manager and scheduler. They retry until the API server is there.
pub fn managers(lab: &Lab) -> Result<()> {
    let first = lab.first()?;
    let program = |name: &str| lab.spec.kubernetes.join(name).display().to_string();
    let common = |component: &str| {
        let file = lab
            .pki(&format!("{component}.kubeconfig"))
            .display()
            .to_string();
        [
            format!("--kubeconfig={file}"),
            format!("--authentication-kubeconfig={file}"),
            format!("--authorization-kubeconfig={file}"),
            "--bind-address=127.0.0.1".to_owned(),
            "--leader-elect=false".to_owned(),
            "--kube-api-qps=500".to_owned(),
            "--kube-api-burst=1000".to_owned(),
        ]
    };
    let pki = |file: &str| lab.pki(file).display().to_string();
    lab.ensure(
        &Launch::on(
            first,
            "kube-controller-manager",
            &program("kube-controller-manager"),
        )
        .args(common("kube-controller-manager"))
        .arg(format!("--root-ca-file={}", pki("ca.crt")))
        .arg(format!(
            "--service-account-private-key-file={}",
            pki("sa.key")
        ))
        .arg("--use-service-account-credentials=true")
        .arg(format!("--cluster-signing-cert-file={}", pki("ca.crt")))
        .arg(format!("--cluster-signing-key-file={}", pki("ca.key"))),
    )?;
    lab.ensure(
        &Launch::on(first, "kube-scheduler", &program("kube-scheduler"))
            .args(common("kube-scheduler")),
    )?;
    Ok(())
}

/// Run kubectl and return what it prints.
pub fn kubectl(lab: &Lab, args: &[&str]) -> Result<String> {
    capture(lab.kubectl()?.args(args))
}

/// Apply a manifest.
pub fn apply(lab: &Lab, manifest: &str) -> Result<String> {
    capture_with_input(
        lab.kubectl()?
            .args(["apply", "--validate=false", "-f", "-"]),
        manifest,
    )
    .context("cannot apply a manifest")
}

/// `kubectl get ARGS -o json`.
pub fn get(lab: &Lab, args: &[&str]) -> Result<Value> {
    let text = capture(lab.kubectl()?.arg("get").args(args).args(["-o", "json"]))?;
    serde_json::from_str(&text).context("kubectl did not print JSON")
}

/// The Node object, made before the kubelet comes: a kubelet may not set labels of our domain itself.
pub fn node_manifest(node: &Node) -> String {
    format!(
        "apiVersion: v1\nkind: Node\nmetadata:\n  name: {}\n  labels:\n    \
         ovn.kubernetes.io/ovs_dp_type: userspace\n    kubernetes.io/os: linux\n---\n",
        node.name
    )
}

/// containerd on a node, with the lab's registry as its mirror for everything.
pub fn containerd(lab: &Lab, node: &Node) -> Result<()> {
    let conf = lab.node_path(&node.name, "conf");
    // `_default` serves what no other folder names: the lab's registry first, the image's own one after it.
    let mirrors = conf.join("certs.d/_default");
    fs::create_dir_all(&mirrors)?;
    fs::write(
        mirrors.join("hosts.toml"),
        format!("[host.\"http://{REGISTRY}\"]\n  capabilities = [\"pull\", \"resolve\"]\n"),
    )?;
    let file = conf.join("containerd.toml");
    write_if_changed(
        &file,
        &format!(
            r#"version = 2
root = "/var/lib/containerd"
state = "/run/containerd"
oom_score = 0
disabled_plugins = ["io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.zfs", "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.aufs", "io.containerd.internal.v1.opt", "io.containerd.tracing.processor.v1.otlp", "io.containerd.internal.v1.tracing"]

[grpc]
  address = "/run/containerd/containerd.sock"

[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{pause}"
  # Without CAP_SYS_RESOURCE nobody may lower an OOM score.
  restrict_oom_score_adj = true
  disable_apparmor = true
  disable_hugetlb_controller = true
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "overlayfs"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
      [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
        SystemdCgroup = false
        BinaryName = "{runc}"
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/opt/cni/bin"
    conf_dir = "/etc/cni/net.d"
  [plugins."io.containerd.grpc.v1.cri".registry]
    config_path = "{mirrors}"
"#,
            pause = crate::images::PAUSE,
            runc = crate::preflight::which("runc")
                .unwrap_or_else(|| "/usr/sbin/runc".into())
                .display(),
            mirrors = conf.join("certs.d").display(),
        ),
    )?;
    // Images that the lab's registry does not have come through the lab's door to the machine's network.
    let proxy = format!("http://{OUTSIDE}:{}", crate::relay::PROXY_PORT);
    lab.ensure(
        &Launch::on(node, "containerd", "containerd")
            .arg("-c")
            .arg(file.display().to_string())
            .env("HTTPS_PROXY", proxy)
            .env("NO_PROXY", "127.0.0.0/8,10.0.0.0/8,192.168.0.0/16"),
    )?;
    Ok(())
}

/// kubelet on a node; containerd may still be starting.
pub fn kubelet(lab: &Lab, node: &Node) -> Result<()> {
    let mut address = node.address().to_string();
    if lab.spec.dual_stack {
        address = format!("{address},{}", node.address6());
    }
    kubelet_at(lab, node, &address)
}

/// kubelet on a node that has these addresses (`--node-ip`).
pub fn kubelet_at(lab: &Lab, node: &Node, addresses: &str) -> Result<()> {
    let group = lab.cgroup(node);
    cgroup::make(&group)?;
    let conf = lab.node_path(&node.name, "conf");
    fs::create_dir_all(conf.join("manifests"))?;
    let file = conf.join("kubelet.yaml");
    let mut dns = format!("[{DNS}]");
    if lab.spec.dual_stack {
        dns = format!("[{DNS}, \"{DNS6}\"]");
    }
    write_if_changed(
        &file,
        &format!(
            r#"apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
address: "{any}"
port: 10250
readOnlyPort: 0
healthzPort: 10248
authentication: {{anonymous: {{enabled: false}}, webhook: {{enabled: true}}, x509: {{clientCAFile: {ca}}}}}
authorization: {{mode: Webhook}}
tlsCertFile: {crt}
tlsPrivateKeyFile: {key}
containerRuntimeEndpoint: unix:///run/containerd/containerd.sock
clusterDNS: {dns}
clusterDomain: cluster.local
resolvConf: /etc/resolv.conf
cgroupDriver: cgroupfs
cgroupRoot: /{group}
cgroupsPerQOS: true
enforceNodeAllocatable: [pods]
failSwapOn: false
failCgroupV1: false
makeIPTablesUtilChains: false
protectKernelDefaults: false
localStorageCapacityIsolation: true
staticPodPath: {manifests}
imageGCHighThresholdPercent: 100
evictionHard: {{memory.available: "50Mi", nodefs.available: "0%", imagefs.available: "0%", nodefs.inodesFree: "0%", imagefs.inodesFree: "0%"}}
registerNode: true
maxPods: 250
serializeImagePulls: false
kubeAPIQPS: 100
kubeAPIBurst: 200
nodeStatusUpdateFrequency: 5s
syncFrequency: 10s
shutdownGracePeriod: 0s
"#,
            any = if lab.spec.dual_stack { "::" } else { "0.0.0.0" },
            ca = lab.pki("ca.crt").display(),
            crt = lab.pki(&format!("{}.crt", node.name)).display(),
            key = lab.pki(&format!("{}.key", node.name)).display(),
            manifests = conf.join("manifests").display(),
        ),
    )?;
    let program = lab.spec.kubernetes.join("kubelet").display().to_string();
    lab.ensure(
        &Launch::on(node, "kubelet", &program)
            .arg(format!("--config={}", file.display()))
            .arg(format!(
                "--kubeconfig={}",
                lab.pki(&format!("{}.kubeconfig", node.name)).display()
            ))
            .arg(format!("--hostname-override={}", node.name))
            .arg(format!("--node-ip={addresses}"))
            .arg("--v=2"),
    )?;
    Ok(())
}

/// kube-proxy on a node.
pub fn proxy(lab: &Lab, node: &Node) -> Result<()> {
    let file = lab.node_path(&node.name, "conf/kube-proxy.yaml");
    let pods = lab.spec.pods();
    write_if_changed(
        &file,
        &format!(
            r#"apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
mode: nftables
clientConnection: {{kubeconfig: {kubeconfig}}}
hostnameOverride: {name}
clusterCIDR: "{pods}"
bindAddress: 0.0.0.0
# Connection tracking limits are the machine's, not a node's.
conntrack: {{maxPerCore: 0, min: 0, tcpEstablishedTimeout: 0s, tcpCloseWaitTimeout: 0s}}
nftables: {{minSyncPeriod: 100ms}}
"#,
            kubeconfig = lab.pki("kube-proxy.kubeconfig").display(),
            name = node.name,
        ),
    )?;
    let program = lab.spec.kubernetes.join("kube-proxy").display().to_string();
    lab.ensure(
        &Launch::on(node, "kube-proxy", &program).arg(format!("--config={}", file.display())),
    )?;
    Ok(())
}

/// The binding that lets the API server's client read kubelets is part of Kubernetes; kube-proxy's is too. Ours is here.
pub fn base_manifest(lab: &Lab) -> String {
    let mut manifest = lab.nodes.iter().map(node_manifest).collect::<String>();
    manifest += include_str!("manifests/kube-ovn-rbac.yaml");
    if lab.spec.dns {
        manifest += "---\n";
        let mut dns =
            include_str!("manifests/coredns.yaml").replace("@CLUSTER_IP@", &DNS.to_string());
        dns = if lab.spec.dual_stack {
            dns.replace(
                "@FAMILIES@",
                &format!("ipFamilyPolicy: RequireDualStack, clusterIPs: [{DNS}, \"{DNS6}\"],"),
            )
        } else {
            dns.replace("@FAMILIES@", "")
        };
        manifest += &dns.replace("@IMAGE@", crate::images::COREDNS);
    }
    manifest
}

/// Wait until every node is Ready; the end of a program that this depends on ends the waiting.
pub fn nodes_ready(lab: &Lab, limit: Duration) -> Result<()> {
    let names: Vec<String> = lab
        .nodes
        .iter()
        .map(|n| format!("node/{}", n.name))
        .collect();
    let mut processes: Vec<(&str, &String)> = Vec::new();
    for node in &lab.nodes {
        processes.extend([("containerd", &node.name), ("kubelet", &node.name)]);
        if lab.spec.cni == Cni::KubeOvn {
            processes.push(("kube-ovn-cni", &node.name));
        }
    }
    if lab.spec.cni == Cni::KubeOvn {
        for node in crate::components::controller_nodes(lab) {
            processes.push(("kube-ovn-controller", &node.name));
        }
    }
    lab.wait_with(&processes, "the nodes", limit, || {
        // kubectl watches: it returns at once when the last one is Ready.
        let mut args = vec!["wait", "--for=condition=Ready", "--timeout=5s"];
        args.extend(names.iter().map(String::as_str));
        kubectl(lab, &args).map(Some)
    })
    .map_err(|error| error.context(not_ready(lab)))?;
    Ok(())
}

/// Why nodes are not ready, in the kubelet's own words.
fn not_ready(lab: &Lab) -> String {
    let mut lines = Vec::new();
    let nodes = get(lab, &["nodes"]).unwrap_or_default();
    for node in nodes["items"].as_array().into_iter().flatten() {
        for condition in node["status"]["conditions"]
            .as_array()
            .into_iter()
            .flatten()
        {
            if condition["type"] == "Ready" && condition["status"] != "True" {
                lines.push(format!(
                    "{}: {}",
                    node["metadata"]["name"].as_str().unwrap_or("?"),
                    condition["message"].as_str().unwrap_or("?")
                ));
            }
        }
    }
    lines.extend(crate::components::complaints(lab));
    if lines.is_empty() {
        return "cannot bring the nodes up".to_owned();
    }
    format!("nodes are not Ready: {}", lines.join("; "))
}

/// The plain bridge plugin as the network: a baseline, and a way to try the lab without the fabric.
pub fn bridge_cni(lab: &Lab, node: &Node) -> Result<()> {
    if lab.spec.cni != Cni::Bridge {
        return Ok(());
    }
    let conf = format!(
        r#"{{"cniVersion":"0.4.0","name":"lab","plugins":[{{"type":"bridge","bridge":"cni0","isGateway":true,"hairpinMode":true,"ipam":{{"type":"host-local","ranges":[[{{"subnet":"10.16.{}.0/24"}}]],"routes":[{{"dst":"0.0.0.0/0"}}]}}}},{{"type":"portmap","capabilities":{{"portMappings":true}}}}]}}"#,
        node.number
    );
    crate::components::install(lab, node, &["bridge", "host-local", "loopback", "portmap"])?;
    write_in_node(lab, node, "/etc/cni/net.d/10-lab.conflist", &conf)?;
    let mut routes = String::new();
    for other in lab.nodes.iter().filter(|other| other.number != node.number) {
        let _ = writeln!(
            routes,
            "route replace 10.16.{}.0/24 via {}",
            other.number,
            other.address()
        );
    }
    crate::network::ip(lab, crate::lab::Place::Node(&node.name), &routes)
}

/// Write a file into a node's own view of the file system.
pub fn write_in_node(lab: &Lab, node: &Node, path: &str, text: &str) -> Result<()> {
    capture_with_input(
        lab.command(crate::lab::Place::Node(&node.name), "sh")?
            .args(["-c", "cat > \"$1.new\" && mv \"$1.new\" \"$1\"", "sh", path]),
        text,
    )?;
    Ok(())
}
