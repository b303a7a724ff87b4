//! What the README repeats is still true.

use std::time::Duration;

use steadfast::{ForcedRefreshes, RefreshPolicy};

const README: &str = include_str!("../README.md");
const DRILL: &str = include_str!("../examples/outage/drill.rs");
const BENCHES: [&str; 6] = [
    include_str!("../benches/figures/token.rs"),
    include_str!("../benches/figures/layer.rs"),
    include_str!("../benches/figures/classify.rs"),
    include_str!("../benches/figures/herd.rs"),
    include_str!("../benches/figures/outage.rs"),
    include_str!("../benches/figures/idle.rs"),
];
const MANIFEST: &str = include_str!("../Cargo.toml");

#[test]
fn the_readme_names_the_rust_version_of_the_manifest() {
    let version = MANIFEST.split_once("rust-version = \"").and_then(|(_, rest)| rest.split_once('"')).unwrap().0;
    assert!(README.contains(&format!("Rust ({version} or newer)")));
}

/// The newest release that it describes is the manifest's, or what comes next is described under `Unreleased`.
#[test]
fn the_changelog_begins_with_the_version_of_the_manifest_or_with_what_is_to_come() {
    let version = MANIFEST.split_once("\nversion = \"").and_then(|(_, rest)| rest.split_once('"')).unwrap().0;
    let changelog = include_str!("../CHANGELOG.md");
    let mut sections = changelog.split("\n## [").skip(1);
    let newest = sections.next().unwrap();
    let is_release = |section: &str| {
        let mut date = section.split_once("] - ").map_or("", |(_, rest)| rest.lines().next().unwrap()).split('-');
        let digits =
            [4, 2, 2].map(|digits| date.next().is_some_and(|part| part.parse::<u16>().is_ok() && part.len() == digits));
        digits == [true; 3] && date.next().is_none()
    };
    if newest.starts_with("Unreleased]\n") {
        let released = sections.next().is_some_and(|section| section.starts_with(&format!("{version}] - ")));
        let comes = newest.contains("\n- **");
        assert!(released || comes, "{version} is described nowhere");
    } else {
        assert!(newest.starts_with(&format!("{version}] - ")) && is_release(newest), "{version} is not on top");
    }
    for section in changelog.split("\n## [").skip(2) {
        assert!(is_release(section), "a release without a date: {}", section.lines().next().unwrap());
    }
    for heading in changelog.lines().filter_map(|line| line.strip_prefix("### ")) {
        let known = ["Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"];
        assert!(known.contains(&heading), "{heading} is none of {known:?}");
    }
}

#[test]
fn the_readme_lists_every_default_of_the_policy() {
    let RefreshPolicy {
        initial_retry_interval,
        max_retry_interval,
        max_tries,
        max_elapsed,
        auth_retrying_tick,
        auth_retrying_ceiling,
        attempt_timeout,
        caller_wait,
        blip_wait,
        demand_probe_interval,
        refresh_ahead: _,
        expiry_margin,
        assumed_lifetime,
        retry_after_cap,
        forced_refreshes: ForcedRefreshes { burst, refill },
        settle,
        clock_check,
    } = RefreshPolicy::DEFAULT;
    for (field, default) in [
        ("initial_retry_interval", shown(initial_retry_interval)),
        ("max_retry_interval", shown(max_retry_interval)),
        ("max_tries", max_tries.to_string()),
        ("max_elapsed", shown(max_elapsed)),
        ("auth_retrying_tick", shown(auth_retrying_tick)),
        ("auth_retrying_ceiling", shown(auth_retrying_ceiling)),
        ("attempt_timeout", shown(attempt_timeout)),
        ("caller_wait", shown(caller_wait)),
        ("blip_wait", shown(blip_wait)),
        ("demand_probe_interval", demand_probe_interval.map_or("none".to_owned(), shown)),
        ("expiry_margin", shown(expiry_margin)),
        ("assumed_lifetime", assumed_lifetime.map_or("none".to_owned(), shown)),
        ("retry_after_cap", shown(retry_after_cap)),
        ("forced_refreshes", format!("a burst of {burst}, one back every {}", shown(refill))),
        ("settle", shown(settle)),
        ("clock_check", shown(clock_check)),
    ] {
        let row = format!("| `{field}` | {default} |");
        assert!(README.contains(&row), "the README has no row {row:?}");
    }
}

#[test]
fn the_readme_names_every_environment_variable() {
    for line in include_str!("../src/policy.rs").lines() {
        if let Some(name) = line.trim().strip_prefix("(\"TOKEN_").and_then(|rest| rest.split('"').next()) {
            assert!(README.contains(&format!("`TOKEN_{name}`")), "the README does not name TOKEN_{name}");
        }
    }
}

#[test]
fn the_readme_begins_with_the_two_commands_that_prove_it() {
    let top: String = README.lines().take(20).collect::<Vec<_>>().join("\n");
    assert!(top.contains("cargo run --example outage") && top.contains("cargo test"));
}

#[test]
fn the_readme_shows_what_the_drill_prints_in_80_columns() {
    let (_, block) = README.split_once("```text\n").unwrap();
    let (block, _) = block.split_once("```").unwrap();
    assert_eq!(block.lines().find(|line| line.chars().count() > 80), None);
    let phases: Vec<_> = DRILL.split("drill.phase(\"").skip(1).map(|call| call.split('"')).collect();
    assert!(phases.len() > 5);
    for mut phase in phases {
        let (name, scene) = (phase.next().unwrap(), phase.nth(1).unwrap());
        let is_told = |line: &str| line.split_once(" s  ").is_some_and(|(_, told)| told == scene);
        assert!(block.lines().any(is_told), "the README does not tell {scene:?}");
        assert!(block.lines().any(|line| line.starts_with(&format!("{name:<12}"))), "the README has no row {name:?}");
    }
    let (_, verdict) = block.split_once("PASSED ").unwrap();
    let verdict = verdict.trim_end().split_once(' ').unwrap().1;
    assert!(DRILL.contains(&format!("{{calls}} {verdict}\")")), "the drill does not end with {verdict:?}");
}

#[test]
fn each_figure_of_the_readme_is_printed_by_the_command_beside_it() {
    let (_, figures) = README.split_once("\n## Figures\n").unwrap();
    let (figures, _) = figures.split_once("\n## ").unwrap();
    assert!(figures.contains("`cargo bench --bench figures` prints the table"));
    let benches: String = BENCHES.concat().split_whitespace().collect();
    let rows = figures.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| what"));
    let mut count = 0;
    for row in rows {
        let what = row.split(" | ").next().unwrap().trim_start_matches("| ");
        // Its floor, and what the bench fills in, stand elsewhere in the source.
        let name = what.split(" (").next().unwrap();
        let is_printed = name
            .split(|sign: char| sign.is_ascii_digit())
            .map(|part| part.split_whitespace().collect::<String>())
            .all(|part| benches.contains(&part));
        assert!(is_printed || name == "one parked in a `TokenRegistry`", "no bench prints {name:?}");
        count += 1;
    }
    assert!(count > 15, "{count} rows");
}

#[test]
fn each_promise_of_the_security_page_names_its_tests_and_they_are_in_the_files_it_names() {
    let page = include_str!("../src/security.md");
    let (_, promises) = page.split_once("\n# Promises\n").unwrap();
    let (promises, _) = promises.split_once("\n# ").unwrap();
    let promises: Vec<&str> = promises.split("\n\n").last().unwrap().split(". **").skip(1).collect();
    assert_eq!(promises.len(), 14);
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    for promise in promises {
        let (mut tests, mut source) = (0, String::new());
        for name in promise.split('`').skip(1).step_by(2) {
            if name.ends_with(".rs") {
                let file = if name.starts_with("src/") { root.join(name) } else { root.join("tests").join(name) };
                source = std::fs::read_to_string(&file).unwrap_or_else(|error| panic!("{name}: {error}"));
            } else if name.matches('_').count() > 2 {
                assert!(source.contains(&format!("fn {name}(")), "{name} is not where the page says");
                tests += 1;
            }
        }
        assert!(tests > 0, "no test is named for: {promise}");
    }
}

/// As people write it: `90s` is `1m 30s` without the blank, a day is `24h`.
fn shown(span: Duration) -> String {
    match span.as_secs() {
        secs if secs > 0 && secs % 3600 == 0 => format!("{}h", secs / 3600),
        secs if secs > 0 && secs % 60 == 0 => format!("{}m", secs / 60),
        secs => format!("{secs}s"),
    }
}
