//! What the examples print: 80 columns at most, and colour where it is wanted.
#![allow(dead_code, reason = "each example uses its part of it")]

use std::{ffi::OsStr, io::IsTerminal as _};

/// Colour for a terminal, and none for a pipe. It only repeats what the text says.
#[derive(Clone, Copy)]
pub(crate) struct Paint {
    coloured: bool,
}

/// Colours that can be told apart on dark and on light ground; there, yellow and cyan cannot be read.
#[derive(Clone, Copy)]
pub(crate) enum Ink {
    Good,
    Uneasy,
    Bad,
    Strong,
    Faint,
}

impl Paint {
    pub(crate) const PLAIN: Self = Self { coloured: false };
    pub(crate) const COLOURED: Self = Self { coloured: true };

    pub(crate) fn of_stdout() -> Self {
        let variable = |name| std::env::var_os(name);
        let wanted = wants_colour(variable("NO_COLOR").as_deref(), variable("TERM").as_deref());
        Self { coloured: wanted && std::io::stdout().is_terminal() }
    }

    pub(crate) fn ink(self, ink: Ink, text: &str) -> String {
        let code = match ink {
            Ink::Good => "1;32",
            Ink::Uneasy => "1;35",
            Ink::Bad => "1;31",
            Ink::Strong => "1",
            Ink::Faint => "2",
        };
        if self.coloured { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }

    /// The line at the end of a run: what held, or each promise that did not.
    pub(crate) fn verdict(self, broken: &[impl AsRef<str>], held: &str) -> String {
        let line = |ink, word, text: &str| hanging(&format!("{} ", self.ink(ink, word)), text) + "\n";
        if broken.is_empty() {
            return line(Ink::Good, "PASSED", held);
        }
        broken.iter().map(|promise| line(Ink::Bad, "BROKEN", promise.as_ref())).collect()
    }
}

/// As <https://no-color.org> has it: an empty `NO_COLOR` is none.
fn wants_colour(no_color: Option<&OsStr>, term: Option<&OsStr>) -> bool {
    no_color.is_none_or(OsStr::is_empty) && term.is_none_or(|term| term != "dumb")
}

/// The text beside its margin, under which it goes on as far as it is long.
pub(crate) fn hanging(margin: &str, text: &str) -> String {
    hanging_in(margin, text, str::to_owned)
}

/// The same, each line of the text painted for itself.
pub(crate) fn hanging_in(margin: &str, text: &str, painted: impl Fn(&str) -> String) -> String {
    let indent = columns(margin);
    let lines: Vec<String> = folded(text, COLUMNS - indent).iter().map(|line| painted(line)).collect();
    format!("{margin}{}", lines.join(&format!("\n{:indent$}", "")))
}

/// The text in lines of so many columns, broken between words where that is possible.
fn folded(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        // An address may be longer than a line.
        let letters: Vec<char> = word.chars().collect();
        for piece in letters.chunks(width) {
            let line = lines.last_mut().filter(|line| columns(line) + 1 + piece.len() <= width || line.is_empty());
            match line {
                Some(line) if line.is_empty() => line.extend(piece),
                Some(line) => line.extend([' '].iter().chain(piece)),
                None => lines.push(piece.iter().collect()),
            }
        }
    }
    lines
}

/// As many as the eye sees: a colour takes none.
pub(crate) fn columns(line: &str) -> usize {
    line.split('\x1b')
        .enumerate()
        .map(|(nth, part)| if nth == 0 { part } else { after_colour(part) }.chars().count())
        .sum()
}

fn after_colour(part: &str) -> &str {
    part.split_once('m').map_or(part, |(_, text)| text)
}

/// 270143 is hard to read, 270,143 is not.
pub(crate) fn thousands(number: impl Into<u64>) -> String {
    let digits = number.into().to_string();
    let mut grouped = String::new();
    for (nth, digit) in digits.chars().enumerate() {
        if nth > 0 && (digits.len() - nth) % 3 == 0 {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

pub(crate) const COLUMNS: usize = 80;

/// For the tests of what examples print: the first line that does not fit.
#[cfg(test)]
pub(crate) fn too_wide(text: &str) -> Option<&str> {
    text.lines().find(|line| columns(line) > COLUMNS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colour_is_left_out_for_no_color_and_for_dumb_terminals() {
        let wants =
            |no_color: Option<&str>, term: Option<&str>| wants_colour(no_color.map(OsStr::new), term.map(OsStr::new));
        assert!(wants(None, Some("xterm")) && wants(None, None) && wants(Some(""), Some("xterm")));
        assert!(!wants(Some("1"), Some("xterm")) && !wants(Some("0"), None) && !wants(None, Some("dumb")));
    }

    #[test]
    fn long_texts_are_broken_between_words_at_80_columns() {
        let lines = hanging("why ", "word ".repeat(40).trim());
        assert_eq!(too_wide(&lines), None);
        assert!(lines.lines().skip(1).all(|line| line.starts_with("    word")));
        assert_eq!(lines.matches("word").count(), 40);
        assert_eq!(hanging("why ", &"x".repeat(76)), format!("why {}", "x".repeat(76)));
    }

    #[test]
    fn words_longer_than_a_line_are_broken_anywhere() {
        let lines = hanging("  ", &format!("from {}", "x".repeat(200)));
        assert_eq!(too_wide(&lines), None);
        assert_eq!(lines.matches('x').count(), 200);
    }

    #[test]
    fn colour_takes_no_room() {
        let held = "word ".repeat(40);
        let verdict = |paint: Paint| paint.verdict(&[""; 0], held.trim());
        let bare = verdict(Paint::COLOURED).replace("\x1b[1;32m", "").replace("\x1b[0m", "");
        assert_eq!(bare, verdict(Paint::PLAIN));
        assert_eq!(too_wide(&bare), None);
    }

    #[test]
    fn thousands_are_grouped() {
        assert_eq!([0_u64, 999, 1_000, 1_234_567].map(thousands), ["0", "999", "1,000", "1,234,567"]);
    }
}
