//! A text that an error prints.

use std::{fmt, io};

use steadfast::classify::{Class, Classifier, Evidence};

pub fn holds(data: &[u8]) {
    whatever_is_read_stands_there(&String::from_utf8_lossy(data));
}

pub fn whatever_is_read_stands_there(text: &str) {
    let read = Classifier::standard().classify_text(text);
    let small = text.to_ascii_lowercase();

    if read.evidence() == Evidence::None {
        assert_eq!((read.class(), read.rule()), (Class::Unknown, "unrecognised"));
    } else {
        let rule = Classifier::rules().find(|rule| rule.name == read.rule()).expect("a rule of ours");
        assert_eq!(rule.evidence, Evidence::Text);
        for word in rule.name.split('-').filter(|&word| word != "nnn") {
            assert!(small.contains(&word.to_ascii_lowercase()), "{word:?} of {rule:?} is not in {text:?}");
        }
        let without = Classifier::standard().without(rule.name).classify_text(text);
        assert_ne!(without.rule(), rule.name);
    }

    let of_an_error = Classifier::standard().classify(&io::Error::other(Says(text.to_owned())));
    assert_eq!((of_an_error.class(), of_an_error.rule()), (read.class(), read.rule()), "{text:?}");

    if text.len() >= WINDOW {
        let longer = format!("{text} 401 unauthorized");
        assert_eq!(Classifier::standard().classify_text(&longer), read, "what stands after the window was read");
    }
}

#[derive(Debug)]
struct Says(String);

impl fmt::Display for Says {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Says {}

const WINDOW: usize = 4096;
