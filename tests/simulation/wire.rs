//! The network between one process and the authorization server: an HTTP client as a host would bring it.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use async_trait::async_trait;
use http::{Request, Response};
use steadfast::oauth::{TokenHttp, TransportError};
use tokio::{sync::oneshot, time::sleep};

use crate::{
    idp::{Answer, Asked, Idp, number_of},
    nature::{Nature, locked},
    promises,
    store::SimStore,
    weather::Network,
};

/// All connections of the world.
pub(crate) struct Cables {
    nature: Arc<Nature>,
    idp: Arc<Idp>,
    store: SimStore,
    traffic: Mutex<Traffic>,
}

#[derive(Default)]
struct Traffic {
    /// Exchanges in flight, by login.
    in_flight: BTreeMap<usize, usize>,
    /// Refresh tokens in whose place another came, by the client that knows it.
    spent: BTreeMap<String, usize>,
    /// OAuth codes that arrived, by client.
    codes: BTreeMap<(usize, &'static str), u32>,
    /// Clients whose run has ended.
    silenced: BTreeMap<usize, &'static str>,
    lied_to: BTreeMap<usize, bool>,
}

/// The client of one token source.
pub(crate) struct Wire {
    pub(crate) cables: Arc<Cables>,
    /// Which source of which process it is of.
    pub(crate) client: usize,
}

impl Cables {
    pub(crate) fn new(nature: &Arc<Nature>, idp: &Arc<Idp>, store: &SimStore) -> Arc<Self> {
        let (nature, idp) = (Arc::clone(nature), Arc::clone(idp));
        Arc::new(Self { nature, idp, store: store.clone(), traffic: Mutex::default() })
    }

    /// From now on this client has no reason to ask for anything.
    pub(crate) fn silence(&self, client: usize, why: &'static str) {
        locked(&self.traffic).silenced.entry(client).or_insert(why);
    }

    /// How often this code was received, by one client or by any.
    pub(crate) fn heard(&self, client: Option<usize>, code: &str) -> u32 {
        let traffic = locked(&self.traffic);
        let heard = traffic.codes.iter().filter(|((by, heard), _)| client.is_none_or(|c| c == *by) && *heard == code);
        heard.map(|(_, count)| count).sum()
    }

    /// Whether the last answer of this client was a lie about its login.
    pub(crate) fn was_lied_to(&self, client: usize) -> bool {
        locked(&self.traffic).lied_to.get(&client).copied().unwrap_or_default()
    }

    fn begin(self: &Arc<Self>, client: usize, asked: &Asked) -> InFlight {
        let login = asked.refresh_token.as_deref().and_then(number_of);
        let mut traffic = locked(&self.traffic);
        self.nature.check(promises::a_closed_gate_means_silence(traffic.silenced.get(&client).copied(), "a request"));
        if let Some(sent) = &asked.refresh_token {
            // Where a lease has lapsed, only what a process knows by itself can be asked of it. Nor is a lease kept for a login
            // that is dead: the note of that may reach the store later than somebody's next try. And where a login is dead,
            // whoever has come with a token that it did not begin with takes that for a new one.
            let begins_anew = sent.ends_with("-1") && self.store.buried("invalid_grant");
            let is_guarded = !(self.store.has_lapsed() || self.store.hides_a_death() || begins_anew);
            let spent = traffic.spent.get(sent).copied().filter(|by| *by == client || is_guarded);
            self.nature.check(promises::no_refresh_token_is_sent_after_its_success(sent, client, spent));
        }
        if let Some(login) = login {
            let in_flight = traffic.in_flight.entry(login).or_default();
            *in_flight += 1;
            if !self.store.has_lapsed() {
                self.nature.check(promises::one_exchange_in_flight_for_each_grant(login, *in_flight));
            }
        }
        InFlight { cables: Arc::clone(self), login }
    }

    fn received(&self, client: usize, asked: &Asked, answer: &Answer) {
        let mut traffic = locked(&self.traffic);
        if let (Some(sent), Some(next)) = (&asked.refresh_token, &answer.rotated_to)
            && sent != next
        {
            traffic.spent.insert(sent.clone(), client);
        }
        if let Some(code) = answer.code {
            *traffic.codes.entry((client, code)).or_default() += 1;
        }
        traffic.lied_to.insert(client, answer.lie);
    }
}

/// An exchange, from the client's first byte until it has an answer or has given up.
struct InFlight {
    cables: Arc<Cables>,
    login: Option<usize>,
}

impl Drop for InFlight {
    fn drop(&mut self) {
        let mut traffic = locked(&self.cables.traffic);
        if let Some(count) = self.login.and_then(|login| traffic.in_flight.get_mut(&login)) {
            *count -= 1;
        }
    }
}

#[async_trait]
impl TokenHttp for Wire {
    async fn send(&self, request: Request<Vec<u8>>) -> Result<Response<Vec<u8>>, TransportError> {
        let (cables, nature) = (&self.cables, &self.cables.nature);
        let asked = Asked::of(request.body());
        let fate = match nature.weather().network {
            Network::Fickle => nature.pick(Network::PASSING),
            steady => steady,
        };
        nature.note(format_args!("client {} sends {:?}, network {fate:?}", self.client, asked.refresh_token));
        let _in_flight = cables.begin(self.client, &asked);
        let (there, back) = match fate {
            Network::Slow => (nature.secs(0, 12), nature.secs(0, 12)),
            _ => (nature.millis(0, 80), nature.millis(0, 80)),
        };
        match fate {
            Network::Unplugged => {
                sleep(there).await;
                return Err(TransportError::not_sent("no route to host"));
            }
            Network::LostBefore => {
                sleep(there).await;
                return Err(TransportError::unknown("connection reset"));
            }
            Network::Fair | Network::Fickle | Network::Slow | Network::LostAfter | Network::Hanging => {}
        }
        // What has left goes on its way, whether or not the client still waits: in a task of its own.
        let (answer, arrival) = oneshot::channel();
        let (idp, at, client) = (Arc::clone(&cables.idp), Arc::clone(nature), self.client);
        tokio::spawn(async move {
            sleep(there).await;
            let given = idp.answer(&asked);
            at.note(format_args!("the server answers client {client}: {} {:?}", given.response.status(), given.code));
            sleep(back).await;
            let _ = answer.send((asked, given));
        });
        match fate {
            Network::LostAfter => {
                sleep(there + back / 2).await;
                Err(TransportError::unknown("connection reset"))
            }
            Network::Hanging => std::future::pending().await,
            _ => {
                let (asked, answer) = arrival.await.map_err(TransportError::unknown)?;
                cables.received(self.client, &asked, &answer);
                nature.note(format_args!("client {} receives {}", self.client, answer.response.status()));
                Ok(answer.response)
            }
        }
    }
}
