//! The command line.

use http::Uri;
use steadfast::{
    BoxError, TokenSource,
    oauth::{ClientCredentialsGrant, RefreshTokenGrant},
};

pub(crate) enum Mode {
    Demo,
    Watch { listen: String },
    Live { listen: String, upstream: Uri, source: Box<dyn TokenSource> },
}

impl Mode {
    pub(crate) fn read(mut arguments: impl Iterator<Item = String>) -> Result<Self, BoxError> {
        let (mut watch, mut listen, mut upstream) = (false, None, None);
        let mut grant = Grant::default();
        while let Some(name) = arguments.next() {
            let mut value = || arguments.next().ok_or(USAGE);
            match name.as_str() {
                "--serve" => watch = true,
                "--listen" => listen = Some(value()?),
                "--upstream" => upstream = Some(value()?.parse()?),
                "--token-url" => grant.token_url = value()?,
                "--client-id" => grant.client_id = value()?,
                "--client-secret" => grant.client_secret = Some(value()?),
                "--refresh-token" => grant.refresh_token = Some(value()?),
                "--scope" => grant.scopes.extend(value()?.split_whitespace().map(str::to_owned)),
                _ => return Err(USAGE.into()),
            }
        }
        let address = listen.clone().unwrap_or_else(|| "127.0.0.1:8080".to_owned());
        match upstream {
            Some(upstream) => Ok(Self::Live { listen: address, upstream, source: grant.source()? }),
            None if grant != Grant::default() => Err(USAGE.into()),
            None if watch => Ok(Self::Watch { listen: address }),
            None if listen.is_some() => Err(USAGE.into()),
            None => Ok(Self::Demo),
        }
    }
}

#[derive(Default, PartialEq)]
struct Grant {
    token_url: String,
    client_id: String,
    client_secret: Option<String>,
    refresh_token: Option<String>,
    scopes: Vec<String>,
}

impl Grant {
    /// A refresh token makes it a refresh token grant; without one it is a client credentials grant.
    fn source(self) -> Result<Box<dyn TokenSource>, BoxError> {
        let Self { token_url, client_id, client_secret, refresh_token, scopes } = self;
        Ok(match refresh_token {
            Some(refresh_token) => {
                let mut grant = RefreshTokenGrant::builder(token_url, client_id, refresh_token).scopes(scopes);
                if let Some(secret) = client_secret {
                    grant = grant.client_secret(secret);
                }
                Box::new(grant.build()?)
            }
            None => {
                let mut grant = ClientCredentialsGrant::builder(token_url, client_id).scopes(scopes);
                if let Some(secret) = client_secret {
                    grant = grant.client_secret(secret);
                }
                Box::new(grant.build()?)
            }
        })
    }
}

const USAGE: &str = "usage: gateway [--serve] [--listen ADDRESS] [--upstream URL --token-url URL --client-id ID \
                     [--client-secret S] [--refresh-token T] [--scope S]]";
