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
    Saved,
    /// It counts more than what this process has.
    Counts,
    /// It is not what this process has seen there, and only the host knows what to do.
    Lost(StoreError),
}

impl Memory {
    pub(super) fn weigh(&self, identity: &Identity, stored: Option<&Record>) -> Standing {
        let Some(stored) = stored else {
            return match &self.known {
                Some(known) if is_spent_by_use(known) => Standing::Lost(StoreError::Gone),
                Some(_) | None => Standing::Open(None),
            };
        };
        if stored.identity() != identity {
            return Standing::Lost(StoreError::Foreign);
        }
        let is_spent = refresh_token(stored).is_some_and(|token| self.spent.contains(&token));
        if let Some(standing) = self.unsaved.as_ref().and_then(|unsaved| unsaved.weigh(stored, is_spent)) {
            return standing;
        }
        let is_older = |known| stored.is_before(known) || self.replaced.contains(&stored.revision());
        match &self.known {
            _ if is_spent => Standing::Lost(StoreError::RolledBack),
            // Where refresh tokens are not rotated, an older state is as good.
            Some(known) if is_older(known) && refresh_token(stored) != refresh_token(known) => {
                Standing::Lost(StoreError::RolledBack)
            }
            Some(_) | None => Standing::Counts,
        }
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

    /// The host says that this counts, whatever was known of it.
    pub(super) fn trust(&mut self, stored: Record) {
        let token = refresh_token(&stored);
        self.spent.retain(|spent| Some(spent) != token.as_ref());
        self.settle(stored);
    }

    /// The newest pair this process has.
    pub(super) fn newest(&self) -> Option<&StoredGrant> {
        let newest = self.unsaved.as_ref().map(|unsaved| &unsaved.record).or(self.known.as_ref())?;
        grant(newest)
    }

    /// A lease is worth keeping while a good pair is unsaved. A note that the login is dead protects nothing.
    pub(super) fn needs_its_lease(&self) -> bool {
        self.unsaved.as_ref().is_some_and(|unsaved| grant(&unsaved.record).is_some())
    }
}

impl Unsaved {
    /// `None`: the record has nothing to do with this one.
    fn weigh(&self, stored: &Record, is_spent: bool) -> Option<Standing> {
        let replaceable = Standing::Open(Some(stored.revision()));
        let is_earlier = stored.is_before(&self.record);
        let is_about_ours = refresh_token(stored) == self.of;
        match (self.record.content(), stored.content()) {
            (Content::Grant(_), Content::Grant(_)) if is_about_ours && !is_earlier => Some(Standing::Saved),
            (_, Content::Grant(_)) => (is_spent || is_about_ours).then_some(replaceable),
            // A tombstone holds no login: a good one takes its place, unless it is the very one that was condemned.
            (Content::Grant(_), Content::Tombstone(_)) => {
                (is_earlier || !stored.is_of_the_sign_in_of(&self.record)).then_some(replaceable)
            }
            (Content::Tombstone(_), Content::Tombstone(_)) => None,
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
