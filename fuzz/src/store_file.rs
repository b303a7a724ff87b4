//! What a store finds in its file.

use std::{fs, path::Path, time::Duration};

use secrecy::ExposeSecret;
use steadfast::store::{Content, FileStore, GrantStore, Identity, Record, StoreError, StoredGrant, Terms};

use super::{is_fit_to_be_shown, printed};

pub fn holds(data: &[u8]) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("login.json");
    write_private(&path, data);
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let store = FileStore::new(&path);
    match runtime.block_on(store.load()) {
        Ok(record) => {
            let record = record.expect("there is a file");
            no_secret_is_printed(&record);
            what_was_read_reads_the_same_when_it_is_written_again(&record);
            a_token_never_lasts_longer_than_it_was_issued_for(&record);
        }
        Err(error) => {
            an_error_says_nothing_of_what_is_stored(&error, data);
            runtime.block_on(what_cannot_be_read_stays_as_it_is(&store, &path, data));
        }
    }
}

fn no_secret_is_printed(record: &Record) {
    let shown = format!("{record:?} {record:#?} {:?}", record.to_json());
    let Content::Grant(grant) = record.content() else { return };
    let access_token = grant.access_token().map(|token| token.at(Duration::ZERO));
    let access_token = access_token.as_ref().map(|token| token.expose_secret());
    let refresh_token = grant.refresh_token().map(ExposeSecret::expose_secret);
    let text = record.to_json();
    for secret in access_token.into_iter().chain(refresh_token) {
        let text = text.expose_secret();
        // What stands in the record once is nothing but the secret.
        if text.matches(secret).count() == 1 {
            let other = Record::from_json(&text.replace(secret, &"x".repeat(secret.len()))).unwrap();
            assert_eq!(format!("{other:?} {other:#?} {:?}", other.to_json()), shown, "the secret is shown");
        }
    }
}

fn what_was_read_reads_the_same_when_it_is_written_again(record: &Record) {
    let text = record.to_json();
    let again = Record::from_json(text.expose_secret()).unwrap();
    assert_eq!(again.to_json().expose_secret(), text.expose_secret());
    assert_eq!((again.revision(), again.identity()), (record.revision(), record.identity()));
    assert!(record.revision().get() > 0);
    assert!(record.replaces().is_none_or(|replaced| replaced.get() < record.revision().get()));
}

fn a_token_never_lasts_longer_than_it_was_issued_for(record: &Record) {
    let Content::Grant(grant) = record.content() else { return };
    let Some(token) = grant.access_token() else { return };
    for now in [Duration::ZERO, Duration::from_secs(1_700_000_000), Duration::MAX] {
        let left = token.at(now).lifetime().known();
        assert!(left.is_none() || left <= token.lifetime(), "{left:?} of {:?}", token.lifetime());
    }
}

/// Not a word of it: the place where reading ends may be inside a token.
fn an_error_says_nothing_of_what_is_stored(error: &StoreError, data: &[u8]) {
    assert!(matches!(error, StoreError::Corrupt(_) | StoreError::Newer), "{error:?}");
    let printed = printed(error).replace('\n', " ");
    assert!(printed.len() <= 1000 && is_fit_to_be_shown(&printed), "{printed:?}");
    let text = String::from_utf8_lossy(data);
    let words = text.split(|sign: char| !sign.is_ascii_alphanumeric() && !"-_.".contains(sign));
    for word in words.filter(|word| word.len() >= LONGER_THAN_OUR_OWN) {
        assert!(!printed.contains(word), "{word:?} in {printed}");
    }
}

async fn what_cannot_be_read_stays_as_it_is(store: &FileStore, path: &Path, data: &[u8]) {
    let identity = Identity::new("alice", "https://login.example.com/token", "fuzzer");
    let login = StoredGrant::new(identity, Terms::default(), "rt-1");
    let lease = store.lease(Duration::from_secs(35)).await.unwrap();
    let refused = store.commit(&lease, &Record::after(None, Content::Grant(login))).await.unwrap_err();
    assert!(matches!(refused, StoreError::Corrupt(_) | StoreError::Newer), "{refused:?}");
    drop(lease);
    assert!(fs::read(path).unwrap() == data);
}

fn write_private(path: &Path, data: &[u8]) {
    let mut options = fs::File::options();
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.write(true).create_new(true).open(path).unwrap();
    std::io::Write::write_all(&mut file, data).unwrap();
}

const LONGER_THAN_OUR_OWN: usize = 14;
