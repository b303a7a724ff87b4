//! Links that need no network: in what is written for readers of the repository, and in the documentation that rustdoc has
//! made (`.ci/docs`), where each item that needs a feature has to say so as well.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a helper of a test fails by panicking"
)]

mod support;

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
};

#[test]
fn each_local_link_of_a_page_leads_to_a_file_or_a_heading() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let pages: Vec<PathBuf> = files(root, "md").into_iter().filter(|path| !is_part_of_the_docs(path)).collect();
    assert!(pages.contains(&root.join("README.md")));
    let mut broken = Vec::new();
    for page in &pages {
        let text = std::fs::read_to_string(page).unwrap();
        for link in text.split("](").skip(1).map(|rest| rest.split([')', ' ']).next().unwrap()) {
            let (path, anchor) = link.split_once('#').unwrap_or((link, ""));
            let target = if path.is_empty() { page.clone() } else { page.with_file_name("").join(path) };
            let leads = || {
                let text = std::fs::read_to_string(&target).unwrap_or_default();
                anchor.is_empty() || text.lines().any(|line| heading(line).is_some_and(|heading| heading == anchor))
            };
            if is_local(link) && !(target.exists() && leads()) {
                broken.push(format!("{}: {link}", page.display()));
            }
        }
    }
    assert!(broken.is_empty(), "{broken:#?}");
}

#[test]
fn each_local_link_of_the_documentation_leads_to_a_page_and_a_place_on_it() {
    let Some(docs) = docs() else { return };
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let sources = [files(&root, "rs"), files(&root, "md")].concat();
    let sources: String = sources.iter().map(|path| std::fs::read_to_string(path).unwrap()).collect();
    let mut pages: HashMap<PathBuf, Option<String>> = HashMap::new();
    let mut broken = Vec::new();
    let mut count = 0;
    for page in files(&docs.join("steadfast"), "html") {
        let text = std::fs::read_to_string(&page).unwrap();
        for link in
            text.split(" href=\"").skip(1).map(|rest| rest.split('"').next().unwrap()).filter(|link| is_local(link))
        {
            let (path, anchor) = link.split_once('#').unwrap_or((link, ""));
            // Other crates' documentation of their traits stands on our pages, and links to neighbours that are not here.
            if !(path.is_empty() || path.ends_with(".html") || sources.contains(link)) {
                continue;
            }
            count += 1;
            let target = if path.is_empty() { page.clone() } else { tidy(&page.with_file_name("").join(path)) };
            let target = if target.is_dir() { target.join("index.html") } else { target };
            // One that scripts write into the page: the lines of a source.
            let is_line = anchor.chars().all(|sign| sign.is_ascii_digit() || sign == '-');
            let text = pages.entry(target.clone()).or_insert_with(|| std::fs::read(&target).ok().map(text_of));
            let leads = |text: &String| is_line || text.contains(&format!("id=\"{anchor}\""));
            if !text.as_ref().is_some_and(leads) {
                broken.push(format!("{}: {link}", page.display()));
            }
        }
    }
    assert!(count > 1000, "{count} links");
    assert!(broken.is_empty(), "{broken:#?}");
}

#[test]
fn what_needs_a_feature_says_so() {
    let Some(docs) = docs() else { return };
    let library = include_str!("../src/lib.rs");
    let mut pages = vec![("store/struct.RedisStore.html".to_owned(), "redis".to_owned())];
    let gated = library.split("#[cfg(feature = \"").skip(1);
    pages.extend(gated.filter_map(|rest| {
        let (feature, rest) = rest.split_once("\")]\npub mod ")?;
        Some((format!("{}/index.html", rest.split(';').next()?), feature.to_owned()))
    }));
    assert!(pages.len() > 3, "{pages:?}");
    for (page, feature) in pages {
        let text = std::fs::read_to_string(docs.join("steadfast").join(&page)).unwrap();
        let mut labels = text.split("Available on <strong>crate feature").skip(1);
        let says =
            labels.any(|rest| rest.split("</strong>").next().unwrap().contains(&format!("<code>{feature}</code>")));
        assert!(says, "{page} does not say that it needs {feature}");
    }
}

fn docs() -> Option<PathBuf> {
    let docs = std::env::var_os("STEADFAST_DOCS").map(PathBuf::from);
    if docs.is_none() {
        support::skipped("STEADFAST_DOCS names no directory, so the links of the documentation are not checked");
    }
    docs
}

fn is_local(link: &str) -> bool {
    !["http:", "https:", "mailto:", "javascript:", "data:"].iter().any(|scheme| link.starts_with(scheme))
}

/// Rustdoc resolves the links of those.
fn is_part_of_the_docs(page: &Path) -> bool {
    page.strip_prefix(env!("CARGO_MANIFEST_DIR")).is_ok_and(|page| page.starts_with("src"))
}

/// As a heading is linked to: small letters, hyphens for blanks, nothing else but digits and underscores.
fn heading(line: &str) -> Option<String> {
    let text = line.strip_prefix('#')?.trim_start_matches('#').trim().to_lowercase();
    let kept = text.chars().filter(|sign| sign.is_alphanumeric() || [' ', '-', '_'].contains(sign));
    Some(kept.map(|sign| if sign == ' ' { '-' } else { sign }).collect())
}

fn files(directory: &Path, extension: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() && !path.ends_with("target") && !path.ends_with(".git") {
            found.extend(files(&path, extension));
        } else if path.extension().is_some_and(|found| found == extension) {
            found.push(path);
        }
    }
    found
}

/// Without `..`, so that each page has one name.
fn tidy(path: &Path) -> PathBuf {
    let mut tidy = PathBuf::new();
    for part in path.components() {
        if part == std::path::Component::ParentDir {
            tidy.pop();
        } else {
            tidy.push(part);
        }
    }
    tidy
}

fn text_of(bytes: Vec<u8>) -> String {
    String::from_utf8_lossy(&bytes).into_owned()
}
