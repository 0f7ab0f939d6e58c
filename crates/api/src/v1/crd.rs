//! CustomResourceDefinitions of the resources.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt;

use super::{Ip, Subnet, Vpc};

/// The CustomResourceDefinitions to install, in the order of their names.
pub fn crds() -> Vec<CustomResourceDefinition> {
    vec![Ip::crd(), Subnet::crd(), Vpc::crd()]
}
