//! The library alone under many sets of features, without a warning. It takes minutes, so it waits to be asked, by
//! `.ci/features`, or by `.ci/features --pairs` before a release.
//!
//! *Few* are none, all, the default, and each feature alone: what one lacks without the others shows when it stands alone, and
//! what they break together under all. *Pairs* adds each two alone with one another, and all but each, for what a third one hides
//! from two others.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a helper of a test fails by panicking"
)]

mod support;

use std::{
    collections::{BTreeMap, BTreeSet},
    process::Command,
};

use steadfast::testing::Value;

#[test]
fn the_library_has_no_warning_under_any_set_of_features() {
    let Some(which) = std::env::var("STEADFAST_FEATURES").ok() else {
        support::skipped("STEADFAST_FEATURES is not set, so the sets of features are not tried");
        return;
    };
    assert!(["few", "pairs"].contains(&which.as_str()), "STEADFAST_FEATURES is few or pairs, not {which}");
    let sets = sets(&manifest(), which == "pairs");
    println!("{} sets of features", sets.len());
    let failed: Vec<String> = sets.iter().map(|set| set.join(",")).filter(|features| !is_clean(features)).collect();
    assert!(failed.is_empty(), "{failed:#?}");
}

#[test]
fn sets_of_features_that_mean_the_same_are_tried_once() {
    let manifest = Features::from([
        ("default".to_owned(), vec!["a".to_owned()]),
        ("a".to_owned(), vec!["dep:x".to_owned()]),
        ("b".to_owned(), vec!["a".to_owned(), "dep:y".to_owned()]),
        ("c".to_owned(), vec!["x?/z".to_owned()]),
    ]);
    let [none, a, ab, c] = [vec![], vec!["a"], vec!["a", "b"], vec!["c"]];
    let owned = |set: Vec<&str>| set.into_iter().map(str::to_owned).collect::<Vec<_>>();
    let few = [none, a, ab, vec!["a", "b", "c"], c].map(owned);
    assert_eq!(sets(&manifest, false), few.clone().into());
    let more = few.into_iter().chain([owned(vec!["a", "c"])]);
    assert_eq!(sets(&manifest, true), more.collect());
}

type Features = BTreeMap<String, Vec<String>>;

/// Each with all that it turns on, in which the default is the features it stands for.
fn sets(manifest: &Features, pairs: bool) -> BTreeSet<Vec<String>> {
    let names: Vec<&str> = manifest.keys().map(String::as_str).filter(|name| *name != "default").collect();
    let mut seeds: Vec<Vec<&str>> = vec![vec![], vec!["default"], names.clone()];
    seeds.extend(names.iter().map(|name| vec![*name]));
    // What turns a feature on goes with it.
    let without = |left_out: &str| {
        names.iter().copied().filter(|name| !closure(manifest, &[name]).iter().any(|on| on == left_out)).collect()
    };
    if pairs {
        seeds.extend(names.iter().map(|name| without(name)));
        seeds.extend(names.iter().flat_map(|one| names.iter().map(move |other| vec![*one, *other])));
    }
    seeds.iter().map(|seed| closure(manifest, seed)).collect()
}

fn closure(manifest: &Features, seed: &[&str]) -> Vec<String> {
    let mut open: Vec<&str> = seed.to_vec();
    let mut on = BTreeSet::new();
    while let Some(name) = open.pop() {
        if let Some(means) = manifest.get(name).filter(|_| on.insert(name)) {
            open.extend(means.iter().map(String::as_str).filter(|means| manifest.contains_key(*means)));
        }
    }
    on.into_iter().filter(|name| *name != "default").map(str::to_owned).collect()
}

fn is_clean(features: &str) -> bool {
    let arguments = ["clippy", "--quiet", "--locked", "--lib", "--no-default-features", "--features", features];
    let status = Command::new(env!("CARGO"))
        .args(arguments)
        .args(["--", "-D", "warnings"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .status()
        .unwrap();
    println!("{}: {features}", if status.success() { "clean" } else { "FAILED" });
    status.success()
}

fn manifest() -> Features {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--locked", "--no-deps", "--format-version", "1"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    let metadata: Value = String::from_utf8(output.stdout).unwrap().parse().unwrap();
    let texts = |list: &Value| list.as_array().unwrap().iter().map(|text| text.as_str().unwrap().to_owned()).collect();
    let features = metadata["packages"][0]["features"].as_object().unwrap();
    features.iter().map(|(name, means)| (name.clone(), texts(means))).collect()
}
