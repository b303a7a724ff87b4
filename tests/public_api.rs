//! The public interface, against what is committed as `api.txt`; the types of other crates in it, against the list in the
//! crate's documentation. Both read what `.ci/api` has rustdoc write, which also writes `api.txt` anew: `.ci/api --write`.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a helper of a test fails by panicking"
)]

mod support;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

use steadfast::testing::Value;

/// What the version of public-api in the manifest reads.
const FORMAT: u64 = 57;

#[test]
fn the_public_interface_is_the_one_that_is_committed() {
    let Some(path) = rustdoc() else { return };
    let format = read(&path)["format_version"].as_u64();
    if format != Some(FORMAT) {
        let news = format!(
            "rustdoc writes format {format:?} here, and public-api reads {FORMAT}: take another of its versions"
        );
        support::skipped(&format!("{news}. The public interface is not compared"));
        return;
    }
    let found = listing(&path);
    let committed = Path::new(env!("CARGO_MANIFEST_DIR")).join("api.txt");
    if support::needs("STEADFAST_WRITE_API") {
        std::fs::write(committed, found).unwrap();
        return;
    }
    let committed = std::fs::read_to_string(committed).unwrap();
    let (committed, found): (BTreeSet<_>, BTreeSet<_>) = (committed.lines().collect(), found.lines().collect());
    let gone = committed.difference(&found).map(|line| format!("- {line}\n"));
    let new = found.difference(&committed).map(|line| format!("+ {line}\n"));
    let changes: String = gone.chain(new).collect();
    assert!(changes.is_empty(), "if it is meant: .ci/api --write\n{changes}");
}

#[test]
fn the_types_of_other_crates_are_those_that_the_documentation_lists() {
    let Some(path) = rustdoc() else { return };
    let found = foreign(&read(&path));
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

fn rustdoc() -> Option<PathBuf> {
    let path = std::env::var_os("STEADFAST_RUSTDOC_JSON").map(PathBuf::from);
    if path.is_none() {
        support::skipped("STEADFAST_RUSTDOC_JSON names no file, so the public interface is not checked");
    }
    path
}

fn read(path: &Path) -> Value {
    std::fs::read_to_string(path).unwrap().parse().unwrap()
}

/// One line for each item, method and `impl`. Of the traits that follow from a type's fields, the two that hosts build on.
fn listing(path: &Path) -> String {
    let interface = public_api::Builder::from_rustdoc_json(path).omit_blanket_impls(true).build().unwrap();
    let lines = interface.items().map(|item| format!("{item}\n"));
    let silent = ["Freeze", "RefUnwindSafe", "StructuralPartialEq", "Unpin", "UnsafeUnpin", "UnwindSafe"];
    let is_silent = |line: &str| silent.iter().any(|name| line.contains(&format!("::{name} for ")));
    lines.filter(|line| !is_silent(line)).collect()
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
