//! The tables of the documentation.

use std::collections::BTreeSet;

pub(crate) const BOOK: &str = include_str!("../../src/telemetry.md");

/// A name, or one with a question mark, which is there where it applies.
#[derive(Clone, Debug, Default)]
pub(crate) struct Names {
    pub(crate) always: BTreeSet<String>,
    pub(crate) all: BTreeSet<String>,
}

impl Names {
    fn of(cell: &str) -> Self {
        let mut names = Self::default();
        for name in codes(cell) {
            let bare = name.trim_end_matches('?').to_owned();
            if bare == name {
                names.always.insert(bare.clone());
            }
            names.all.insert(bare);
        }
        names
    }

    pub(crate) fn fit(&self, found: &BTreeSet<String>) -> bool {
        self.always.is_subset(found) && found.is_subset(&self.all)
    }
}

pub(crate) struct Event {
    pub(crate) target: String,
    pub(crate) levels: Vec<String>,
    pub(crate) message: String,
    pub(crate) fields: Names,
}

pub(crate) struct Metric {
    pub(crate) name: String,
    pub(crate) kind: String,
    pub(crate) unit: String,
    pub(crate) labels: Names,
    pub(crate) description: String,
}

pub(crate) fn events() -> Vec<Event> {
    let event = |cells: Vec<String>| Event {
        target: codes(&cells[0]).remove(0),
        levels: codes(&cells[1]),
        message: cells[2].clone(),
        fields: Names::of(&cells[3]),
    };
    table("# Events").into_iter().map(event).collect()
}

/// Target, level, name and fields.
pub(crate) fn spans() -> Vec<(String, String, String, Names)> {
    let span = |cells: Vec<String>| {
        let one = |nth: usize| codes(&cells[nth]).remove(0);
        (one(0), one(1), one(2), Names::of(&cells[3]))
    };
    table("# Spans").into_iter().map(span).collect()
}

/// The names of the rules.
pub(crate) fn rules() -> BTreeSet<String> {
    table("# Rules").iter().flat_map(|cells| codes(&cells[0])).collect()
}

pub(crate) fn metrics() -> Vec<Metric> {
    let metric = |cells: Vec<String>| Metric {
        name: codes(&cells[0]).remove(0),
        kind: cells[1].clone(),
        unit: cells[2].clone(),
        labels: Names::of(&cells[3]),
        description: cells[4].clone(),
    };
    table("# Metrics").into_iter().map(metric).collect()
}

/// A label, the metrics that have it, and its values.
pub(crate) fn values() -> Vec<(String, Vec<String>, BTreeSet<String>)> {
    let (_, rest) = BOOK.split_once("| label | of | values |").unwrap();
    let row =
        |cells: Vec<String>| (codes(&cells[0]).remove(0), codes(&cells[1]), codes(&cells[2]).into_iter().collect());
    rows(rest).map(row).collect()
}

/// The lines that are shown as an example's.
pub(crate) fn shown() -> impl Iterator<Item = &'static str> {
    BOOK.split("```text\n").skip(1).flat_map(|block| block.split("```").next().unwrap().lines())
}

fn table(heading: &str) -> Vec<Vec<String>> {
    let (_, section) = BOOK.split_once(&format!("\n{heading}\n")).unwrap();
    let (_, rest) = section.split_once("\n|").unwrap();
    rows(rest.split_once('\n').unwrap().1).collect()
}

/// What follows a table's first line.
fn rows(text: &str) -> impl Iterator<Item = Vec<String>> {
    let rows = text.trim_start().lines().skip(1).take_while(|line| line.starts_with('|'));
    rows.map(|row| row.trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect())
}

fn codes(cell: &str) -> Vec<String> {
    cell.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}
