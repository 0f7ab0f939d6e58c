//! What a cluster uses of the Go implementation that this version does not have: looked at once, before its network is
//! taken over.

use std::collections::BTreeMap;

use anyhow::Context;
use engine::{InUse, Kind};
use kube::api::ListParams;
use kube::core::{DynamicObject, PartialObjectMeta};
use kube::discovery::{self, ApiResource, verbs};
use kube::{Api, Client, ResourceExt};
use smol_str::{SmolStr, format_smolstr};

/// API groups, and the resources of each that matter; all of a group if none is named.
pub(crate) type Groups = BTreeMap<&'static str, &'static [&'static str]>;

/// Resources that have objects and that the controller does not watch.
pub(crate) async fn take(client: &Client, groups: &Groups) -> anyhow::Result<Vec<InUse>> {
    let found = discovery::Discovery::new(client.clone())
        .filter(&groups.keys().copied().collect::<Vec<_>>())
        .run()
        .await
        .context("asking the API server for its resources")?;
    let mut in_use = Vec::new();
    for (group, names) in groups {
        // What is not installed is not in use.
        let Some(group) = found.get(group) else {
            continue;
        };
        for (resource, can) in group.resources_by_stability() {
            let matters = names.is_empty() || names.contains(&resource.plural.as_str());
            if matters && can.supports_operation(verbs::LIST) && !is_watched(&resource) {
                in_use.extend(look(client, &resource).await?);
            }
        }
    }
    in_use.sort();
    Ok(in_use)
}

fn is_watched(resource: &ApiResource) -> bool {
    let mut kinds = Kind::ALL.into_iter();
    kinds.any(|kind| kind.api_version() == resource.api_version && kind.plural() == resource.plural)
}

/// How many there are, from the first of them and the server's count of the rest.
async fn look(client: &Client, resource: &ApiResource) -> anyhow::Result<Option<InUse>> {
    let what = format_smolstr!("{}.{}", resource.plural, resource.group);
    let api: Api<DynamicObject> = Api::all_with(client.clone(), resource);
    let list = api.list_metadata(&ListParams::default().limit(1)).await;
    let list = list.with_context(|| format!("listing {what}"))?;
    let more = list.metadata.remaining_item_count.unwrap_or_default();
    Ok(list.items.first().map(|object| InUse {
        count: list.items.len() + usize::try_from(more).unwrap_or_default(),
        example: name(object),
        what,
    }))
}

fn name(object: &PartialObjectMeta<DynamicObject>) -> SmolStr {
    match object.namespace() {
        Some(namespace) => format_smolstr!("{namespace}/{}", object.name_any()),
        None => SmolStr::new(object.name_any()),
    }
}

#[cfg(test)]
mod tests {
    use axum::http::{StatusCode, Uri};
    use serde_json::{Value, json};
    use tokio::net::TcpListener;

    use super::*;

    /// An API server with these paths.
    async fn server(pages: &'static [(&'static str, &'static str)]) -> Client {
        let router = axum::Router::new().fallback(move |uri: Uri| {
            let page = pages.iter().find(|(path, _)| *path == uri.path());
            let body: Value = match page {
                Some((_, text)) => serde_json::from_str(text).unwrap(),
                None => json!({
                    "kind": "Status", "apiVersion": "v1", "status": "Failure", "code": 403, "message": "you may not",
                    "reason": "Forbidden",
                }),
            };
            let status = if page.is_some() { StatusCode::OK } else { StatusCode::FORBIDDEN };
            std::future::ready((status, axum::Json(body)))
        });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let uri = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async { axum::serve(listener, router).await });
        api::client::from_config(kube::Config::new(uri.parse().unwrap())).unwrap()
    }

    const GROUPS: (&str, &str) = (
        "/apis",
        r#"{"kind":"APIGroupList","groups":[
            {"name":"kubeovn.io","versions":[{"groupVersion":"kubeovn.io/v1","version":"v1"}],"preferredVersion":{"groupVersion":"kubeovn.io/v1","version":"v1"}},
            {"name":"networking.k8s.io","versions":[{"groupVersion":"networking.k8s.io/v1","version":"v1"}],"preferredVersion":{"groupVersion":"networking.k8s.io/v1","version":"v1"}}]}"#,
    );
    const CORE: (&str, &str) = ("/api", r#"{"kind":"APIVersions","versions":["v1"]}"#);
    const KUBE_OVN: (&str, &str) = (
        "/apis/kubeovn.io/v1",
        r#"{"kind":"APIResourceList","groupVersion":"kubeovn.io/v1","resources":[
            {"name":"subnets","singularName":"","namespaced":false,"kind":"Subnet","verbs":["get","list"]},
            {"name":"subnets/status","singularName":"","namespaced":false,"kind":"Subnet","verbs":["get","patch"]},
            {"name":"vlans","singularName":"","namespaced":false,"kind":"Vlan","verbs":["get","list"]},
            {"name":"vips","singularName":"","namespaced":false,"kind":"Vip","verbs":["get","list"]}]}"#,
    );
    const NETWORKING: (&str, &str) = (
        "/apis/networking.k8s.io/v1",
        r#"{"kind":"APIResourceList","groupVersion":"networking.k8s.io/v1","resources":[
            {"name":"ingresses","singularName":"","namespaced":true,"kind":"Ingress","verbs":["get","list"]},
            {"name":"networkpolicies","singularName":"","namespaced":true,"kind":"NetworkPolicy","verbs":["get","list"]}]}"#,
    );
    const VLANS: (&str, &str) = (
        "/apis/kubeovn.io/v1/vlans",
        r#"{"kind":"PartialObjectMetadataList","apiVersion":"meta.k8s.io/v1","metadata":{"resourceVersion":"9","continue":"x","remainingItemCount":2},
            "items":[{"kind":"PartialObjectMetadata","apiVersion":"meta.k8s.io/v1","metadata":{"name":"blue"}}]}"#,
    );
    const VIPS: (&str, &str) = (
        "/apis/kubeovn.io/v1/vips",
        r#"{"kind":"PartialObjectMetadataList","apiVersion":"meta.k8s.io/v1","metadata":{"resourceVersion":"9"},"items":[]}"#,
    );
    const POLICIES: (&str, &str) = (
        "/apis/networking.k8s.io/v1/networkpolicies",
        r#"{"kind":"PartialObjectMetadataList","apiVersion":"meta.k8s.io/v1","metadata":{"resourceVersion":"9"},
            "items":[{"kind":"PartialObjectMetadata","apiVersion":"meta.k8s.io/v1","metadata":{"name":"deny","namespace":"shop"}}]}"#,
    );

    fn groups() -> Groups {
        Groups::from([
            ("kubeovn.io", &[][..]),
            ("networking.k8s.io", &["networkpolicies"]),
            ("policy.networking.k8s.io", &[]),
        ])
    }

    #[tokio::test]
    async fn what_has_objects_and_is_not_watched_is_in_use() {
        let client = server(&[CORE, GROUPS, KUBE_OVN, NETWORKING, VLANS, VIPS, POLICIES]).await;
        let in_use = take(&client, &groups()).await.unwrap();
        let words: Vec<String> = in_use.iter().map(ToString::to_string).collect();
        assert_eq!(
            words,
            [
                "networkpolicies.networking.k8s.io (shop/deny)",
                "vlans.kubeovn.io (3 objects, such as blue)"
            ]
        );
    }

    #[tokio::test]
    async fn what_may_not_be_listed_is_not_taken_for_nothing() {
        let client = server(&[CORE, GROUPS, KUBE_OVN, NETWORKING, VLANS, VIPS]).await;
        let error = take(&client, &groups()).await.unwrap_err();
        let text = format!("{error:#}");
        assert!(
            text.contains("networkpolicies.networking.k8s.io") && text.contains("you may not"),
            "{text}"
        );
    }
}
