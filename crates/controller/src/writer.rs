//! Kubernetes writes. The engine bounds how many are under way; each is one task.

use std::time::{Duration, Instant};

use api::keys::FIELD_MANAGER;
use api::v1::{Ip, Subnet, Vpc};
use api::view::{NamespaceWire, NodeWire, PodWire};
use engine::{Kind, KubeOutcome, KubeWrite, Object, ObjectKey, Part};
use kube::api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use kube::{Api, Client, Resource};
use serde::Serialize;
use tokio::time::timeout;
use tracing::debug;

use crate::kinds::Watched;
use crate::lease::Guard;

#[cfg(test)]
mod tests;

/// No write takes longer; what became of it is unknown then.
const LIMIT: Duration = Duration::from_secs(15);

/// Carries out a write, if the lease is still ours.
pub async fn execute(client: Client, write: KubeWrite, guard: Guard) -> KubeOutcome {
    if !guard.holds() {
        return KubeOutcome::Retry("the lease is not ours any more".to_owned());
    }
    let (verb, key, start) = (write.verb(), write.key(), Instant::now());
    let outcome = match timeout(LIMIT, send(client, write)).await {
        Ok(outcome) => outcome,
        Err(_) => KubeOutcome::Unknown(format!("no answer within {} s", LIMIT.as_secs())),
    };
    debug!(verb, %key, took = ?start.elapsed(), done = matches!(outcome, KubeOutcome::Done(_)), "write");
    outcome
}

async fn send(client: Client, write: KubeWrite) -> KubeOutcome {
    match write {
        KubeWrite::Create(Object::Subnet(object)) => create::<Subnet>(client, &object).await,
        KubeWrite::Create(Object::Vpc(object)) => create::<Vpc>(client, &object).await,
        KubeWrite::Create(Object::Ip(object)) => create::<Ip>(client, &object).await,
        KubeWrite::Create(Object::Pod(_) | Object::Node(_) | Object::Namespace(_)) => {
            KubeOutcome::Refused("the controller creates no such objects".to_owned())
        }
        KubeWrite::Patch { key, part, body } => match key.kind {
            Kind::Pod => {
                patch(
                    Api::<PodWire>::namespaced(client, &key.namespace),
                    &key,
                    part,
                    &body,
                )
                .await
            }
            Kind::Node => patch(Api::<NodeWire>::all(client), &key, part, &body).await,
            Kind::Namespace => patch(Api::<NamespaceWire>::all(client), &key, part, &body).await,
            Kind::Subnet => patch(Api::<Subnet>::all(client), &key, part, &body).await,
            Kind::Vpc => patch(Api::<Vpc>::all(client), &key, part, &body).await,
            Kind::Ip => patch(Api::<Ip>::all(client), &key, part, &body).await,
        },
        KubeWrite::Delete {
            key,
            uid,
            resource_version,
        } => {
            let version = resource_version.as_deref();
            match key.kind {
                Kind::Subnet => delete(Api::<Subnet>::all(client), &key, &uid, version).await,
                Kind::Vpc => delete(Api::<Vpc>::all(client), &key, &uid, version).await,
                Kind::Ip => delete(Api::<Ip>::all(client), &key, &uid, version).await,
                Kind::Pod | Kind::Node | Kind::Namespace => {
                    KubeOutcome::Refused("the controller deletes no such objects".to_owned())
                }
            }
        }
    }
}

async fn create<K>(client: Client, object: &K) -> KubeOutcome
where
    K: Watched + Serialize + Resource<Scope = k8s_openapi::ClusterResourceScope>,
{
    let params = PostParams {
        field_manager: Some(FIELD_MANAGER.to_owned()),
        ..PostParams::default()
    };
    match Api::<K>::all(client).create(&params, object).await {
        Ok(object) => KubeOutcome::Done(Some(object.into_object())),
        // A creation finds nothing "not found" but its own kind.
        Err(kube::Error::Api(status)) if status.code == 404 => {
            KubeOutcome::Retry(status.message.clone())
        }
        Err(error) => outcome_of(&error),
    }
}

async fn patch<K: Watched>(
    api: Api<K>,
    key: &ObjectKey,
    part: Part,
    body: &serde_json::Value,
) -> KubeOutcome {
    let params = PatchParams {
        field_manager: Some(FIELD_MANAGER.to_owned()),
        ..PatchParams::default()
    };
    let result = match part {
        Part::Main => api.patch(&key.name, &params, &Patch::Merge(body)).await,
        Part::Status => {
            api.patch_status(&key.name, &params, &Patch::Merge(body))
                .await
        }
    };
    match result {
        Ok(object) => KubeOutcome::Done(Some(object.into_object())),
        Err(error) => outcome_of(&error),
    }
}

async fn delete<K: Watched>(
    api: Api<K>,
    key: &ObjectKey,
    uid: &str,
    version: Option<&str>,
) -> KubeOutcome {
    let params = DeleteParams {
        preconditions: Some(Preconditions {
            uid: Some(uid.to_owned()),
            resource_version: version.map(str::to_owned),
        }),
        ..DeleteParams::default()
    };
    match api.delete(&key.name, &params).await {
        Ok(either) => KubeOutcome::Done(either.left().map(Watched::into_object)),
        Err(error) => outcome_of(&error),
    }
}

/// What an error says about the write.
fn outcome_of(error: &kube::Error) -> KubeOutcome {
    match error {
        kube::Error::Api(status) => {
            let text = status.message.clone();
            match status.code {
                404 => KubeOutcome::NotFound,
                409 => KubeOutcome::Conflict(text),
                400 | 403 | 405 | 413 | 415 | 422 => KubeOutcome::Refused(text),
                // Turned away before anything was done (RFC 6585; Kubernetes API priority and fairness).
                401 | 429 => KubeOutcome::Retry(text),
                _ => KubeOutcome::Unknown(text),
            }
        }
        kube::Error::BuildRequest(_) | kube::Error::Auth(_) => {
            KubeOutcome::Retry(error.to_string())
        }
        other => KubeOutcome::Unknown(other.to_string()),
    }
}
