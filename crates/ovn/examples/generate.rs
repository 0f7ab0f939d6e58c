//! Writes `src/generated/*.rs` from `schemas/` and `codegen/overlay.rs`: `cargo run -p ovn --example generate`.
#![allow(
    clippy::expect_used,
    clippy::panic,
    reason = "a generator that cannot go on says why and stops"
)]

#[path = "../codegen/mod.rs"]
mod codegen;

use std::path::Path;

fn main() -> std::io::Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    for (file, text) in codegen::generate(&root.join("schemas")) {
        std::fs::write(root.join("src/generated").join(file), text)?;
    }
    Ok(())
}
