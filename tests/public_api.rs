//! Types of other crates in this one's public interface, against the list in the crate's documentation.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a helper of a test fails by panicking"
)]

mod support;

use std::collections::{BTreeMap, BTreeSet};

use steadfast::testing::Value;

/// From what rustdoc knows: `cargo +nightly rustdoc --lib --all-features -- -Z unstable-options --output-format json`.
#[test]
fn the_types_of_other_crates_are_those_that_the_documentation_lists() {
    let Some(path) = std::env::var_os("STEADFAST_RUSTDOC_JSON") else {
        support::skipped("STEADFAST_RUSTDOC_JSON names no file, so the types of the public interface are not checked");
        return;
    };
    let found = foreign(&std::fs::read_to_string(path).unwrap().parse().unwrap());
    let listed: Types = listed().into_iter().map(|(name, (_, types))| (name, types)).collect();
    assert_eq!(found, listed);
}

#[test]
fn the_versions_of_these_crates_are_the_manifests() {
    let manifest = include_str!("../Cargo.toml");
    let (_, dependencies) = manifest.split_once("\n[dependencies]\n").unwrap();
    for (name, (version, _)) in listed() {
        let mut lines = dependencies.lines().filter_map(|line| line.split_once(" = "));
        let (_, line) = lines.find(|(found, _)| found.replace('-', "_") == name).unwrap();
        let wanted = line.split('"').nth(1).unwrap();
        assert!(wanted == version || wanted.starts_with(&format!("{version}.")), "{name} {version}, {wanted}");
    }
}

type Types = BTreeMap<String, BTreeSet<String>>;

/// The table in the documentation: crate, version, types.
fn listed() -> BTreeMap<String, (String, BTreeSet<String>)> {
    let (_, section) = include_str!("../src/lib.rs").split_once("//! # Types of other crates\n").unwrap();
    let (section, _) = section.split_once("#![forbid").unwrap();
    let rows = section.lines().filter_map(|line| line.strip_prefix("//! | `"));
    let row = |row: &str| {
        let mut cells = row.split('|');
        let name = cells.next().unwrap().trim().trim_end_matches('`').to_owned();
        let version = cells.next().unwrap().trim().to_owned();
        let types = cells.next().unwrap().split('`').skip(1).step_by(2).map(str::to_owned).collect();
        (name, (version, types))
    };
    rows.map(row).collect()
}

/// By the last part of their names: where in its crate a type is defined is nobody's business.
fn foreign(rustdoc: &Value) -> Types {
    let mut found = Types::new();
    for item in rustdoc["index"].as_object().unwrap().values().filter(|item| is_public(item)) {
        visit(&item["inner"], rustdoc, &mut found);
    }
    found
}

/// Items without a visibility of their own are variants, fields of them, and what stands in an `impl`. One that the compiler
/// wrote promises nothing.
fn is_public(item: &Value) -> bool {
    let written = &item["inner"]["impl"];
    let by_hand = written.is_null() || written["is_synthetic"] == false && written["blanket_impl"].is_null();
    item["crate_id"] == 0 && by_hand && (item["visibility"] == "public" || item["visibility"] == "default")
}

fn visit(value: &Value, rustdoc: &Value, found: &mut Types) {
    match value {
        Value::Object(fields) => {
            // A path to a type or a trait, or what is exported again.
            let names = fields.get("path").or(fields.get("source")).is_some_and(Value::is_string);
            if let Some(id) = fields.get("id").filter(|_| names) {
                note(&rustdoc["paths"][id.to_string()], rustdoc, found);
            }
            fields.values().for_each(|value| visit(value, rustdoc, found));
        }
        Value::Array(values) => values.iter().for_each(|value| visit(value, rustdoc, found)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

fn note(named: &Value, rustdoc: &Value, found: &mut Types) {
    let Some(path) = named["path"].as_array() else { return };
    let name = &rustdoc["external_crates"][named["crate_id"].to_string()]["name"];
    // What a macro wrote into an `impl` cannot be named.
    if let Some(name) = name.as_str().filter(|_| !path.iter().any(|part| part == "__private")) {
        let name = if name == "serde_core" { "serde" } else { name };
        if !["alloc", "core", "std"].contains(&name) {
            let last = path.last().unwrap().as_str().unwrap();
            found.entry(name.to_owned()).or_default().insert(last.to_owned());
        }
    }
}
