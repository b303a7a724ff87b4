//! The drill: one outage after the other, and whether the monitor kept its promises.

use std::time::Duration;

use steadfast::{
    AuthStatus, BoxError, MonitoredTokenSource, RefreshPolicy, StatusEvent,
    oauth::RefreshTokenGrant,
    testing::{Answer, ScriptedIdp},
};
use tokio::{
    sync::mpsc,
    time::{sleep, timeout},
};

use crate::{
    callers::{Callers, Tally},
    terminal::{Ink, Paint, hanging},
    timeline::Timeline,
};

/// The defaults are made for days; these are the same shape in seconds.
const POLICY: RefreshPolicy = RefreshPolicy {
    initial_retry_interval: Duration::from_millis(500),
    max_tries: 3,
    auth_retrying_tick: Duration::from_secs(1),
    auth_retrying_ceiling: Duration::from_secs(60),
    retry_after_cap: Duration::from_secs(60),
    demand_probe_interval: None,
    caller_wait: Duration::from_secs(2),
    blip_wait: Duration::from_millis(200),
    clock_check: Duration::from_secs(1),
    ..RefreshPolicy::DEFAULT
};
const LIFETIME: u32 = 4;
/// One for each token, three tries of the short retry, and a tick a second in the long window; twice that on a slow machine.
const MOST_CALLS: usize = 20;
const CALLERS: u32 = 20;
const EVERY: Duration = Duration::from_millis(5);

pub(crate) async fn run() -> Result<bool, BoxError> {
    println!("{}", intro());
    let idp = ScriptedIdp::start().await;
    let mut drill = Drill::begin(idp.clone())?;

    drill.phase("healthy", "the token endpoint is healthy");
    drill.until("running", |event| event.to == AuthStatus::Running).await?;
    sleep(Duration::from_millis(1600)).await;

    drill.phase("outage", "a WAF answers 403 with an HTML page");
    idp.always(Answer::waf());
    drill.until("auth retrying", |event| matches!(event.to, AuthStatus::AuthRetrying(_))).await?;

    drill.phase("long window", "the short retry did not help: callers fail fast, attempts go on");
    sleep(Duration::from_millis(2500)).await;

    drill.phase("recovery", "the WAF lets requests through again; nobody touches anything");
    idp.always(success());
    drill.until("running again", |event| event.to == AuthStatus::Running).await?;
    sleep(Duration::from_millis(1000)).await;

    drill.phase("revoked", "the user revokes the login: the next refresh is invalid_grant");
    idp.revoke_logins();
    let verdict = drill.until("the verdict", |event| matches!(event.to, AuthStatus::Unauthenticated(_))).await?;
    drill.expect(verdict.serving, "the verdict came as an early warning, with the token still served");
    drill.expect(verdict.remediation.is_some(), "the verdict came with advice");
    drill.until("the end of the held token", |event| !event.serving).await?;

    drill.phase("no grant", "the held token has ended, too");
    sleep(Duration::from_millis(800)).await;

    drill.phase("new login", "the user signs in again: same handle, new credentials");
    let grant = grant(&idp)?;
    drill.tokens.reauthenticate(grant)?;
    drill.until("running after the login", |event| event.to == AuthStatus::Running).await?;
    sleep(Duration::from_millis(1000)).await;

    Ok(drill.end().await)
}

struct Drill {
    idp: ScriptedIdp,
    tokens: MonitoredTokenSource,
    callers: Callers,
    events: mpsc::Receiver<StatusEvent>,
    timeline: Timeline,
    phases: Vec<Phase>,
    calls_before: usize,
    broken: Vec<&'static str>,
}

struct Phase {
    name: &'static str,
    tally: Tally,
    upstream: usize,
    events: Vec<StatusEvent>,
}

impl Drill {
    fn begin(idp: ScriptedIdp) -> Result<Self, BoxError> {
        idp.rotating().always(success());
        let (sender, events) = mpsc::channel(64);
        let tokens = MonitoredTokenSource::builder(grant(&idp)?).name("drill").policy(POLICY).sink(sender).spawn()?;
        Ok(Self {
            callers: Callers::start(CALLERS, EVERY, &tokens),
            tokens,
            events,
            timeline: Timeline::begin(),
            phases: Vec::new(),
            calls_before: 0,
            broken: Vec::new(),
            idp,
        })
    }

    fn phase(&mut self, name: &'static str, scene: &str) {
        self.close_phase();
        self.timeline.scene(scene);
        self.phases.push(Phase { name, tally: Tally::default(), upstream: 0, events: Vec::new() });
    }

    fn close_phase(&mut self) {
        if let Some(phase) = self.phases.last_mut() {
            let calls = self.idp.calls();
            phase.tally = self.callers.take();
            phase.upstream = calls - self.calls_before;
            self.calls_before = calls;
        }
    }

    /// Shows status events until one is the expected one.
    async fn until(
        &mut self,
        what: &'static str,
        wanted: impl Fn(&StatusEvent) -> bool,
    ) -> Result<StatusEvent, BoxError> {
        let found = async {
            loop {
                let event = self.events.recv().await?;
                self.timeline.status(&event);
                if let Some(phase) = self.phases.last_mut() {
                    phase.events.push(event.clone());
                }
                if wanted(&event) {
                    // Whoever waited for this outcome belongs to the phase that ends with it.
                    sleep(EVERY).await;
                    return Some(event);
                }
            }
        };
        timeout(Duration::from_secs(10), found)
            .await
            .ok()
            .flatten()
            .ok_or_else(|| format!("waited in vain for {what}").into())
    }

    fn expect(&mut self, kept: bool, promise: &'static str) {
        if !kept {
            self.broken.push(promise);
        }
    }

    async fn end(mut self) -> bool {
        self.close_phase();
        self.tokens.shutdown().await;
        self.judge();
        let Self { timeline, broken, idp, phases, .. } = &self;
        println!("\n{}", table(timeline.paint, phases));
        print!("{}", timeline.paint.verdict(broken, &held(idp.calls())));
        broken.is_empty()
    }

    fn judge(&mut self) {
        let tally = |name: &str| {
            self.phases.iter().find(|phase| phase.name == name).map(|phase| phase.tally.clone()).unwrap_or_default()
        };
        let (healthy, outage, window) = (tally("healthy"), tally("outage"), tally("long window"));
        let (recovered, revoked, login) = (tally("recovery"), tally("revoked"), tally("new login"));
        let calls = self.idp.calls();
        let long_windows = self.events_to(|status| matches!(status, AuthStatus::AuthRetrying(_)));
        let expired: usize = self.phases.iter().map(|phase| phase.tally.expired).sum();
        let one_at_a_time = self.idp.most_in_flight() == 1;
        let reused = self.idp.reuse_detected();
        self.expect(outage.served > 0 && revoked.served > 0, "the held token was served to its end");
        self.expect(calls <= MOST_CALLS, "the token endpoint was not hammered");
        self.expect(healthy.failed == 0, "no caller failed while the endpoint was healthy");
        self.expect(window.served == 0 && window.waited == 0, "in the long window nobody waited for nothing");
        self.expect(window.failed_fast > 0, "in the long window callers failed fast");
        self.expect(window.quantile(0.5) < Duration::from_millis(1), "failing fast was fast");
        self.expect(recovered.served > 0, "recovery needed no human");
        self.expect(login.served > 0, "the new login was taken up on the same handle");
        self.expect(long_windows == 1, "the long window was announced once");
        self.expect(expired == 0, "no expired token was served");
        self.expect(one_at_a_time, "upstream calls came one at a time");
        self.expect(!reused, "no refresh token was sent twice");
    }

    fn events_to(&self, wanted: impl Fn(&AuthStatus) -> bool) -> usize {
        let entered = |event: &&StatusEvent| wanted(&event.to) && event.from != event.to;
        self.phases.iter().flat_map(|phase| &phase.events).filter(entered).count()
    }
}

fn intro() -> String {
    let every = EVERY.as_millis();
    let scene = format!(
        "A token endpoint fails and recovers, then the login is revoked, while {CALLERS} callers ask for a token every \
         {every} ms. Tokens live {LIFETIME} s: days are played in seconds."
    );
    let watch = "nobody fails before the held token ends; then all fail fast instead of waiting, and one attempt a second \
                 is made for all of them; recovery needs no human; the same handle takes the new login.";
    hanging("", &scene) + "\n" + &hanging("Watch: ", watch) + "\n"
}

fn held(calls: usize) -> String {
    format!("{calls} calls, one at a time; no refresh token reused, no expired token served")
}

fn table(paint: Paint, phases: &[Phase]) -> String {
    let head = format!(
        "{:<12}{:>8}{:>8}{:>12}{:>10}{:>10}{:>10}{:>8}",
        "phase", "served", "waited", "failed fast", "p50", "p99", "upstream", "events"
    );
    let mut table = paint.ink(Ink::Strong, &head) + "\n";
    for Phase { name, tally, upstream, events } in phases {
        table += &format!(
            "{name:<12}{:>8}{:>8}{:>12}{:>10}{:>10}{upstream:>10}{:>8}\n",
            tally.served,
            tally.waited,
            tally.failed_fast,
            brief(tally.quantile(0.5)),
            brief(tally.quantile(0.99)),
            events.len(),
        );
    }
    table
}

fn success() -> Answer {
    Answer::success().expires_in(LIFETIME)
}

fn grant(idp: &ScriptedIdp) -> Result<RefreshTokenGrant, BoxError> {
    Ok(RefreshTokenGrant::builder(idp.token_url(), "outage-drill", idp.login()).build()?)
}

fn brief(span: Duration) -> String {
    match span.as_nanos() {
        nanos @ 0..1_000 => format!("{nanos} ns"),
        nanos @ 1_000..1_000_000 => format!("{:.1} µs", nanos as f64 / 1e3),
        nanos @ 1_000_000..1_000_000_000 => format!("{:.1} ms", nanos as f64 / 1e6),
        nanos => format!("{:.2} s", nanos as f64 / 1e9),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::terminal::too_wide;

    #[test]
    fn what_is_printed_around_the_timeline_fits_80_columns() {
        let took = vec![Duration::from_secs_f64(999.99)];
        let many = Tally { served: 9_999_999, waited: 9_999_999, failed_fast: 9_999_999, took, ..Tally::default() };
        let phases =
            ["long window"; 2].map(|name| Phase { name, tally: many.clone(), upstream: 999_999, events: vec![] });
        let broken = ["no refresh token was sent twice, in the long window nobody waited for nothing, and so on"];
        let verdicts = Paint::COLOURED.verdict(&broken, "") + &Paint::COLOURED.verdict(&[""; 0], &held(999_999));
        let printed = [intro(), table(Paint::COLOURED, &phases), verdicts].concat();
        assert_eq!(too_wide(&printed), None);
        assert!(printed.contains("\x1b[1;32mPASSED\x1b[0m 999999 calls"));
        assert_eq!(Paint::PLAIN.verdict(&[""; 0], &held(99)).lines().count(), 1);
    }
}
