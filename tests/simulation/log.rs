//! What the library logs goes into the story, and is searched for secrets.

use std::fmt::{Debug, Write as _};

use tracing::{
    Event, Metadata, Subscriber,
    field::{Field, Visit},
    span::{Attributes, Id, Record},
};

use crate::{nature::Nature, promises};

pub(crate) struct Listener;

impl Subscriber for Listener {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target().starts_with("steadfast")
    }

    fn new_span(&self, attributes: &Attributes<'_>) -> Id {
        let mut line = Line { text: String::new(), words: String::new() };
        attributes.record(&mut line);
        line.is_checked();
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, values: &Record<'_>) {
        let mut line = Line { text: String::new(), words: String::new() };
        values.record(&mut line);
        line.is_checked();
    }

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        let Some(nature) = Nature::present() else { return };
        let mut line = Line { text: event.metadata().target().to_owned(), words: String::new() };
        event.record(&mut line);
        nature.check(promises::no_secret_in_any_output("the log", &line.text));
        nature.note(format_args!("{}", line.text));
        nature.meets(line.words.split('(').next().unwrap_or_default());
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

struct Line {
    text: String,
    /// The message, or the rule where there is one.
    words: String,
}

impl Line {
    fn is_checked(&self) {
        if let Some(nature) = Nature::present() {
            nature.check(promises::no_secret_in_any_output("a span", &self.text));
        }
    }
}

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        let _ = write!(self.text, " {}={value:?}", field.name());
        if matches!(field.name(), "message" | "rule" | "reason" | "rejection") {
            self.words.clear();
            let _ = write!(self.words, "{value:?}");
            self.words.retain(|letter| letter != '"');
        }
    }
}
