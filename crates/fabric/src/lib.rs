//! World, units and compile: from Kubernetes objects to OVN rows. The heart
