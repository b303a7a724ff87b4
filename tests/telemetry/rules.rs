//! Each rule that the code can name is in the table, and none that it cannot.

use std::{collections::BTreeSet, path::Path};

use crate::{book, lines::read};

#[test]
fn each_rule_of_the_code_is_in_the_table_and_no_other() {
    let mut texts = Vec::new();
    read(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut texts);
    let mut found = BTreeSet::from(["unrecognised".to_owned()]);
    for (path, text) in texts {
        // The classifier has a table of its own, and the kit reaches no verdicts.
        if !path.ends_with(".rs") || ["/classify", "/testing", "/tests"].iter().any(|part| path.contains(part)) {
            continue;
        }
        let code = text.split("\n#[cfg(test)]\nmod ").next().unwrap().split("\n#[cfg(all(test").next().unwrap();
        for line in code.lines().filter(|line| !line.trim_start().starts_with("//") && !line.contains("feature = ")) {
            found.extend(rules(line).map(str::to_owned));
        }
    }
    assert!(found.len() > 40, "{found:?}");
    let listed = book::rules();
    let differing: Vec<_> = found.symmetric_difference(&listed).collect();
    assert!(differing.is_empty(), "in the code or in the table, but not in both: {differing:?}");
}

/// By their form, words with hyphens between, or by where they stand.
fn rules(line: &str) -> impl Iterator<Item = &str> {
    let pieces: Vec<_> = line.split('"').collect();
    let pairs: Vec<_> = pieces.chunks_exact(2).map(|pair| (pair[0], pair[1])).collect();
    let is_rule = |(before, text): &(&str, &str)| {
        let is_in_place = PLACES.iter().any(|place| before.ends_with(place));
        let is_hyphenated = text.contains('-') && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'-');
        !text.is_empty() && !HEADERS.contains(text) && (is_in_place || is_hyphenated)
    };
    pairs.into_iter().filter(is_rule).map(|(_, text)| text)
}

const PLACES: [&str; 7] = [
    "passing(",
    "in_doubt(",
    "rule: ",
    "BUSY: &str = ",
    "Delivery::Unknown, ",
    "Delivery::Answered, ",
    "Delivery::NotSent, ",
];
const HEADERS: [&str; 3] = ["grpc-status", "retry-after-ms", "x-ms-retry-after-ms"];
