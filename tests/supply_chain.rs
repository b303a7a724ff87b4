//! What this crate brings into a host's build: from where, under which licences, and how little it can be.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a helper of a test fails by panicking"
)]

use std::{
    collections::{BTreeSet, HashSet},
    process::Command,
    sync::OnceLock,
};

use steadfast::testing::Value;

#[test]
fn every_dependency_comes_from_one_registry() {
    let of =
        |name| packages().iter().find(|package| text(package, "name") == name).map(|package| text(package, "source"));
    let registry = of("tokio");
    assert!(registry.is_some_and(|registry| registry.starts_with("registry+https://")), "{registry:?}");
    for package in packages() {
        let source = package["source"].as_str();
        let ours = text(package, "name") == "steadfast" && source.is_none();
        assert!(ours || source == registry, "{} comes from {source:?}", text(package, "name"));
    }
}

#[test]
fn every_dependency_has_a_licence_that_asks_for_nothing_but_its_name() {
    let (_, list) = include_str!("../deny.toml").split_once("\nallow = [").unwrap();
    let (list, _) = list.split_once(']').unwrap();
    let allowed: HashSet<_> = list.split('"').skip(1).step_by(2).collect();
    assert!(allowed.contains("MIT"));
    for package in packages() {
        let name = text(package, "name");
        let Some(licence) = package["license"].as_str() else { panic!("{name} names no licence") };
        assert!(may_be_used(licence, &allowed), "{name} is under {licence}");
    }
}

#[test]
fn an_expression_of_licences_is_read_as_it_is_meant() {
    let allowed = HashSet::from(["MIT", "ISC"]);
    for (licence, may) in [
        ("MIT", true),
        ("GPL-3.0", false),
        ("GPL-3.0 OR MIT", true),
        ("GPL-3.0/MIT", true),
        ("GPL-3.0 AND MIT", false),
        ("MIT AND ISC", true),
        ("MIT AND (GPL-3.0 OR ISC)", true),
        ("(MIT AND GPL-3.0) OR (ISC AND GPL-3.0)", false),
        ("GPL-3.0 OR MIT AND GPL-3.0", false),
        ("MIT WITH something", false),
    ] {
        assert_eq!(may_be_used(licence, &allowed), may, "{licence}");
    }
}

/// The lists in the crate's documentation.
#[test]
fn the_crate_brings_along_what_its_documentation_says() {
    for (beginning, features) in [("//! Without features: ", ""), ("//! With `oauth2` besides: ", "oauth2")] {
        let mut listed: BTreeSet<String> = BTreeSet::new();
        let (_, list) = include_str!("../src/lib.rs").split_once(beginning).unwrap();
        let (list, _) = list.split_once('.').unwrap();
        listed.extend(list.split('`').skip(1).step_by(2).map(str::to_owned));
        let mut direct = direct_dependencies(features);
        if !features.is_empty() {
            direct = &direct - &direct_dependencies("");
        }
        assert_eq!(listed, direct, "with features {features:?}");
    }
}

/// The table in the README, which `.ci/cost` prints.
#[test]
fn each_set_of_features_brings_as_many_crates_as_the_readme_says_and_no_more_than_it_may() {
    let (_, table) = include_str!("../README.md").split_once("\n| features | crates |").unwrap();
    let rows: Vec<Vec<&str>> =
        table.lines().skip(2).map_while(|line| line.strip_prefix("| ")).map(|row| row.split(" | ").collect()).collect();
    let names: Vec<&str> = rows.iter().map(|row| row[0]).collect();
    assert_eq!(names, ["none", "`oauth2`", "default"]);
    for row in rows {
        let (arguments, most): (&[&str], usize) = match row[0] {
            "none" => (&["--no-default-features"], 30),
            "`oauth2`" => (&["--no-default-features", "--features", "oauth2"], 90),
            _ => (&[], 135),
        };
        let crates = crates(arguments);
        assert_eq!(row[1], crates.to_string(), "with {}", row[0]);
        assert!(crates <= most, "{crates} crates with {}", row[0]);
    }
}

#[test]
fn no_dependency_wants_a_newer_rust_than_the_crate_promises() {
    let version = |text: &str| text.split('.').map(|part| part.parse::<u32>().unwrap()).collect::<Vec<_>>();
    let promised = packages().iter().find(|package| text(package, "name") == "steadfast").unwrap();
    let promised = version(text(promised, "rust_version"));
    for package in packages() {
        let wanted = package["rust_version"].as_str().map(version);
        assert!(wanted.is_none_or(|wanted| wanted <= promised), "{} wants a newer Rust", text(package, "name"));
    }
}

fn may_be_used(licence: &str, allowed: &HashSet<&str>) -> bool {
    let spaced = licence.replace('/', " OR ").replace('(', " ( ").replace(')', " ) ");
    let mut words = spaced.split_whitespace().peekable();
    let may = alternatives(&mut words, allowed);
    assert_eq!(words.next(), None, "{licence} is no expression");
    may
}

type Words<'a> = std::iter::Peekable<std::str::SplitWhitespace<'a>>;

/// `AND` binds more tightly than `OR` (SPDX 2.3, annex D).
fn alternatives(words: &mut Words<'_>, allowed: &HashSet<&str>) -> bool {
    let mut may = together(words, allowed);
    while words.next_if_eq(&"OR").is_some() {
        may |= together(words, allowed);
    }
    may
}

fn together(words: &mut Words<'_>, allowed: &HashSet<&str>) -> bool {
    let mut may = one(words, allowed);
    while words.next_if_eq(&"AND").is_some() {
        may &= one(words, allowed);
    }
    may
}

fn one(words: &mut Words<'_>, allowed: &HashSet<&str>) -> bool {
    let word = words.next().unwrap();
    if word == "(" {
        let may = alternatives(words, allowed);
        assert_eq!(words.next(), Some(")"));
        return may;
    }
    // An exception widens a licence, but has to be looked at once.
    let excepted = words.next_if_eq(&"WITH").map(|_| words.next().unwrap());
    allowed.contains(word) && excepted.is_none()
}

fn packages() -> &'static [Value] {
    static METADATA: OnceLock<Value> = OnceLock::new();
    let read = || cargo(&["metadata", "--locked", "--format-version", "1", "--all-features"]).parse().unwrap();
    METADATA.get_or_init(read)["packages"].as_array().unwrap()
}

/// Those of every platform.
fn direct_dependencies(features: &str) -> BTreeSet<String> {
    let tree = ["tree", "--locked", "--no-default-features", "--features", features, "--target", "all"];
    let tree =
        cargo(&[&tree[..], &["--edges", "normal", "--depth", "1", "--prefix", "none", "--format", "{p}"]].concat());
    let names: Vec<_> = tree.lines().skip(1).map(|line| line.split(' ').next().unwrap().to_owned()).collect();
    assert_eq!(names.len(), names.iter().collect::<HashSet<_>>().len());
    names.into_iter().collect()
}

/// This one included; in a build for Linux.
fn crates(features: &[&str]) -> usize {
    let tree = ["tree", "--locked", "--target", "x86_64-unknown-linux-gnu", "--edges", "normal", "--prefix", "none"];
    let tree = cargo(&[&tree[..], &["--format", "{p}"], features].concat());
    tree.lines().map(|line| line.trim_end_matches(" (*)")).collect::<HashSet<_>>().len()
}

fn cargo(arguments: &[&str]) -> String {
    let output = Command::new(env!("CARGO")).args(arguments).current_dir(env!("CARGO_MANIFEST_DIR")).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn text<'a>(package: &'a Value, field: &str) -> &'a str {
    package[field].as_str().unwrap()
}
