//! What is logged on a thread. One subscriber for all threads: one per test would come and go while other tests reach a line
//! for the first time, and whether it is wanted is decided then.

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    fmt::Debug,
    sync::Once,
};

use tracing::{
    Event, Level, Subscriber,
    field::{Field, Visit},
    span::{Attributes, Id, Record},
};
use tracing_subscriber::{
    layer::{Context, Layer, SubscriberExt},
    registry::LookupSpan,
    util::SubscriberInitExt,
};

#[derive(Clone, Debug)]
pub(crate) struct Line {
    pub(crate) target: String,
    pub(crate) level: Level,
    pub(crate) message: String,
    pub(crate) fields: BTreeMap<String, String>,
    /// The spans that it is under, the innermost last.
    pub(crate) spans: Vec<Span>,
}

#[derive(Clone, Debug)]
pub(crate) struct Span {
    pub(crate) target: String,
    pub(crate) level: Level,
    pub(crate) name: String,
    pub(crate) fields: BTreeMap<String, String>,
}

/// Lines of this crate, from now on.
pub(crate) struct Ear;

impl Ear {
    pub(crate) fn of_this_thread() -> Self {
        static ONCE: Once = Once::new();
        ONCE.call_once(|| tracing_subscriber::registry().with(Listening).init());
        HEARD.set(Some(Heard::default()));
        Self
    }

    pub(crate) fn lines(&self) -> Vec<Line> {
        HEARD.with_borrow_mut(|heard| std::mem::take(&mut heard.as_mut().unwrap().lines))
    }

    /// Those that have ended.
    pub(crate) fn spans(&self) -> Vec<Span> {
        HEARD.with_borrow_mut(|heard| std::mem::take(&mut heard.as_mut().unwrap().spans))
    }

    /// At `WARN` and above: level and target, and how many.
    pub(crate) fn alarms(&self) -> BTreeMap<(String, String), usize> {
        let mut alarms = BTreeMap::new();
        for line in self.lines().into_iter().filter(|line| line.level <= Level::WARN) {
            *alarms.entry((line.level.to_string(), line.target)).or_default() += 1;
        }
        alarms
    }
}

impl Line {
    pub(crate) fn names(&self) -> BTreeSet<String> {
        self.fields.keys().cloned().collect()
    }
}

#[derive(Default)]
struct Heard {
    lines: Vec<Line>,
    spans: Vec<Span>,
}

struct Listening;

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Listening {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let mut fields = Fields::default();
        attributes.record(&mut fields);
        let meta = attributes.metadata();
        let (target, level, name) = (meta.target().to_owned(), *meta.level(), meta.name().to_owned());
        let span = Span { target, level, name, fields: fields.0 };
        context.span(id).unwrap().extensions_mut().insert(span);
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, context: Context<'_, S>) {
        let mut fields = Fields::default();
        values.record(&mut fields);
        let span = context.span(id).unwrap();
        span.extensions_mut().get_mut::<Span>().unwrap().fields.extend(fields.0);
    }

    fn on_close(&self, id: Id, context: Context<'_, S>) {
        let span = context.span(&id).unwrap().extensions_mut().remove::<Span>().unwrap();
        if span.target.starts_with("steadfast") {
            hear(|heard| heard.spans.push(span));
        }
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let meta = event.metadata();
        if !meta.target().starts_with("steadfast") {
            return;
        }
        let mut fields = Fields::default();
        event.record(&mut fields);
        let message = fields.0.remove("message").unwrap_or_default();
        let scope = context.event_scope(event).into_iter().flat_map(|scope| scope.from_root());
        let spans = scope.filter_map(|span| span.extensions().get::<Span>().cloned()).collect();
        let line = Line { target: meta.target().to_owned(), level: *meta.level(), message, fields: fields.0, spans };
        hear(|heard| heard.lines.push(line));
    }
}

fn hear(note: impl FnOnce(&mut Heard)) {
    // At the very end of a thread there is nobody to hear.
    let _ = HEARD.try_with(|heard| heard.borrow_mut().as_mut().map(note));
}

#[derive(Default)]
struct Fields(BTreeMap<String, String>);

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.0.insert(field.name().to_owned(), format!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.0.insert(field.name().to_owned(), value.to_owned());
    }
}

thread_local! {
    static HEARD: RefCell<Option<Heard>> = const { RefCell::new(None) };
}
