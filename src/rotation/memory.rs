//! What a process knows of its login besides what is stored, and what a stored record means in view of that. No I/O.

use std::collections::VecDeque;

use tokio::task::JoinHandle;

use super::transaction::Basis;
use crate::store::{Content, Fingerprint, Identity, Lease, Record, Revision, StoreError, StoredGrant};

#[derive(Default)]
pub(super) struct Memory {
    /// The newest state that this process has seen in the store, or has put there.
    pub(super) known: Option<Record>,
    pub(super) unsaved: Option<Unsaved>,
    /// The refresh tokens that exchanges of this process have used up. They are never sent again, wherever they turn up, and
    /// what holds one of them is worth nothing.
    spent: VecDeque<Fingerprint>,
    /// States from before what is known.
    replaced: VecDeque<Revision>,
    /// Ours, for the length of a transaction, and for as long as a pair is unsaved: while it is held, nobody spends the stored
    /// refresh token a second time.
    pub(super) lease: Option<Lease>,
    /// Saves what is unsaved. Ends with its runtime, like any task; the next transaction then starts another.
    pub(super) saver: Option<JoinHandle<()>>,
}

/// The newest pair, or the note that it was rejected. Nobody else has it.
#[derive(Clone)]
pub(super) struct Unsaved {
    /// As it is to be committed.
    pub(super) record: Record,
    /// The refresh token that it holds, or condemns.
    of: Option<Fingerprint>,
}

/// What a stored record means to a process with this memory.
pub(super) enum Standing {
    /// Nothing that counts is stored: what this process has may take the place of this.
    Open(Option<Revision>),
    /// The unsaved pair is what is stored: a commit that was taken for failed has landed.
    Saved(Record),
    /// It counts more than what this process has.
    Counts(Record),
    /// It is from before what this process has seen there.
    Older(Revision),
    /// It is not what this process has seen there, and only the host knows what to do.
    Lost(StoreError),
}

impl Memory {
    pub(super) fn weigh(&self, identity: &Identity, stored: Option<Record>) -> Standing {
        let Some(stored) = stored else {
            return match &self.known {
                Some(known) if is_spent_by_use(known) => Standing::Lost(StoreError::Gone),
                Some(_) | None => Standing::Open(None),
            };
        };
        if stored.identity() != identity {
            return Standing::Lost(StoreError::Foreign);
        }
        let is_spent = refresh_token(&stored).is_some_and(|token| self.spent.contains(&token));
        if let Some(unsaved) = &self.unsaved {
            if unsaved.is(&stored) {
                return Standing::Saved(stored);
            }
            if unsaved.may_replace(&stored, is_spent) {
                return Standing::Open(Some(stored.revision()));
            }
        }
        let is_older = |known| {
            let is_before = stored.is_before(known) || self.replaced.contains(&stored.revision());
            // Where refresh tokens are not rotated, an older state is as good.
            is_before && refresh_token(&stored) != refresh_token(known)
        };
        if is_spent || self.known.as_ref().is_some_and(is_older) {
            return Standing::Older(stored.revision());
        }
        Standing::Counts(stored)
    }

    /// Whether a login that begins with this grant has gone on to another refresh token, as far as this process knows and what
    /// is stored tells.
    pub(super) fn is_used_up(&self, begun: &StoredGrant, stored: Option<&Record>) -> bool {
        let Some(token) = begun.fingerprint() else { return false };
        let record = Record::after(None, Content::Grant(begun.clone()));
        let newer = self.unsaved.as_ref().map(|unsaved| &unsaved.record).into_iter().chain(&self.known).chain(stored);
        // A tombstone is none the worse for it.
        let has_gone_on = |newer| record.is_before(newer) && refresh_token(newer).is_some_and(|newer| newer != token);
        self.spent.contains(&token) || newer.into_iter().any(has_gone_on)
    }

    /// What is stored now, and nothing is unsaved any more.
    pub(super) fn settle(&mut self, stored: Record) {
        // What was given up may have landed unseen.
        let given_up = self.unsaved.take().map(|unsaved| unsaved.record);
        for before in self.known.take().into_iter().chain(given_up) {
            if before.revision() != stored.revision() {
                self.distrust(before.revision());
            }
        }
        self.known = Some(stored);
    }

    /// This is not the newest state, wherever it turns up again.
    pub(super) fn distrust(&mut self, older: Revision) {
        if !self.replaced.contains(&older) {
            self.replaced.truncate(REMEMBERED);
            self.replaced.push_front(older);
        }
    }

    /// What is unsaved is to take the place of this.
    pub(super) fn rebase(&mut self, base: Option<Revision>) {
        match &mut self.unsaved {
            Some(unsaved) if unsaved.record.replaces() != base => {
                unsaved.record = Record::after(base, unsaved.record.content().clone());
            }
            Some(_) => {}
            None => self.known = None,
        }
    }

    /// What came of an exchange, good or bad: from now on it counts, and the refresh token it was exchanged from does not.
    pub(super) fn owe(&mut self, from: &Basis, content: Content) {
        let sent = from.grant.fingerprint();
        let of = match &content {
            Content::Grant(grant) => grant.fingerprint(),
            Content::Tombstone(_) => sent.clone(),
        };
        if let Some(sent) = sent.filter(|sent| of.as_ref() != Some(sent)) {
            self.spent.truncate(REMEMBERED);
            self.spent.push_front(sent);
        }
        self.unsaved = Some(Unsaved { record: Record::after(from.base, content), of });
    }

    /// The newest that this process has, good or bad.
    pub(super) fn latest(&self) -> Option<&Content> {
        self.unsaved.as_ref().map(|unsaved| &unsaved.record).or(self.known.as_ref()).map(Record::content)
    }

    /// The newest pair this process has.
    pub(super) fn newest(&self) -> Option<&StoredGrant> {
        match self.latest()? {
            Content::Grant(grant) => Some(grant),
            Content::Tombstone(_) => None,
        }
    }

    /// A lease is worth keeping while a good pair is unsaved. A note that the login is dead protects nothing.
    pub(super) fn needs_its_lease(&self) -> bool {
        self.unsaved.as_ref().is_some_and(|unsaved| grant(&unsaved.record).is_some())
    }
}

impl Unsaved {
    fn is(&self, stored: &Record) -> bool {
        let are_pairs = grant(&self.record).is_some() && grant(stored).is_some();
        are_pairs && refresh_token(stored) == self.of && !stored.is_before(&self.record)
    }

    fn may_replace(&self, stored: &Record, is_spent: bool) -> bool {
        let is_about_ours = refresh_token(stored) == self.of;
        match (self.record.content(), stored.content()) {
            // What is stored is what it came from, however many exchanges ago: those spent are remembered for a while only.
            _ if self.record.replaces() == Some(stored.revision()) => true,
            (Content::Grant(_), Content::Grant(_)) => is_spent || is_about_ours,
            // The same refresh token may have had success since, where they are not rotated.
            (Content::Tombstone(_), Content::Grant(_)) => {
                is_spent || is_about_ours && self.record.is_the_state_of(stored)
            }
            // A tombstone holds no login: a good one takes its place, unless it is the very one that was condemned.
            (Content::Grant(_), Content::Tombstone(_)) => {
                stored.is_before(&self.record) || !stored.is_of_the_sign_in_of(&self.record)
            }
            (Content::Tombstone(_), Content::Tombstone(_)) => false,
        }
    }
}

fn grant(record: &Record) -> Option<&StoredGrant> {
    match record.content() {
        Content::Grant(grant) => Some(grant),
        Content::Tombstone(_) => None,
    }
}

fn refresh_token(record: &Record) -> Option<Fingerprint> {
    grant(record).and_then(StoredGrant::fingerprint)
}

/// A login of a kind that an exchange uses up. Others can begin anew at any time.
fn is_spent_by_use(record: &Record) -> bool {
    grant(record).is_none_or(|grant| grant.refresh_token().is_some())
}

/// Whoever puts back a store takes one of its latest states; and it is a few kilobytes.
const REMEMBERED: usize = 64;
