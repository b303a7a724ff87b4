//! What can go wrong on each edge, and how it goes at the moment.

use std::fmt::Debug;

use crate::nature::Nature;

/// How each part of the world behaves until that changes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Weather {
    pub(crate) provider: Provider,
    pub(crate) network: Network,
    pub(crate) store: Store,
    pub(crate) api: Api,
    pub(crate) sink: Sink,
    pub(crate) source: Source,
}

/// The authorization server, or what stands in front of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Provider {
    #[default]
    Fair,
    /// Any of the others, request by request.
    Fickle,
    Firewall,
    Portal,
    Redirect,
    Empty,
    /// A token's answer, cut off in the middle.
    Truncated,
    NoCode,
    /// A 502 from the proxy, before or after the server itself has acted.
    BadGateway,
    BadGatewayAfterAll,
    Overloaded,
    Throttled,
    /// A 503 that happens to carry `invalid_grant`.
    CodeOnAnOutage,
    /// `invalid_grant` although the login is good; as JSON, as a form, with status 200.
    Denial,
    DenialAsForm,
    DenialOn200,
    UnknownCode,
    Ambiguous,
    TemporarilyUnavailable,
    AlreadyBeingProcessed,
    UnknownClient,
    TextLifetime,
    ZeroLifetime,
    NoLifetime,
    HugeLifetime,
    ShortLifetime,
    /// Successes that bring no new refresh token.
    Keeping,
    /// A token of a kind that cannot be used.
    BoundToken,
    /// An error whose description holds the refresh token.
    Indiscreet,
}

impl Provider {
    pub(crate) const ALL: &[Self] = &[
        Self::Fickle,
        Self::Firewall,
        Self::Portal,
        Self::Redirect,
        Self::Empty,
        Self::Truncated,
        Self::NoCode,
        Self::BadGateway,
        Self::BadGatewayAfterAll,
        Self::Overloaded,
        Self::Throttled,
        Self::CodeOnAnOutage,
        Self::Denial,
        Self::DenialAsForm,
        Self::DenialOn200,
        Self::UnknownCode,
        Self::Ambiguous,
        Self::TemporarilyUnavailable,
        Self::AlreadyBeingProcessed,
        Self::UnknownClient,
        Self::TextLifetime,
        Self::ZeroLifetime,
        Self::NoLifetime,
        Self::HugeLifetime,
        Self::ShortLifetime,
        Self::Keeping,
        Self::BoundToken,
        Self::Indiscreet,
    ];

    /// What can come and go without ending the login.
    pub(crate) const PASSING: &[Self] = &[
        Self::Fair,
        Self::Fair,
        Self::Fair,
        Self::Firewall,
        Self::Portal,
        Self::BadGateway,
        Self::BadGatewayAfterAll,
        Self::Overloaded,
        Self::Throttled,
        Self::TextLifetime,
        Self::ZeroLifetime,
        Self::ShortLifetime,
        Self::Keeping,
    ];
}

/// The way to the authorization server and back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Network {
    #[default]
    Fair,
    /// Any of the others, request by request.
    Fickle,
    Slow,
    /// Nothing can be sent.
    Unplugged,
    /// The connection breaks off on the way there.
    LostBefore,
    /// It breaks off on the way back: the server has acted.
    LostAfter,
    Hanging,
}

impl Network {
    pub(crate) const ALL: &[Self] =
        &[Self::Fickle, Self::Slow, Self::Unplugged, Self::LostBefore, Self::LostAfter, Self::Hanging];
    pub(crate) const PASSING: &[Self] =
        &[Self::Fair, Self::Fair, Self::Fair, Self::Slow, Self::Unplugged, Self::LostBefore, Self::LostAfter];
}

/// Where the login is kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Store {
    #[default]
    Fair,
    /// Any of the others, call by call.
    Fickle,
    Slow,
    Busy,
    Down,
    /// It can be read and leased, but its disk is full.
    ReadOnly,
    /// What is written arrives, but the answer says that it did not.
    Torn,
    Hanging,
    /// What is stored cannot be read.
    Corrupt,
    /// Leases end long before their time.
    Hasty,
}

impl Store {
    pub(crate) const ALL: &[Self] = &[
        Self::Fickle,
        Self::Slow,
        Self::Busy,
        Self::Down,
        Self::ReadOnly,
        Self::Torn,
        Self::Hanging,
        Self::Corrupt,
        Self::Hasty,
    ];
    pub(crate) const PASSING: &[Self] = &[Self::Fair, Self::Fair, Self::Slow, Self::Busy, Self::Down, Self::ReadOnly];
}

/// The resource server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Api {
    #[default]
    Fair,
    /// It has lost its keys: every token is invalid.
    KeysLost,
    /// It refuses everybody, and does not say why.
    Sulking,
    /// Tokens are known to it only after a second.
    Lagging,
    /// Tokens have to be issued with claims.
    Claims,
    /// Only a stronger sign-in helps.
    StepUp,
    /// 403 `insufficient_scope`.
    Scope,
    Failing,
    Unreachable,
    /// 200 with `grpc-status: 16` in the headers.
    GrpcRefusal,
}

impl Api {
    pub(crate) const ALL: &[Self] = &[
        Self::KeysLost,
        Self::Sulking,
        Self::Lagging,
        Self::Claims,
        Self::StepUp,
        Self::Scope,
        Self::Failing,
        Self::Unreachable,
        Self::GrpcRefusal,
    ];
}

/// The host's status sink.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Sink {
    #[default]
    Fair,
    Slow,
    Failing,
    Panicking,
    Hanging,
}

impl Sink {
    pub(crate) const ALL: &[Self] = &[Self::Slow, Self::Failing, Self::Panicking, Self::Hanging];
}

/// The host's own code around the token source.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Source {
    #[default]
    Fair,
    PanicsBefore,
    /// After the exchange: a refresh token may have been rotated.
    PanicsAfter,
}

impl Source {
    pub(crate) const ALL: &[Self] = &[Self::PanicsBefore, Self::PanicsAfter];
}

impl Weather {
    /// Each kind of each part, as it is named where it comes up.
    pub(crate) fn every_kind() -> Vec<String> {
        fn named<T: Debug>(part: &str, kinds: &[T]) -> Vec<String> {
            kinds.iter().map(|kind| format!("{part} {kind:?}")).collect()
        }
        [
            named("provider", Provider::ALL),
            named("network", Network::ALL),
            named("store", Store::ALL),
            named("api", Api::ALL),
            named("sink", Sink::ALL),
            named("source", Source::ALL),
        ]
        .concat()
    }

    /// One part of it turns, for worse or for better.
    pub(crate) fn turns(nature: &Nature) {
        let better = nature.chance(35);
        let part = nature.roll(13);
        macro_rules! turn {
            ($part:ident, $kind:ident) => {{
                let next = if better { $kind::Fair } else { nature.pick($kind::ALL) };
                nature.set_weather(|weather| weather.$part = next);
                nature.note(format_args!("the weather turns: {} {next:?}", stringify!($part)));
                nature.meets(&format!("{} {next:?}", stringify!($part)));
            }};
        }
        match part {
            0..=3 => turn!(provider, Provider),
            4..=5 => turn!(network, Network),
            6..=8 => turn!(store, Store),
            9..=10 => turn!(api, Api),
            11 => turn!(sink, Sink),
            _ => turn!(source, Source),
        }
    }
}
