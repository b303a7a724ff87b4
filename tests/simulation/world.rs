//! One seed: a world is made, lives through some weather, heals, and ends.

use std::{sync::Arc, time::Duration};

use steadfast::RefreshPolicy;
use tokio::{task::yield_now, time::sleep};

use crate::{
    idp::Idp,
    nature::Nature,
    process::{ACCOUNT, Kind, Process, Site},
    promises,
    store::SimStore,
    weather::{self, Weather},
    wire::Cables,
};

pub(crate) struct World {
    nature: Arc<Nature>,
    idp: Arc<Idp>,
    site: Site,
    kind: Kind,
    processes: Vec<Process>,
}

impl World {
    pub(crate) fn of(seed: u64, told: bool) -> Self {
        let nature = Nature::of(seed, told);
        let policy = Arc::new(policy(&nature));
        let grace = Duration::from_secs(nature.pick(&[0, 0, 30, 60]));
        let lifetime = Duration::from_secs(nature.pick(&[40, 300, 900, 3600, 3600, 4 * 3600]));
        let idp = Idp::new(&nature, grace, lifetime);
        let kind = match nature.roll(20) {
            0..=11 => Kind::Shared,
            12..=15 => Kind::Alone,
            16 => Kind::Client,
            17..=18 => Kind::SharedClient,
            _ if nature.chance(50) => Kind::Own,
            _ => Kind::Fixed,
        };
        let store = SimStore::new(&nature);
        let cables = Cables::new(&nature, &idp, &store);
        let site = Site {
            nature: Arc::clone(&nature),
            idp: Arc::clone(&idp),
            cables,
            store,
            policy: Arc::clone(&policy),
            seed,
        };
        nature.note(format_args!("{kind:?}, grace {grace:?}, tokens of {lifetime:?}, {policy:?}"));
        let count = if matches!(kind, Kind::Shared | Kind::SharedClient) { 1 + nature.roll(3) } else { 1 };
        let first = if kind == Kind::Fixed { idp.mint() } else { idp.sign_in() };
        let processes = (0..count).map(|number| Process::start(&site, number, kind, &first)).collect();
        Self { nature, idp, site, kind, processes }
    }

    /// A life, until a promise is broken or it ends.
    pub(crate) async fn live(&mut self) -> Option<()> {
        for _ in 0..12 + self.nature.roll(28) {
            self.step().await;
            // Whoever has something to do at this instant does it.
            for _ in 0..20 {
                yield_now().await;
            }
            self.look()?;
        }
        self.heal().await?;
        self.end().await
    }

    async fn step(&mut self) {
        let nature = Arc::clone(&self.nature);
        let process = nature.roll(self.processes.len());
        let at = &mut self.processes[process];
        match nature.roll(100) {
            0..=24 => (0..=nature.roll(6)).for_each(|_| at.caller()),
            25..=44 => (0..=nature.roll(6)).for_each(|_| at.request(false)),
            45..=62 => Weather::turns(&nature),
            63..=66 => at.reject(),
            67..=69 => self.nudge(process),
            70..=73 => self.clocks(),
            74..=75 => self.sign_in(process, ACCOUNT, nature.chance(60)).await,
            76 => self.idp.revoke_access_tokens(),
            77 if nature.chance(30) => self.idp.revoke_logins(),
            78..=79 => at.clones_handles(),
            80 => self.rush(process).await,
            81 if nature.chance(30) => self.shut_down(process).await,
            82 if nature.chance(20) => at.drops_the_last_handle(),
            83 if nature.chance(20) => at.aborts_the_driver(),
            84 if nature.chance(20) => self.sign_in(process, "mallory", nature.chance(60)).await,
            86..=87 if self.kind == Kind::Shared => self.another_window(process).await,
            88 if nature.chance(25) => self.siege(process).await,
            _ => {}
        }
        let span = match nature.roll(40) {
            0..=9 => Duration::ZERO,
            10..=19 => nature.millis(1, 2000),
            20..=30 => nature.secs(1, 60),
            31..=38 => nature.secs(60, 1000),
            _ => nature.secs(1200, 5400),
        };
        sleep(span).await;
    }

    fn look(&mut self) -> Option<()> {
        self.processes.iter_mut().for_each(Process::look);
        self.nature.broken().is_none().then_some(())
    }

    /// A busy quarter of an hour.
    async fn rush(&mut self, process: usize) {
        let pause = self.nature.secs(5, 20);
        for _ in 0..900 / pause.as_secs().max(5) {
            self.processes[process].caller();
            sleep(pause).await;
        }
    }

    /// Hours of one and the same trouble, with somebody who asks and asks.
    async fn siege(&mut self, process: usize) {
        let before = self.nature.weather();
        let (mut provider, mut network, mut store) = (before.provider, before.network, before.store);
        match self.nature.roll(4) {
            0..=1 => provider = self.nature.pick(weather::Provider::ALL),
            2 => network = self.nature.pick(weather::Network::ALL),
            _ => store = self.nature.pick(weather::Store::ALL),
        }
        self.nature.note(format_args!("a siege: {provider:?}, {network:?}, {store:?}"));
        self.nature.set_weather(|weather| *weather = Weather { provider, network, store, ..before });
        for _ in 0..150 {
            self.processes[process].caller();
            sleep(Duration::from_secs(40)).await;
        }
    }

    fn nudge(&mut self, process: usize) {
        let at = &self.processes[process];
        if let Some(tokens) = &at.tokens {
            self.nature.note(format_args!("process {process}: its host nudges"));
            at.record.excuse();
            tokens.retry_now();
        }
    }

    fn clocks(&mut self) {
        let span = self.nature.secs(1, 2 * 3600);
        let all = self.nature.chance(50);
        let one = self.nature.roll(self.processes.len());
        let what = self.nature.roll(4);
        self.nature.note(format_args!("clocks: {} by {span:?}", ["sleep", "sleep", "forward", "back"][what]));
        if what < 2 {
            self.nature.suspend(span);
        }
        for at in self.processes.iter().filter(|at| what < 2 || all || at.number == one) {
            at.record.excuse();
            match what {
                0..=1 => at.record.clock.suspend(span),
                2 => at.record.clock.step_forward(span),
                _ => at.record.clock.step_back(span),
            }
        }
    }

    /// A user signs in again at one process.
    async fn sign_in(&mut self, process: usize, account: &str, first: bool) {
        self.nature.note(format_args!("process {process}: {account} signs in"));
        let fixed = self.kind == Kind::Fixed;
        let token = if fixed { self.idp.mint() } else { self.idp.sign_in() };
        self.processes[process].sign_in(&token, account, first).await;
    }

    /// The user signs in elsewhere while a process that has stood still for longer than its lease is at an exchange.
    async fn another_window(&mut self, process: usize) {
        self.nature.note(format_args!("the user signs in in another window"));
        let before = self.nature.weather();
        let (network, store) = (weather::Network::Slow, weather::Store::Hasty);
        self.nature.set_weather(|weather| *weather = Weather { network, store, ..before });
        self.nudge(process);
        sleep(self.nature.secs(1, 15)).await;
        self.idp.revoke_logins();
        let refresh_token = self.idp.sign_in();
        let signed_in = self.site.outsider(&refresh_token, ACCOUNT).sign_in().await;
        self.nature.note(format_args!("signed in there: {signed_in:?}"));
        sleep(self.nature.secs(1, 25)).await;
        self.nature.set_weather(|weather| *weather = before);
    }

    async fn shut_down(&mut self, process: usize) {
        let at = &mut self.processes[process];
        let Some(tokens) = at.tokens.clone() else { return };
        self.nature.note(format_args!("process {process} shuts down"));
        at.closes("a shutdown");
        let limit = self.site.policy.attempt_timeout + Duration::from_secs(5);
        let began = self.nature.now();
        tokens.shutdown().await;
        self.nature.check(promises::a_shutdown_ends_in_time(self.nature.now() - began, limit));
    }

    /// The weather clears up. One cadence later everything has to be well.
    async fn heal(&mut self) -> Option<()> {
        self.nature.note(format_args!("the weather clears up"));
        self.nature.set_weather(|weather| *weather = Weather::default());
        // Three times, because a login that was lost on the way shows only when it is used again.
        for round in 0..3 {
            self.wait(self.cadence()).await?;
            self.check_recovery();
            if !self.sign_in_where_needed(round == 0).await {
                break;
            }
        }
        for _ in 0..6 {
            self.wait(Duration::from_secs(55)).await?;
            for at in &self.processes {
                let Some(tokens) = at.tokens.as_ref().filter(|tokens| tokens.status().is_live()) else { continue };
                let serving = tokens.try_token().is_ok();
                self.nature.check(promises::a_token_is_served_without_a_gap(at.number, serving));
            }
        }
        self.look()
    }

    /// Whoever can do without a human has done so by now.
    fn check_recovery(&self) {
        for at in self.processes.iter().filter(|at| !at.is_foreign()) {
            let Some(tokens) = at.tokens.as_ref().filter(|tokens| tokens.status().is_live()) else { continue };
            let (status, serving, unsaved) = (tokens.status(), tokens.try_token().is_ok(), at.record.is_unsaved());
            self.nature.check(promises::it_recovers_within_a_cadence(at.number, &status, serving));
            let told = at.ear.told();
            self.nature.check(promises::the_last_news_is_true(told.as_ref(), &status, serving, unsaved));
        }
    }

    /// One store, one account; and whoever was told that the login is dead tries once more, or signs in again.
    async fn sign_in_where_needed(&mut self, may_try_again: bool) -> bool {
        let mut needed = false;
        let foreign = |at: &Process| at.is_foreign();
        let ended = |at: &Process| at.tokens.as_ref().is_some_and(|tokens| !tokens.status().is_live());
        for needs_it in [&foreign as &dyn Fn(&Process) -> bool, &ended] {
            for number in 0..self.processes.len() {
                let at = &self.processes[number];
                if at.is_stopped() || !needs_it(at) {
                    continue;
                }
                needed = true;
                if may_try_again && !at.is_foreign() && self.nature.chance(50) {
                    self.nudge(number);
                } else {
                    self.sign_in(number, ACCOUNT, true).await;
                }
            }
        }
        needed
    }

    /// Time goes by, with somebody at work.
    async fn wait(&mut self, span: Duration) -> Option<()> {
        let until = self.nature.now() + span;
        while self.nature.now() < until {
            self.processes.iter().for_each(|process| process.request(true));
            sleep(Duration::from_secs(55)).await;
            self.look()?;
        }
        Some(())
    }

    /// How long it may take until all is well again.
    fn cadence(&self) -> Duration {
        let policy = &self.site.policy;
        let in_flight = policy.attempt_timeout + Duration::from_secs(15);
        in_flight + policy.auth_retrying_tick.mul_f64(1.1).max(policy.retry_after_cap) + Duration::from_secs(60)
    }

    async fn end(&mut self) -> Option<()> {
        let is_good = |token: &Option<String>| token.as_ref().is_some_and(|token| self.idp.is_good(token));
        let before = Some(self.site.store.keeps()).filter(is_good).flatten();
        if self.nature.chance(50) {
            // In the middle of an exchange.
            (0..self.processes.len()).for_each(|number| self.nudge(number));
            sleep(self.nature.millis(0, 200)).await;
        }
        let listens = self.nature.chance(85);
        if !listens {
            self.nature.set_weather(|weather| weather.sink = weather::Sink::Hanging);
        }
        // What lives still; who ended in bad weather may have had a sink that did not listen.
        let ending: Vec<_> = (0..self.processes.len()).filter(|number| !self.processes[*number].is_stopped()).collect();
        for &number in &ending {
            match self.nature.roll(3) {
                0 => self.processes[number].drops_the_last_handle(),
                1 => self.processes[number].aborts_the_driver(),
                _ => self.shut_down(number).await,
            }
        }
        sleep(Duration::from_secs(3600)).await;
        let after = self.site.store.keeps();
        let good = before.is_none() || after.as_ref().is_some_and(|token| self.idp.is_good(token));
        self.nature.check(promises::the_login_survives_the_end(before.as_deref(), after.as_deref(), good));
        for at in &self.processes {
            let waiting = at.waiting.load(std::sync::atomic::Ordering::Relaxed);
            self.nature.check(promises::nobody_waits_in_the_end(waiting));
        }
        for number in ending.into_iter().filter(|_| listens) {
            let told = self.processes[number].ear.told();
            self.nature.check(promises::the_end_is_told(number, told.as_ref()));
        }
        self.look()
    }
}

impl Process {
    fn clones_handles(&mut self) {
        if let Some(tokens) = &self.tokens {
            self.spare.push(tokens.clone());
        }
        if self.spare.len() > 3 {
            self.spare.remove(0);
        }
    }

    fn drops_the_last_handle(&mut self) {
        self.spare.clear();
        // Callers and requests hold handles, too.
        if self.waiting.load(std::sync::atomic::Ordering::Relaxed) == 0 && self.tokens.take().is_some() {
            self.record.nature.note(format_args!("process {}: the last handle is dropped", self.number));
            self.closes("the last handle's drop");
        }
    }

    fn aborts_the_driver(&mut self) {
        if let Some(driver) = self.driver.take() {
            self.record.nature.note(format_args!("process {}: the driver is aborted", self.number));
            driver.abort();
        }
    }
}

fn policy(nature: &Nature) -> RefreshPolicy {
    let secs = Duration::from_secs;
    let clock_check = secs(nature.pick(&[30, 120, 120]));
    let default = RefreshPolicy { retry_after_cap: secs(600), clock_check, ..RefreshPolicy::DEFAULT };
    match nature.roll(4) {
        0..=1 => default,
        2 => RefreshPolicy {
            max_tries: 3,
            auth_retrying_tick: secs(60),
            auth_retrying_ceiling: secs(1800),
            retry_after_cap: secs(60),
            caller_wait: secs(5),
            ..default
        },
        _ => RefreshPolicy {
            max_tries: 1,
            demand_probe_interval: None,
            assumed_lifetime: Some(secs(1800)),
            blip_wait: Duration::ZERO,
            ..default
        },
    }
}
