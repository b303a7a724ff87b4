//! What a process knows of its login besides what is stored, and what a stored record means in view of that. No I/O.

use tokio::task::JoinHandle;

use super::transaction::Basis;
use crate::store::{Content, Fingerprint, Identity, Lease, Record, Revision, StoreError, StoredGrant};

#[derive(Default)]
pub(super) struct Memory {
    /// The newest state that this process has seen in the store, or has put there.
    pub(super) known: Option<Record>,
    pub(super) unsaved: Option<Unsaved>,
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
    /// The refresh tokens that were spent on the way to it. Whatever holds one of them may be replaced; whatever holds
    /// another is somebody else's.
    spent: Vec<Fingerprint>,
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
        if let Some(standing) = self.unsaved.as_ref().and_then(|unsaved| unsaved.weigh(stored)) {
            return standing;
        }
        match &self.known {
            // Where refresh tokens are not rotated, an older one is as good.
            Some(known) if stored.is_before(known) && refresh_token(stored) != refresh_token(known) => {
                Standing::Lost(StoreError::RolledBack)
            }
            Some(_) | None => Standing::Counts,
        }
    }

    /// What is stored now, and nothing is unsaved any more.
    pub(super) fn settle(&mut self, stored: Record) {
        (self.known, self.unsaved) = (Some(stored), None);
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
        let mut spent = self.unsaved.take().map(|unsaved| unsaved.spent).unwrap_or_default();
        spent.extend(from.grant.fingerprint());
        self.unsaved = Some(Unsaved { record: Record::after(from.base, content), spent });
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
    fn weigh(&self, stored: &Record) -> Option<Standing> {
        let replaceable = Standing::Open(Some(stored.revision()));
        match (self.record.content(), stored.content()) {
            (Content::Grant(ours), Content::Grant(theirs)) => {
                let token = theirs.fingerprint()?;
                if ours.fingerprint().as_ref() == Some(&token) && !stored.is_before(&self.record) {
                    return Some(Standing::Saved);
                }
                self.spent.contains(&token).then_some(replaceable)
            }
            (Content::Tombstone(_), Content::Grant(theirs)) => {
                self.spent.contains(&theirs.fingerprint()?).then_some(replaceable)
            }
            // A tombstone holds no login: a good one takes its place, unless it is the very one that was condemned.
            (Content::Grant(_), Content::Tombstone(_)) => {
                let is_about_ours = stored.is_of_the_sign_in_of(&self.record) && !stored.is_before(&self.record);
                (!is_about_ours).then_some(replaceable)
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
