use std::time::Duration;

use http::{
    HeaderMap,
    header::{DATE, RETRY_AFTER},
};

use crate::Lifetime;

/// How long an answer asks us to stay away (RFC 9110 §10.2.3), at most [`Lifetime::LONGEST`]; the longest wish counts.
///
/// Seconds with a fraction, which the grammar does not know, are rounded up. A date is measured against the answer's own
/// `Date`, so no clock of ours has a say; without a `Date` it says nothing, and the caller's own backoff decides.
///
/// For a [`TokenSource`](crate::TokenSource) of the host's own, which hands it on with
/// [`IssueError::with_retry_after`](crate::IssueError::with_retry_after).
///
/// ```
/// use std::time::Duration;
/// use http::{HeaderMap, HeaderValue, header::RETRY_AFTER};
///
/// let headers = HeaderMap::from_iter([(RETRY_AFTER, HeaderValue::from_static("120"))]);
/// assert_eq!(steadfast::retry_after(&headers), Some(Duration::from_secs(120)));
/// ```
#[must_use]
pub fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let answered = texts(headers, DATE.as_str()).next().and_then(|text| httpdate::parse_http_date(text).ok());
    let from_date = |text: &str| {
        let date = httpdate::parse_http_date(text).ok()?;
        Some(date.duration_since(answered?).unwrap_or(Duration::ZERO))
    };

    let standard = texts(headers, RETRY_AFTER.as_str()).filter_map(|text| {
        let seconds = whole_number(text).map(Duration::from_secs);
        seconds.or_else(|| from_date(text))
    });
    let milliseconds = IN_MILLISECONDS
        .iter()
        .flat_map(|name| texts(headers, name))
        .filter_map(|text| whole_number(text).map(Duration::from_millis));

    standard.chain(milliseconds).max().map(|longest| longest.min(Lifetime::LONGEST))
}

fn texts<'a>(headers: &'a HeaderMap, name: &str) -> impl Iterator<Item = &'a str> {
    let values = headers.get_all(name).into_iter();
    values.filter_map(|value| value.to_str().ok().map(str::trim))
}

/// A decimal number, rounded up, saturating: `120`, `1.5`.
fn whole_number(text: &str) -> Option<u64> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let is_digit = |byte: u8| byte.is_ascii_digit();
    if whole.is_empty() || !whole.bytes().chain(fraction.bytes()).all(is_digit) {
        return None;
    }
    // Nothing but digits: what does not parse is too great.
    let number = whole.parse().unwrap_or(u64::MAX);
    let round_up = fraction.bytes().any(|digit| digit != b'0');
    Some(number.saturating_add(round_up.into()))
}

/// What Azure services send beside `Retry-After`; the Azure SDKs honour both (`azure_core::http::headers`).
const IN_MILLISECONDS: [&str; 2] = ["retry-after-ms", "x-ms-retry-after-ms"];

#[cfg(test)]
mod tests {
    use http::{HeaderName, HeaderValue};
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn seconds_are_taken_as_they_are_and_fractions_rounded_up() {
        let wishes = [
            ("0", Some(0)),
            ("120", Some(120)),
            (" 120\t", Some(120)),
            ("0120", Some(120)),
            ("1.5", Some(2)),
            ("1.0", Some(1)),
            ("1.", Some(1)),
            ("0.0001", Some(1)),
            ("-1", None),
            ("+1", None),
            ("1e3", None),
            ("1.5.2", None),
            (".5", None),
            (".", None),
            ("", None),
            ("soon", None),
            ("120s", None),
            ("NaN", None),
            ("inf", None),
            ("٣", None),
        ];
        for (text, seconds) in wishes {
            let asked = asked(&[("retry-after", text)]);
            assert_eq!(asked, seconds.map(Duration::from_secs), "{text:?}");
        }
    }

    #[test]
    fn no_wish_exceeds_ten_years() {
        let huge = "9".repeat(400);
        let far = ("retry-after", "Fri, 31 Dec 9999 23:59:59 GMT");
        assert_eq!(asked(&[("retry-after", &huge)]), Some(Lifetime::LONGEST));
        assert_eq!(asked(&[("retry-after-ms", &huge)]), Some(Lifetime::LONGEST));
        assert_eq!(asked(&[far, ("date", NOON)]), Some(Lifetime::LONGEST));
    }

    #[test]
    fn a_date_is_measured_against_the_answers_own_date() {
        let two_minutes = Some(Duration::from_secs(120));
        for date in ["Sun, 06 Nov 1994 12:02:00 GMT", "Sunday, 06-Nov-94 12:02:00 GMT", "Sun Nov  6 12:02:00 1994"] {
            assert_eq!(asked(&[("retry-after", date), ("date", NOON)]), two_minutes, "{date}");
        }
    }

    #[test]
    fn a_date_that_has_passed_asks_for_no_wait() {
        let past = ("retry-after", "Sun, 06 Nov 1994 11:59:59 GMT");
        assert_eq!(asked(&[past, ("date", NOON)]), Some(Duration::ZERO));
    }

    #[test]
    fn a_date_says_nothing_without_a_date_to_measure_it_against() {
        let later = ("retry-after", "Sun, 06 Nov 1994 12:02:00 GMT");
        assert_eq!(asked(&[later]), None);
        assert_eq!(asked(&[later, ("date", "today")]), None);
        assert_eq!(asked(&[("retry-after", "Sun, 32 Nov 1994"), ("date", NOON)]), None);
    }

    #[test]
    fn the_longest_of_several_wishes_counts() {
        let seconds = |wishes: &[(&'static str, &str)]| asked(wishes).map(|it| it.as_secs());
        assert_eq!(seconds(&[("retry-after", "5"), ("retry-after", "nonsense"), ("retry-after", "7")]), Some(7));
        assert_eq!(seconds(&[("retry-after", "7"), ("retry-after", "5")]), Some(7));
        let date = ("retry-after", "Sun, 06 Nov 1994 12:02:00 GMT");
        assert_eq!(seconds(&[("retry-after", "7"), date, ("date", NOON)]), Some(120));
    }

    #[test]
    fn milliseconds_of_azure_services_are_understood() {
        let half = Some(Duration::from_millis(500));
        assert_eq!(asked(&[("retry-after-ms", "500")]), half);
        assert_eq!(asked(&[("x-ms-retry-after-ms", "499.2")]), half);
        let second = Some(Duration::from_secs(1));
        assert_eq!(asked(&[("retry-after", "1"), ("retry-after-ms", "500")]), second);
        assert_eq!(asked(&[("retry-after-ms", NOON), ("date", NOON)]), None);
    }

    #[test]
    fn an_answer_that_asks_for_nothing_gives_nothing() {
        assert_eq!(asked(&[]), None);
        assert_eq!(asked(&[("date", NOON)]), None);
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic_or_exceed_ten_years(
            wish in proptest::collection::vec(any::<u8>(), 0..40),
            date in proptest::collection::vec(any::<u8>(), 0..40),
        ) {
            let mut headers = HeaderMap::new();
            for (name, bytes) in [(RETRY_AFTER, wish), (DATE, date)] {
                if let Ok(value) = HeaderValue::from_bytes(&bytes) {
                    headers.append(name, value);
                }
            }
            prop_assert!(retry_after(&headers).is_none_or(|wait| wait <= Lifetime::LONGEST));
        }

        #[test]
        fn any_date_that_is_written_right_is_measured_right(wait in 0_u64..300_000_000, answered in 0_u64..4_000_000_000) {
            let date = |seconds| httpdate::fmt_http_date(std::time::UNIX_EPOCH + Duration::from_secs(seconds));
            let asked = asked(&[("retry-after", &date(answered + wait)), ("date", &date(answered))]);
            prop_assert_eq!(asked, Some(Duration::from_secs(wait)));
        }
    }

    fn asked(fields: &[(&'static str, &str)]) -> Option<Duration> {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(HeaderName::from_static(name), HeaderValue::from_bytes(value.as_bytes()).unwrap());
        }
        retry_after(&headers)
    }

    const NOON: &str = "Sun, 06 Nov 1994 12:00:00 GMT";
}
