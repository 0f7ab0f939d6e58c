//! The committed tables are what the generator makes of the schema files.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "for tests alone"
)]

#[path = "../codegen/mod.rs"]
mod codegen;

use std::path::Path;

#[test]
fn generated_files_are_up_to_date() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    for (file, text) in codegen::generate(&root.join("schemas")) {
        let committed = std::fs::read_to_string(root.join("src/generated").join(&file)).unwrap();
        assert!(
            committed == text,
            "src/generated/{file} is out of date: run `cargo run -p ovn --example generate`"
        );
    }
}
