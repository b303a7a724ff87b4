#[tokio::test(start_paused = true)]
async fn smoke() {
    use steadfast::{AuthLayer, IssuedToken, MonitoredTokenSource, testing::ProtectedApi};
    let api = ProtectedApi::alone().await;
    api.accept("s3cret");
    let tokens = MonitoredTokenSource::builder(|| async { Ok(IssuedToken::bearer("s3cret")) }).spawn().unwrap();
    let layer = AuthLayer::new(tokens, api.url()).unwrap();
    let client = reqwest::Client::new();
    let get = || reqwest::Request::new(reqwest::Method::GET, api.url().parse().unwrap());
    assert_eq!(layer.wrap(client.clone()).send(get()).await.unwrap().status(), 200);
    assert_eq!(layer.clone().replay_once().wrap(&client).send(get()).await.unwrap().status(), 200);
    let hyper = hyper_util::client::legacy::Client::builder(hyper_util::rt::TokioExecutor::new())
        .build_http::<http_body_util::Empty<hyper::body::Bytes>>();
    let request = http::Request::get(api.url()).body(http_body_util::Empty::new()).unwrap();
    assert_eq!(layer.clone().replay_idempotent_once().wrap(hyper).send(request).await.unwrap().status(), 200);
    let channel = tonic::transport::Endpoint::from_static("http://127.0.0.1:1").connect_lazy();
    let channel = layer.clone().inner_is_bound_to_origin().replay_idempotent_once().wrap(channel);
    let mut grpc = tonic::client::Grpc::new(channel);
    let _ = grpc.ready().await;
}
