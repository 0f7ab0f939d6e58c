//! A multi-node cluster on one machine: real Kubernetes, OVN and Open vSwitch, network namespaces as nodes.
//!
//! | module | what it knows |
//! |---|---|
//! | [`preflight`] | what the machine must have, and how to get what is missing |
//! | [`cache`], [`images`] | what is built once: Kubernetes' programs, container images |
//! | [`plan`], [`lab`], [`process`] | a lab's networks and options, its directory, its processes |
//! | [`holder`], [`network`], [`relay`], [`cgroup`] | namespaces, mounts, wires, doors to the machine, cgroups |
//! | [`ovn`], [`kubernetes`], [`components`] | what runs in a node |
//! | [`up`], [`down`], [`status`] | the commands |
//! | [`scenario`], [`stage`], [`traffic`], [`scenarios`], [`demo`], [`documents`] | what is tried on a lab |

pub mod cache;
pub mod cgroup;
pub mod changes;
pub mod command;
pub mod components;
pub mod demo;
pub mod documents;
pub mod down;
pub mod holder;
pub mod images;
pub mod kubernetes;
pub mod lab;
pub mod network;
pub mod ovn;
pub mod pki;
pub mod plan;
pub mod preflight;
pub mod process;
pub mod progress;
pub mod relay;
pub mod scenario;
pub mod scenarios;
pub mod stage;
pub mod status;
pub mod table;
pub mod traffic;
pub mod up;
