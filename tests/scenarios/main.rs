//! The scenarios of `*.json`, which a port in any language could run, run against this library. `README.md` has the format.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test that cannot go on has failed"
)]
#![allow(clippy::disallowed_methods, reason = "tests look at the virtual clock")]

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::{format::Scenario, run::hold};

mod endpoint;
mod format;
mod policy;
mod process;
mod run;
mod store;
mod words;
mod world;

#[test]
fn every_scenario_holds_whatever_the_jitter() {
    let mut broken = Vec::new();
    for (file, scenario) in all() {
        for seed in SEEDS {
            if let Err(what) = hold(&scenario, seed) {
                broken.push(format!("{file}: {}: {what} (seed {seed})", scenario.name));
                break;
            }
        }
    }
    assert!(broken.is_empty(), "{} scenarios do not hold:\n\n{}\n", broken.len(), broken.join("\n\n"));
}

#[test]
fn every_single_expectation_can_fail() {
    let mut toothless = Vec::new();
    for (file, text) in FILES {
        let scenarios: Vec<Value> = serde_json::from_str(text).unwrap();
        for scenario in scenarios {
            for (place, changed) in mutants(&scenario) {
                let changed: Scenario = serde_json::from_value(changed).unwrap();
                if hold(&changed, SEEDS.start).is_ok() {
                    toothless.push(format!("{file}: {}: {place}", changed.name));
                }
            }
        }
    }
    assert!(toothless.is_empty(), "expectations that hold although they were changed:\n{}", toothless.join("\n"));
}

#[test]
fn the_scenarios_cover_what_they_have_to() {
    let covered: BTreeSet<_> = all().into_iter().flat_map(|(_, scenario)| scenario.covers).collect();
    let required: BTreeSet<_> = required().into_iter().collect();
    let missing: Vec<_> = required.difference(&covered).collect();
    let unknown: Vec<_> = covered.difference(&required).collect();
    assert!(missing.is_empty() && unknown.is_empty(), "missing: {missing:?}, not asked for: {unknown:?}");
}

#[test]
fn there_are_at_least_45_scenarios_each_a_sentence_with_a_reason_on_one_page() {
    let mut names = BTreeSet::new();
    for (file, scenario) in all() {
        let Scenario { name, why, differs, covers, given: _, steps } = scenario;
        assert!(name.contains(' ') && !name.ends_with('.'), "{file}: {name:?} is no name");
        assert!(SOURCES.iter().any(|source| why.contains(source)), "{file}: {name}: where is that written?");
        assert!(differs.is_none() || !covers.is_empty(), "{file}: {name}: differs from what?");
        assert!((1..=20).contains(&steps.len()), "{file}: {name}: more than a page");
        assert!(names.insert(name.clone()), "{file}: {name}: twice");
    }
    assert!(names.len() >= 45, "{} scenarios", names.len());
}

#[test]
fn the_readme_explains_every_word_of_the_format() {
    let mut words = BTreeSet::new();
    for (_, text) in FILES {
        let scenarios: Value = serde_json::from_str(text).unwrap();
        collect_words(&scenarios, &mut words);
    }
    let unexplained: Vec<_> = words.iter().filter(|word| !README.contains(&format!("`{word}`"))).collect();
    assert!(unexplained.is_empty(), "{unexplained:?}");
}

fn all() -> Vec<(&'static str, Scenario)> {
    let read = |(file, text): &(&'static str, &str)| {
        let scenarios: Vec<Scenario> = serde_json::from_str(text).unwrap_or_else(|error| panic!("{file}: {error}"));
        scenarios.into_iter().map(|scenario| (*file, scenario)).collect::<Vec<_>>()
    };
    FILES.iter().flat_map(read).collect()
}

/// What the AWS SDKs' scenarios cover, cell by cell, and what this library has to add.
fn required() -> Vec<String> {
    let mut cells: Vec<String> = OTHERS.iter().map(ToString::to_string).collect();
    for held in ["no token", "valid", "advisory", "mandatory", "expired"] {
        for answer in ["success", "failure", "stale answer", "non-recoverable"] {
            cells.push(format!("{held} / {answer}"));
        }
    }
    cells
}

/// The scenario, with one expectation changed: each in turn.
fn mutants(scenario: &Value) -> Vec<(String, Value)> {
    let mut mutants = Vec::new();
    for (number, step) in scenario["steps"].as_array().unwrap().iter().enumerate() {
        let expected = step.get("expect").and_then(Value::as_object).into_iter().flatten();
        for (key, value) in expected {
            let mut mutant = scenario.clone();
            mutant["steps"][number]["expect"][key] = otherwise(key, value);
            mutants.push((format!("step {}: {key}", number + 1), mutant));
        }
    }
    mutants
}

/// Another value of the same kind.
fn otherwise(key: &str, value: &Value) -> Value {
    match (key, value) {
        ("token" | "exchanges" | "response", Value::Number(number)) => json!(number.as_u64().unwrap() + 1),
        ("exchanges" | "exchanges_in_step", _) => json!(1_000_000),
        ("serving", Value::Null) => json!(1),
        ("serving", _) => Value::Null,
        ("retry_after" | "next_attempt", Value::Null) => json!("1s"),
        ("retry_after" | "next_attempt", _) => Value::Null,
        ("takes" | "settles_in" | "last_exchange_at", _) => json!("1000d"),
        (_, Value::Bool(flag)) => json!(!flag),
        (_, Value::String(text)) => json!(format!("{text}, or not")),
        ("claims_asked_for", Value::Null) => json!("{}"),
        ("stored", Value::Null) => json!({ "account": "nobody" }),
        ("stored", _) => Value::Null,
        ("events", Value::Array(events)) if events.is_empty() => {
            json!([{ "from": "running", "to": "running", "serving": true }])
        }
        ("sent_with", Value::Array(generations)) => json!([generations.as_slice(), &[json!(9)]].concat()),
        (_, Value::Array(items)) => json!(items.split_last().map_or(&[][..], |(_, others)| others)),
        (key, value) => panic!("no other value for {key}: {value}"),
    }
}

/// The names of all fields, but for those of HTTP bodies.
fn collect_words(value: &Value, words: &mut BTreeSet<String>) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                words.insert(name.clone());
                if name != "fields" {
                    collect_words(value, words);
                }
            }
        }
        Value::Array(items) => items.iter().for_each(|item| collect_words(item, words)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

const FILES: &[(&str, &str)] = &[
    ("refresh.json", include_str!("refresh.json")),
    ("windows.json", include_str!("windows.json")),
    ("failures.json", include_str!("failures.json")),
    ("rejections.json", include_str!("rejections.json")),
    ("clocks.json", include_str!("clocks.json")),
    ("rotation.json", include_str!("rotation.json")),
    ("lifecycle.json", include_str!("lifecycle.json")),
];
const README: &str = include_str!("README.md");
const SEEDS: std::ops::Range<u64> = 0..8;
const SOURCES: &[&str] = &["contract §", "RFC ", "#"];
const OTHERS: &[&str] = &[
    "valid / untouched",
    "window by lifetime",
    "window anew with each token",
    "window fixed by the host",
    "invalidate / current, success",
    "invalidate / current, failure",
    "invalidate / foreign",
    "invalidate / current, during back-off",
    "invalidate / foreign, during back-off",
    "back-off",
    "back-off / over",
];
