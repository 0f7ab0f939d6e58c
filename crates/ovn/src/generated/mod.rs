//! Generated from the `.ovsschema` files in `schemas/`: see `codegen/`.

pub mod nb;
pub mod sb;
pub mod vswitch;
