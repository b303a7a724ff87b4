//! smoke
use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};
use std::time::Duration;
use steadfast::*;

#[tokio::test(start_paused = true)]
async fn smoke() {
    let calls = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&calls);
    let tokens = MonitoredTokenSource::builder(move || {
        let c = Arc::clone(&counted);
        async move {
            let n = c.fetch_add(1, Ordering::SeqCst);
            tokio::time::sleep(Duration::from_millis(50)).await;
            if (1..12).contains(&n) {
                return Err("down".into());
            }
            Ok(IssuedToken::bearer(format!("t{n}")).expires_in(Duration::from_secs(600)))
        }
    })
    .sink(sink_fn(|e: StatusEvent| async move {
        println!("{e} {:?}", e.next_attempt);
        Ok(())
    }))
    .spawn()
    .unwrap();
    let t = tokens.token().await.unwrap();
    println!("{t:?} {:?}", tokens);
    for i in 0..60 {
        tokio::time::sleep(Duration::from_secs(30)).await;
        println!(
            "{i} {:?} {:?} calls {}",
            tokens.snapshot(),
            tokens.token().await.map_err(|e| (e.to_string(), e.retry_after())),
            calls.load(Ordering::SeqCst)
        );
    }
    tokens.shutdown().await;
}
