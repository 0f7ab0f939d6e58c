//! kube-ovn-lab: a multi-node cluster on one machine
