//! Guides: complete programs to copy, then why they are the way they are.
//!
//! Begin with [`quick_start`]. The others stand alone; the crate's [front page](crate#where-to-go-next) says which one answers
//! which question. Every snippet is compiled and run with the crate's tests, against the servers of its [testing kit](testing).

/// Pages whose text is in a file; without the features that it speaks of, its links would lead nowhere.
macro_rules! pages {
    ($($page:ident $([$more:literal])?: $title:literal, $file:literal;)*) => { $(
        #[doc = $title]
        #[doc = ""]
        #[cfg_attr(all(feature = "oauth2", feature = "reqwest" $(, feature = $more)?), doc = include_str!($file))]
        #[cfg_attr(not(all(feature = "oauth2", feature = "reqwest" $(, feature = $more)?)), doc = include_str!("guide/elsewhere.md"))]
        pub mod $page {}
    )* };
}

pages! {
    quick_start: "From `cargo add` to a protected client in five minutes.", "guide/quick_start.md";
    token_source: "Writing a `TokenSource`: tokens from somewhere else.", "guide/token_source.md";
    policy: "Choosing a policy, with numbers.", "guide/policy.md";
    rejections: "The 401 side: what a refusal means, and what follows from it.", "guide/rejections.md";
    shared_login: "Sharing one login between processes, and between machines.", "guide/shared_login.md";
    readiness: "Status sinks and readiness, and why a restart does not help.", "guide/readiness.md";
    testing ["testing"]: "Testing your host with the kit.", "guide/testing.md";
    frameworks: "Running under axum, hyper, tonic, tower and reqwest-middleware.", "guide/frameworks.md";
    embedding: "Embedding with `pair()`: the host runs the driver itself.", "guide/embedding.md";
    migrating: "Migrating from google-cloud-auth, aliri_tokens, oauth2 by hand, and from the Go original.", "guide/migrating.md";
    faq: "Questions that users ask, answered.", "guide/faq.md";
}
