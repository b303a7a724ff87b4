//! The list of challenges (RFC 9110 §5.6.1 and §11.6.1), read forgivingly.
//!
//! A scheme is taken for one only where a list element begins. So an unquoted sentence cannot invent a challenge, while
//! parameters without a comma between them are still found.

use std::ops::ControlFlow;

use super::Challenge;

/// Reads header lines as one list. A quoted string without an end stops at the end of its line.
pub(super) fn challenges<'a>(lines: impl Iterator<Item = &'a [u8]>) -> Vec<Challenge> {
    let mut read = Vec::new();
    let mut budget = MAX_BYTES;
    for line in lines {
        let Some(left) = budget.checked_sub(line.len()) else {
            continue;
        };
        budget = left;
        if read_line(&String::from_utf8_lossy(line), &mut read).is_break() {
            break;
        }
    }
    read
}

/// Each step takes at least one character off the rest, and looks ahead no further than the steps after it take off: the
/// time is linear.
fn read_line(line: &str, read: &mut Vec<Challenge>) -> ControlFlow<()> {
    let mut rest = Rest(line);
    let mut element_begins = true;
    loop {
        rest.skip_blanks();
        if rest.0.is_empty() {
            return ControlFlow::Continue(());
        }
        if rest.skip(',') {
            element_begins = true;
            continue;
        }
        let word = rest.take_while(is_token);
        if word.is_empty() {
            rest.skip_junk();
            continue;
        }
        rest.skip_blanks();
        if rest.skip('=') {
            rest.skip_blanks();
            let value = rest.value();
            if let Some(challenge) = read.last_mut()
                && challenge.params.len() < MAX_PARAMS
            {
                challenge.params.push((word.to_ascii_lowercase(), value));
            }
        } else if element_begins {
            if read.len() == MAX_CHALLENGES {
                return ControlFlow::Break(());
            }
            read.push(Challenge {
                scheme: word.to_owned(),
                token68: rest.token68().map(str::to_owned),
                params: Vec::new(),
            });
        }
        element_begins = false;
    }
}

/// What is left of a line.
struct Rest<'a>(&'a str);

impl<'a> Rest<'a> {
    fn take_while(&mut self, fits: impl Fn(char) -> bool) -> &'a str {
        let end = self.0.find(|next| !fits(next)).unwrap_or(self.0.len());
        let (taken, rest) = self.0.split_at(end);
        self.0 = rest;
        taken
    }

    fn skip_blanks(&mut self) {
        self.0 = self.0.trim_start_matches(is_blank);
    }

    fn skip(&mut self, sign: char) -> bool {
        let rest = self.0.strip_prefix(sign);
        self.0 = rest.unwrap_or(self.0);
        rest.is_some()
    }

    /// A quoted string where none belongs goes as a whole, lest its content be read as challenges.
    fn skip_junk(&mut self) {
        if self.quoted().is_none() {
            let mut rest = self.0.chars();
            rest.next();
            self.0 = rest.as_str();
        }
    }

    /// A quoted string, or what servers send for a token: an address without quotes, for one.
    fn value(&mut self) -> String {
        self.quoted().unwrap_or_else(|| {
            let ends = |next| is_blank(next) || matches!(next, ',' | ';' | '"');
            self.take_while(|next| !ends(next)).to_owned()
        })
    }

    fn quoted(&mut self) -> Option<String> {
        let mut rest = self.0.strip_prefix('"')?.chars();
        let mut text = String::new();
        while let Some(next) = rest.next() {
            match next {
                '"' => break,
                '\\' => text.extend(rest.next()),
                _ => text.push(next),
            }
        }
        self.0 = rest.as_str();
        Some(text)
    }

    /// Takes a token68 only if nothing else stands in its list element: `a=` is one, and `a=b` is a parameter.
    fn token68(&mut self) -> Option<&'a str> {
        let mut ahead = Rest(self.0);
        let data = ahead.take_while(is_token68);
        let padding = ahead.take_while(|next| next == '=');
        ahead.skip_blanks();
        if data.is_empty() || !(ahead.0.is_empty() || ahead.0.starts_with(',')) {
            return None;
        }
        let (token68, _) = self.0.split_at(data.len() + padding.len());
        self.0 = ahead.0;
        Some(token68)
    }
}

/// `tchar` (RFC 9110 §5.6.2).
const fn is_token(sign: char) -> bool {
    sign.is_ascii_alphanumeric()
        || matches!(sign, '!' | '#' | '$' | '%' | '&' | '\'' | '*' | '+' | '-' | '.' | '^' | '_' | '`' | '|' | '~')
}

/// `token68` without its padding (RFC 9110 §11.2).
const fn is_token68(sign: char) -> bool {
    sign.is_ascii_alphanumeric() || matches!(sign, '-' | '.' | '_' | '~' | '+' | '/')
}

/// Blanks of a header, and the line breaks that a text from elsewhere may have.
const fn is_blank(sign: char) -> bool {
    matches!(sign, ' ' | '\t' | '\r' | '\n')
}

const MAX_BYTES: usize = 64 * 1024;
const MAX_CHALLENGES: usize = 32;
const MAX_PARAMS: usize = 64;
