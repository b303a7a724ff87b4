//! Processes that share a login, and the one that starts them.

use std::{
    env,
    process::{ExitCode, Stdio},
    time::Instant,
};

use steadfast::{
    BoxError, IssueError, IssueReason, IssueRequest, TokenSource,
    oauth::RefreshTokenGrant,
    rotation::SharedLogin,
    store::GrantStore,
    testing::{Answer, ScriptedIdp},
};
use tokio::process::Command;

use crate::terminal::{Paint, hanging};

/// Starts the processes and says what became of them.
pub(crate) async fn run(processes: u64, turns: u64, place: &str) -> Result<ExitCode, BoxError> {
    let idp = ScriptedIdp::start().await;
    idp.rotating().always(Answer::success());
    let refresh_token = idp.login();
    let began = Instant::now();
    let workers = (1..=processes).map(|number| {
        let worker = Command::new(env::current_exe().unwrap_or_default())
            .env("LOGIN_WORKER", number.to_string())
            .env("LOGIN_TURNS", turns.to_string())
            .env("LOGIN_PLACE", place)
            .env("LOGIN_TOKEN_URL", idp.token_url())
            .env("LOGIN_REFRESH_TOKEN", &refresh_token)
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn();
        async { Ok::<_, BoxError>(worker?.wait_with_output().await?) }
    });
    let (mut exchanged, mut adopted, mut failed) = (0, 0, 0);
    for output in futures_util::future::join_all(workers).await {
        let output = output?;
        let text = String::from_utf8(output.stdout)?;
        print!("{text}");
        let counts: Vec<u64> = text.split_whitespace().filter_map(|word| word.parse().ok()).collect();
        match counts[..] {
            [_, of_its_own, from_others] if output.status.success() => {
                (exchanged, adopted) = (exchanged + of_its_own, adopted + from_others);
            }
            _ => failed += 1,
        }
    }
    let exchanges = format!(
        "{} exchanges at the server for {} tokens in {} ms; {adopted} taken up from others; {failed} processes failed",
        idp.calls(),
        exchanged + adopted,
        began.elapsed().as_millis()
    );
    println!("\n{}", hanging("", &exchanges));
    let wrong = [
        (failed > 0, "a process has failed"),
        (idp.reuse_detected(), "a refresh token was used twice"),
        (idp.most_in_flight() > 1, "two processes refreshed at the same time"),
        (idp.calls() as u64 != exchanged, "a refresh has failed"),
        (exchanged + adopted != processes * turns, "a token is missing"),
        (processes > 1 && turns > 1 && adopted == 0, "nothing was shared"),
    ];
    let wrong: Vec<_> = wrong.iter().filter(|(is_so, _)| *is_so).map(|(_, what)| *what).collect();
    print!("{}", Paint::of_stdout().verdict(&wrong, "no refresh token was used twice, and nobody was signed out"));
    Ok(if wrong.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

pub(crate) fn is_worker() -> bool {
    env::var_os("LOGIN_WORKER").is_some()
}

/// Obtains one token after the other, and says where they came from.
pub(crate) async fn work(store: impl GrantStore) -> Result<(), BoxError> {
    let token_url = env::var("LOGIN_TOKEN_URL")?;
    let grant = RefreshTokenGrant::builder(token_url, "my-cli", env::var("LOGIN_REFRESH_TOKEN")?).build()?;
    let login = SharedLogin::builder(grant, store).account("alice").build();
    let mut turns: u64 = env::var("LOGIN_TURNS")?.parse()?;
    while turns > 0 {
        match login.issue(&IssueRequest::new(IssueReason::Ahead)).await {
            Ok(_) => turns -= 1,
            Err(error) if error.downcast_ref().is_some_and(IssueError::is_busy) => eprintln!("{error}"),
            Err(error) => return Err(error),
        }
    }
    let tally = login.tally();
    let number = env::var("LOGIN_WORKER")?;
    println!(
        "process {number:>2} refreshed {:>3} times and took up {:>3} tokens of others",
        tally.exchanged, tally.adopted
    );
    Ok(())
}
