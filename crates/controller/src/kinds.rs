//! The watched kinds as kube knows them, and their way into the engine's words.

use std::fmt::Debug;

use api::v1::{Ip, Subnet, Vpc};
use api::view::{NamespaceView, NamespaceWire, NodeView, NodeWire, PodView, PodWire};
use engine::{Kind, Object};
use kube::Resource;
use serde::de::DeserializeOwned;

/// A kind that the controller watches and writes.
pub trait Watched:
    Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + Sync + 'static
{
    /// The engine's name for it.
    const KIND: Kind;

    /// What the engine keeps of it.
    fn into_object(self) -> Object;
}

impl Watched for PodWire {
    const KIND: Kind = Kind::Pod;

    fn into_object(self) -> Object {
        Object::Pod(Box::new(PodView::from(&self)))
    }
}

impl Watched for NodeWire {
    const KIND: Kind = Kind::Node;

    fn into_object(self) -> Object {
        Object::Node(Box::new(NodeView::from(&self)))
    }
}

impl Watched for NamespaceWire {
    const KIND: Kind = Kind::Namespace;

    fn into_object(self) -> Object {
        Object::Namespace(Box::new(NamespaceView::from(&self)))
    }
}

impl Watched for Subnet {
    const KIND: Kind = Kind::Subnet;

    fn into_object(mut self) -> Object {
        self.metadata.managed_fields = None;
        Object::Subnet(Box::new(self))
    }
}

impl Watched for Vpc {
    const KIND: Kind = Kind::Vpc;

    fn into_object(mut self) -> Object {
        self.metadata.managed_fields = None;
        Object::Vpc(Box::new(self))
    }
}

impl Watched for Ip {
    const KIND: Kind = Kind::Ip;

    fn into_object(mut self) -> Object {
        self.metadata.managed_fields = None;
        Object::Ip(Box::new(self))
    }
}
