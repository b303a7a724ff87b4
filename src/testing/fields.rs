//! The fields of a token endpoint's answer: what was issued, and what a test wants to be different about it.

use std::collections::BTreeMap;

use serde_json::{Map, Value};
use url::form_urlencoded::Serializer;

use super::grants::{Mint, Pair, Successor};
use crate::Lifetime;

/// An object to answer with, as the changes to what a good server would say.
#[derive(Clone, PartialEq)]
pub(super) struct Fields {
    issues: bool,
    form: bool,
    edits: BTreeMap<String, Edit>,
}

#[derive(Clone, PartialEq)]
pub(super) enum Edit {
    Set(Value),
    LeaveOut,
}

impl Fields {
    /// The changes to an issued token, or to an empty object.
    pub(super) const fn new(issues: bool) -> Self {
        Self { issues, form: false, edits: BTreeMap::new() }
    }

    pub(super) fn edit(&mut self, name: &str, edit: Edit) {
        self.edits.insert(name.to_owned(), edit);
    }

    pub(super) const fn encode_as_form(&mut self) {
        self.form = true;
    }

    /// The OAuth error code, if there is one.
    pub(super) fn error(&self) -> Option<&str> {
        match self.edits.get("error")? {
            Edit::Set(code) => code.as_str(),
            Edit::LeaveOut => None,
        }
    }

    /// What to issue, if anything is to be issued.
    pub(super) fn mint(&self) -> Option<Mint> {
        let named = |edit: &Edit| match edit {
            Edit::Set(value) => value.as_str().map(str::to_owned),
            Edit::LeaveOut => None,
        };
        self.issues.then(|| Mint {
            access_token: self.edits.get("access_token").and_then(named),
            refresh_token: self
                .edits
                .get("refresh_token")
                .map_or(Successor::Minted, |edit| named(edit).map_or(Successor::Omitted, Successor::Named)),
            lifetime: match self.edits.get("expires_in") {
                None => Lifetime::from_secs(LIFETIME.into()),
                Some(Edit::LeaveOut) => Lifetime::Unknown,
                Some(Edit::Set(Value::Number(seconds))) => Lifetime::from_secs(seconds.as_f64().unwrap_or(f64::NAN)),
                Some(Edit::Set(Value::String(text))) => Lifetime::from_text(text),
                Some(Edit::Set(_)) => Lifetime::Malformed,
            },
        })
    }

    /// The content type and the body, with what was issued.
    pub(super) fn encode(&self, issued: Option<&Pair>) -> (&'static str, Vec<u8>) {
        let mut fields = issued.map(to_fields).unwrap_or_default();
        for (name, edit) in &self.edits {
            match edit {
                Edit::Set(value) => fields.insert(name.clone(), value.clone()),
                Edit::LeaveOut => fields.remove(name),
            };
        }
        if self.form { (FORM, to_form(&fields).into()) } else { (JSON, Value::Object(fields).to_string().into()) }
    }
}

fn to_fields(issued: &Pair) -> Map<String, Value> {
    let mut fields = Map::new();
    let mut set = |name: &str, value| fields.insert(name.to_owned(), value);
    set("access_token", issued.access_token.clone().into());
    set("token_type", "Bearer".into());
    set("expires_in", LIFETIME.into());
    if let Some(token) = &issued.refresh_token {
        set("refresh_token", token.clone().into());
    }
    fields
}

fn to_form(fields: &Map<String, Value>) -> String {
    let mut form = Serializer::new(String::new());
    for (name, value) in fields {
        let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        form.append_pair(name, &text);
    }
    form.finish()
}

pub(super) const JSON: &str = "application/json";
pub(super) const FORM: &str = "application/x-www-form-urlencoded";
/// Seconds.
const LIFETIME: u32 = 3600;
