//! The play: an upstream, a token endpoint that fails, clients, and whether the gateway kept its promises.

use std::{future::pending, time::Duration};

use http::{StatusCode, header};
use steadfast::{
    AuthStatus, BoxError, RefreshPolicy, Snapshot,
    oauth::RefreshTokenGrant,
    testing::{Answer, ProtectedApi, ScriptedIdp},
};
use tokio::{
    net::TcpListener,
    task::AbortHandle,
    time::{sleep, timeout},
};

use crate::{
    Gateway,
    clients::{CLIENTS_OWN, Clients, HOP, Tally},
    terminal::{Ink, Paint, hanging},
    timeline::Timeline,
};

pub(crate) struct Demo {
    pace: u32,
    idp: ScriptedIdp,
    api: ProtectedApi,
    gateway: Gateway,
    url: String,
    server: AbortHandle,
    http: reqwest::Client,
    clients: Clients,
    timeline: Timeline,
    /// The sequence number of the last event printed.
    printed: u64,
    phases: Vec<Phase>,
    calls_before: usize,
    broken: Vec<String>,
}

struct Phase {
    name: &'static str,
    tally: Tally,
    readiness: StatusCode,
    said: String,
    calls: usize,
}

impl Demo {
    /// Once, in seconds, with a verdict.
    pub(crate) async fn once() -> Result<bool, BoxError> {
        println!("{}", intro());
        let mut demo = Self::begin(TcpListener::bind("127.0.0.1:0").await?, 1).await?;
        demo.play().await?;
        demo.end().await
    }

    /// Over and over, slowly enough to watch.
    pub(crate) async fn forever(listener: TcpListener) -> Result<bool, BoxError> {
        let mut demo = Self::begin(listener, 6).await?;
        loop {
            demo.play().await?;
        }
    }

    async fn play(&mut self) -> Result<(), BoxError> {
        self.phases.clear();
        self.phase("healthy", "all is well").await?;
        self.until(|now| now.status == AuthStatus::Running && now.serving).await?;
        self.pause(600).await;

        self.phase("refused", "the API revokes the token").await?;
        let (calls, revoked) = (self.idp.calls(), self.gateway.tokens.snapshot().generation);
        self.api.revoke_all();
        self.until(|now| now.generation > revoked).await?;
        self.pause(400).await;
        self.expect(self.idp.calls() == calls + 1, "the refusals cost one refresh");

        self.phase("outage", "a WAF in front of the token endpoint answers 403 with an HTML page").await?;
        self.idp.always(Answer::waf());
        self.until(|now| !now.serving && matches!(now.status, AuthStatus::AuthRetrying(_))).await?;

        self.phase("long window", "the held token has ended; attempts go on").await?;
        self.pause(1_500).await;

        self.phase("recovery", "the WAF lets requests through again; nobody touches anything").await?;
        self.idp.always(success(self.pace));
        self.until(|now| now.status == AuthStatus::Running && now.serving).await?;
        self.pause(1_000).await;

        self.phase("revoked", "the user revokes the login").await?;
        self.idp.revoke_logins();
        self.gateway.tokens.retry_now();
        self.until(|now| matches!(now.status, AuthStatus::Unauthenticated(_))).await?;
        let early = self.ask("/readyz").await?.0 == StatusCode::OK;
        self.expect(early, "the verdict came as an early warning, with the token still served");
        self.until(|now| !now.serving).await?;

        self.phase("no grant", "the held token has ended, too").await?;
        self.pause(500).await;

        self.phase("new login", "the user signs in again").await?;
        self.gateway.tokens.reauthenticate(grant(&self.idp)?)?;
        self.until(|now| now.status == AuthStatus::Running && now.serving).await?;
        self.pause(1_000).await;
        self.close_phase().await
    }

    async fn begin(listener: TcpListener, pace: u32) -> Result<Self, BoxError> {
        let idp = ScriptedIdp::start().await;
        idp.rotating().always(success(pace));
        let api = ProtectedApi::start(&idp).await;
        let gateway = Gateway::new(grant(&idp)?, policy(pace), api.url().parse()?)?;
        let url = format!("http://{}", listener.local_addr()?);
        let server = tokio::spawn(gateway.clone().serve(listener, pending())).abort_handle();
        // All of this is on this machine, whatever proxy the environment names.
        let http = reqwest::Client::builder().no_proxy().build()?;
        let clients = Clients::start(4, Duration::from_millis(20), &http, &url);
        Ok(Self {
            pace,
            http,
            idp,
            api,
            gateway,
            url,
            server,
            clients,
            timeline: Timeline::begin(),
            printed: 0,
            phases: Vec::new(),
            calls_before: 0,
            broken: Vec::new(),
        })
    }

    async fn phase(&mut self, name: &'static str, scene: &str) -> Result<(), BoxError> {
        self.close_phase().await?;
        self.timeline.scene(scene);
        let (readiness, said) = (StatusCode::OK, String::new());
        self.phases.push(Phase { name, tally: Tally::default(), readiness, said, calls: 0 });
        Ok(())
    }

    async fn close_phase(&mut self) -> Result<(), BoxError> {
        let (calls, tally) = (self.idp.calls(), self.clients.take());
        let ((liveness, _), (readiness, said)) = (self.ask("/healthz").await?, self.ask("/readyz").await?);
        self.expect(liveness == StatusCode::OK, "liveness never depends on auth");
        if let Some(phase) = self.phases.last_mut() {
            (phase.tally, phase.readiness, phase.said, phase.calls) =
                (tally, readiness, said, calls - self.calls_before);
            self.calls_before = calls;
        }
        Ok(())
    }

    async fn ask(&self, path: &str) -> Result<(StatusCode, String), BoxError> {
        let answer = self.http.get(format!("{}{path}", self.url)).send().await?;
        if answer.headers().get(header::CACHE_CONTROL).is_none_or(|control| control != "no-store") {
            return Err(format!("{path} may be cached").into());
        }
        Ok((answer.status(), answer.text().await?))
    }

    async fn until(&mut self, wanted: impl Fn(&Snapshot) -> bool) -> Result<(), BoxError> {
        let patience = Duration::from_secs(10) * self.pace;
        let met = async {
            while !wanted(&self.gateway.tokens.snapshot()) {
                self.print_news();
                sleep(GLANCE).await;
            }
            // Requests that were under way belong to what has just ended, and so does the news.
            sleep(GLANCE).await;
            self.print_news();
        };
        timeout(patience, met).await.map_err(|_| "waited in vain for the next scene".into())
    }

    async fn pause(&mut self, millis: u64) {
        sleep(Duration::from_millis(millis) * self.pace).await;
        self.print_news();
    }

    fn print_news(&mut self) {
        for event in self.gateway.history.newest_first().iter().rev().filter(|event| event.sequence > self.printed) {
            self.timeline.status(event);
        }
        self.printed = self.gateway.history.newest_first().first().map_or(0, |event| event.sequence);
    }

    fn expect(&mut self, kept: bool, promise: &str) {
        if !kept {
            self.broken.push(promise.to_owned());
        }
    }

    async fn end(mut self) -> Result<bool, BoxError> {
        self.judge().await?;
        self.server.abort();
        println!("\n{}", table(self.timeline.paint, &self.phases));
        print!("{}", self.timeline.paint.verdict(&self.broken, &held(self.idp.calls())));
        Ok(self.broken.is_empty())
    }

    async fn judge(&mut self) -> Result<(), BoxError> {
        let phase = |name| self.phases.iter().find(|phase| phase.name == name);
        let promises = [
            ("while all was well, each request was served", phase("healthy").is_some_and(Phase::all_served)),
            ("no client saw that the API refused a token", phase("refused").is_some_and(Phase::all_served)),
            ("the held token was served into the outage", phase("outage").is_some_and(|phase| phase.tally.ok > 0)),
            (
                "in the long window each client was told when to come back",
                phase("long window").is_some_and(Phase::all_told),
            ),
            ("recovery needed no human", phase("recovery").is_some_and(|phase| phase.tally.ok > 0)),
            ("requests went on after the login was revoked", phase("revoked").is_some_and(|phase| phase.tally.ok > 0)),
            ("the new login was taken up", phase("new login").is_some_and(|phase| phase.tally.ok > 0)),
            ("readiness followed the token", self.phases.iter().all(Phase::readiness_is_honest)),
            ("one line said whether anything needs doing", self.phases.iter().all(Phase::says_what_to_do)),
            ("clients got 200 or 503 and nothing else", self.phases.iter().all(|phase| phase.tally.other == 0)),
            ("token requests came one at a time", self.idp.most_in_flight() == 1),
            ("no refresh token was sent twice", !self.idp.reuse_detected()),
            (
                "only what is the upstream's went there",
                self.api
                    .log()
                    .iter()
                    .all(|call| call.token().is_some_and(|token| token != CLIENTS_OWN) && call.header(HOP).is_none()),
            ),
        ];
        let broken = promises.iter().filter(|(_, kept)| !kept).map(|(promise, _)| (*promise).to_owned());
        self.broken.extend(broken);

        let json = self.ask("/status").await?.1;
        self.expect(json.lines().count() == 1, "the snapshot is one line");
        let shown = self.ask("/").await?.1 + &json;
        let discreet = !self.idp.secrets().iter().any(|secret| shown.contains(secret));
        self.expect(discreet, "the status page and the snapshot show no secret");
        self.expect(shown.contains("unauthenticated"), "the status page and the snapshot show what happened");

        let upload = vec![b'x'; 1 << 20];
        let echo = self.http.post(format!("{}/orders", self.url)).body(upload.clone()).send().await?;
        self.expect(echo.bytes().await? == upload, "bodies go through whole");
        Ok(())
    }
}

impl Phase {
    const fn all_served(&self) -> bool {
        self.tally.ok > 0 && self.tally.unavailable == 0
    }

    const fn all_told(&self) -> bool {
        let Tally { ok, unavailable, retry_after, .. } = self.tally;
        ok == 0 && unavailable > 0 && retry_after == unavailable
    }

    fn readiness_is_honest(&self) -> bool {
        let down = matches!(self.name, "outage" | "long window" | "revoked" | "no grant");
        self.readiness == if down { StatusCode::SERVICE_UNAVAILABLE } else { StatusCode::OK }
    }

    fn says_what_to_do(&self) -> bool {
        let dead = matches!(self.name, "revoked" | "no grant");
        let need = if dead { "; to do: sign in again\n" } else { "; nothing to do" };
        self.said.lines().count() == 1 && self.said.contains(need)
    }
}

fn intro() -> String {
    let text = "Clients without tokens send requests through a gateway to an API that wants them, while the gateway's token \
                endpoint fails and comes back. Tokens live 3 s: days are played in seconds.";
    let watch = "no client fails before the held token ends; then each gets a 503 that says when to come back; recovery \
                 needs no human.";
    hanging("", text) + "\n" + &hanging("Watch: ", watch) + "\n"
}

fn held(calls: usize) -> String {
    format!("{calls} token requests, one at a time; no secret shown, none sent astray")
}

fn table(paint: Paint, phases: &[Phase]) -> String {
    let head = format!(
        "{:<12}{:>8}{:>8}{:>13}{:>7}{:>10}{:>9}{:>13}",
        "phase", "200", "503", "Retry-After", "other", "slowest", "/readyz", "token calls"
    );
    let mut table = paint.ink(Ink::Strong, &head) + "\n";
    for Phase { name, tally, readiness, said: _, calls } in phases {
        let Tally { ok, unavailable, retry_after, other, slowest } = tally;
        let (slowest, readiness) = (format!("{} ms", slowest.as_millis()), readiness.as_u16());
        table += &format!(
            "{name:<12}{ok:>8}{unavailable:>8}{retry_after:>13}{other:>7}{slowest:>10}{readiness:>9}{calls:>13}\n"
        );
    }
    table
}

fn grant(idp: &ScriptedIdp) -> Result<RefreshTokenGrant, BoxError> {
    Ok(RefreshTokenGrant::builder(idp.token_url(), "gateway", idp.login()).build()?)
}

fn success(pace: u32) -> Answer {
    Answer::success().expires_in(3 * pace)
}

/// The defaults are made for days; these are the same shape in seconds.
fn policy(pace: u32) -> RefreshPolicy {
    RefreshPolicy {
        initial_retry_interval: Duration::from_millis(500) * pace,
        max_tries: 3,
        auth_retrying_tick: Duration::from_secs(1) * pace,
        auth_retrying_ceiling: Duration::from_secs(60) * pace,
        retry_after_cap: Duration::from_secs(60),
        demand_probe_interval: None,
        caller_wait: Duration::from_secs(2),
        blip_wait: Duration::from_millis(1_200),
        settle: Duration::ZERO,
        clock_check: Duration::from_secs(1),
        ..RefreshPolicy::DEFAULT
    }
}

const GLANCE: Duration = Duration::from_millis(30);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::terminal::too_wide;

    #[test]
    fn what_is_printed_around_the_timeline_fits_80_columns() {
        let slowest = Duration::from_secs(99);
        let tally = Tally { ok: 9_999_999, unavailable: 9_999_999, retry_after: 9_999_999, other: 99_999, slowest };
        let (readiness, said) = (StatusCode::SERVICE_UNAVAILABLE, String::new());
        let phase = Phase { name: "long window", tally, readiness, said, calls: 999_999 };
        let printed =
            [intro(), table(Paint::COLOURED, &[phase]), Paint::PLAIN.verdict(&[""; 0], &held(999_999))].concat();
        assert_eq!(too_wide(&printed), None);
    }
}
