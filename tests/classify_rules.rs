//! The list of rules in the documentation is the list in the code.
#![allow(clippy::expect_used, clippy::unwrap_used)] // a test may

use std::collections::HashSet;

use steadfast::classify::{Classifier, Evidence};

#[test]
fn the_documentation_lists_every_rule_with_its_origin() {
    let documented: HashSet<&str> = DOCUMENTED.lines().collect();
    let missing: Vec<String> = rows().filter(|row| !documented.contains(row.as_str())).collect();

    assert!(missing.is_empty(), "not in rules.md: {missing:#?}");
}

/// With every feature on, the file is exactly what the code says.
#[cfg(all(
    feature = "h2",
    feature = "hyper",
    feature = "hyper-util",
    feature = "oauth2",
    feature = "reqwest",
    feature = "reqwest-012",
    feature = "rustls",
    feature = "tonic",
    feature = "tower",
))]
#[test]
fn the_documentation_lists_nothing_else() {
    let head = "| rule | looks at | says | printed or returned by |\n|---|---|---|---|\n";
    let table = rows().fold(head.to_owned(), |table, row| table + &row + "\n");
    if std::env::var_os("STEADFAST_WRITE_RULES").is_some() {
        std::fs::write("src/classify/rules.md", &table).unwrap();
    } else {
        assert_eq!(DOCUMENTED, table, "STEADFAST_WRITE_RULES=1 rewrites it");
    }
}

#[test]
fn every_rule_has_a_name_of_its_own() {
    let names: Vec<_> = Classifier::rules().map(|rule| rule.name).collect();
    let distinct: HashSet<_> = names.iter().collect();

    assert_eq!(distinct.len(), names.len());
}

fn rows() -> impl Iterator<Item = String> {
    Classifier::rules().map(|rule| {
        let (name, says, origin) = (rule.name, rule.says, rule.origin);
        let evidence = match rule.evidence {
            Evidence::Type => "type",
            Evidence::Text => "text",
            Evidence::None => "none",
        };
        format!("| `{name}` | {evidence} | {says} | {origin} |")
    })
}

const DOCUMENTED: &str = include_str!("../src/classify/rules.md");
