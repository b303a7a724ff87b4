//! What a request with a valid token costs, counted.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a helper of a test fails by panicking")]

use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
    convert::Infallible,
    future::{Ready, ready},
    task::{Context, Poll, Waker},
};

use http::{HeaderName, HeaderValue, Request, Response};
use http_body_util::Empty;
use hyper::body::Bytes;
use steadfast::{AuthLayer, MonitoredTokenSource, StaticToken};
use tower::service_fn;
use tower_service::Service;

#[tokio::test]
async fn a_valid_token_costs_no_allocation_beyond_the_header_maps_and_a_copy_at_most_three() {
    let tokens = MonitoredTokenSource::builder(StaticToken::new("s3cret")).spawn().unwrap();
    let value = tokens.token().await.unwrap().authorization();
    let layer = AuthLayer::new(tokens, "https://api.example.com").unwrap();
    let inner = || service_fn(answer);

    for headers in [0, 4] {
        let by_hand = allocations(headers, |mut request| {
            request.headers_mut().insert("authorization", value.clone());
            finish(inner().call(request));
        });
        let mut once = layer.wrap(inner());
        let mut again = layer.clone().replay_once().wrap(inner());
        let mut idempotent = layer.clone().replay_idempotent_once().wrap(inner());
        // The first 2xx with a token tells the driver.
        finish(once.call(request(0)));
        assert_eq!(allocations(headers, |request| finish(once.call(request))), by_hand);
        let more = allocations(headers, |request| finish(again.call(request))) - by_hand;
        assert!(more <= 3, "{more} for {headers} headers");
        let more = allocations(headers, |request| finish(idempotent.call(request))) - by_hand;
        assert!(more <= 3, "{more} for {headers} headers");
        println!("{headers} headers: {by_hand} by hand and with the layer, {more} more with a copy");
    }
}

fn answer(request: Request<Empty<Bytes>>) -> Ready<Result<Response<Empty<Bytes>>, Infallible>> {
    assert!(request.headers().contains_key("authorization"));
    ready(Ok(Response::new(Empty::new())))
}

fn request(headers: usize) -> Request<Empty<Bytes>> {
    let mut request = Request::get("https://api.example.com/v1/things").body(Empty::new()).unwrap();
    for name in ["accept", "user-agent", "x-request-id", "traceparent"].into_iter().take(headers) {
        // What is not static and not shared yet costs one more when it is first copied, whoever copies it.
        request.headers_mut().insert(HeaderName::from_static(name), HeaderValue::from_static("value"));
    }
    request
}

/// Of the second run: what is set up once is not counted.
fn allocations(headers: usize, mut run: impl FnMut(Request<Empty<Bytes>>)) -> u32 {
    run(request(headers));
    let request = request(headers);
    let before = ALLOCATIONS.get();
    run(request);
    ALLOCATIONS.get() - before
}

fn finish<T>(future: impl Future<Output = T>) {
    let future = std::pin::pin!(future);
    let Poll::Ready(_) = future.poll(&mut Context::from_waker(Waker::noop())) else { panic!("pending") };
}

struct Counting;

#[global_allocator]
static COUNTING: Counting = Counting;

thread_local! {
    static ALLOCATIONS: Cell<u32> = const { Cell::new(0) };
}

// SAFETY: everything is handed on to the system's allocator; the counter needs neither memory nor a destructor.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        unsafe { System.realloc(pointer, layout, size) }
    }
}
