//! What the package holds. `.ci/package` builds another crate on it.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a helper of a test fails by panicking"
)]

mod support;

use std::{collections::BTreeSet, path::Path, process::Command};

/// The second group is cargo's own.
const BESIDE_THE_SOURCES: [&str; 8] = [
    "CHANGELOG.md",
    "LICENSE-APACHE",
    "LICENSE-MIT",
    "README.md",
    "Cargo.toml",
    "Cargo.lock",
    "Cargo.toml.orig",
    ".cargo_vcs_info.json",
];

#[test]
fn the_package_holds_the_sources_the_examples_and_what_a_user_reads_and_nothing_else() {
    if !Path::new(env!("CARGO_MANIFEST_DIR")).join(".git").exists() {
        support::skipped("this is no clone, so what the package holds is not checked");
        return;
    }
    let packaged = lines(env!("CARGO"), &["package", "--list", "--locked", "--allow-dirty"]);
    let mut wanted = lines("git", &["ls-files", "--", "src", "examples"]);
    assert!(wanted.contains("src/lib.rs"));
    wanted.extend(BESIDE_THE_SOURCES.map(str::to_owned));
    let untracked = lines("git", &["ls-files", "--others", "--exclude-standard", "--", "src", "examples"]);
    let packaged = &packaged - &untracked;
    let (too_much, missing) = (&packaged - &wanted, &wanted - &packaged);
    assert!(too_much.is_empty() && missing.is_empty(), "too much: {too_much:?}, missing: {missing:?}");
}

fn lines(program: &str, arguments: &[&str]) -> BTreeSet<String> {
    let output = Command::new(program).args(arguments).current_dir(env!("CARGO_MANIFEST_DIR")).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect()
}
