//! The provider's load over time, as a picture that reads on light and on dark pages.

use std::fmt::Write;

use crate::{
    report::{Record, Scene},
    terminal::thousands,
};

pub(crate) fn svg(scene: &Scene, records: &[Record]) -> String {
    let loads: Vec<Vec<f64>> = records.iter().map(load).collect();
    let most = loads.iter().flatten().copied().fold(1.0, f64::max);
    let (step, ticks) = scale(most);
    let top = step * ticks as f64;
    let x = |second: f64| LEFT + second / Scene::SECONDS as f64 * (RIGHT - LEFT);
    let y = |load: f64| BOTTOM - load / top * (BOTTOM - TOP);

    let mut svg = String::from(HEAD);
    let (from, to) = (x(Scene::OUTAGE.start as f64), x(Scene::OUTAGE.end as f64));
    put(
        &mut svg,
        format_args!(
            r#"<rect class="outage" x="{from:.1}" y="{TOP}" width="{:.1}" height="{}"/>"#,
            to - from,
            BOTTOM - TOP
        ),
    );
    put(
        &mut svg,
        format_args!(
            r#"<text x="{:.1}" y="{}" text-anchor="middle">the provider is down</text>"#,
            (from + to) / 2.0,
            TOP + 18.0
        ),
    );
    for tick in 0..=ticks {
        let (at, load) = (y(step * tick as f64), step * tick as f64);
        put(&mut svg, format_args!(r#"<path class="grid" d="M{LEFT} {at:.1}H{RIGHT}"/>"#));
        put(
            &mut svg,
            format_args!(
                r#"<text x="{}" y="{:.1}" text-anchor="end">{}</text>"#,
                LEFT - 8.0,
                at + 4.0,
                thousands(load.round() as u64)
            ),
        );
    }
    for half_hour in 0..=10 {
        let at = x(f64::from(half_hour) * 1_800.0);
        put(&mut svg, format_args!(r#"<path class="axis" d="M{at:.1} {BOTTOM}v5"/>"#));
        if half_hour % 2 == 0 {
            put(
                &mut svg,
                format_args!(
                    r#"<text x="{at:.1}" y="{}" text-anchor="middle">{} h</text>"#,
                    BOTTOM + 20.0,
                    half_hour / 2
                ),
            );
        }
    }
    for (nth, (record, loads)) in records.iter().zip(&loads).enumerate() {
        let mut line = String::new();
        for (bin, load) in loads.iter().enumerate() {
            let command = if bin == 0 { 'M' } else { 'L' };
            let _ = write!(line, "{command}{:.1} {:.1}", x((bin as f64 + 0.5) * BIN as f64), y(*load));
        }
        put(&mut svg, format_args!(r#"<path class="line s{nth}" d="{line}"/>"#));
        let at = 46.0 + 150.0 * nth as f64 + LEFT;
        put(&mut svg, format_args!(r#"<path class="line s{nth}" d="M{at} 44h26"/>"#));
        put(&mut svg, format_args!(r#"<text x="{}" y="48">{}</text>"#, at + 34.0, record.name));
    }
    let title = format!("Exchanges per second at the identity provider, {} sources", thousands(scene.sources));
    put(&mut svg, format_args!(r#"<text class="title" x="{LEFT}" y="24">{title}</text>"#));
    put(&mut svg, format_args!(r#"<path class="axis" d="M{LEFT} {BOTTOM}H{RIGHT}"/>"#));
    svg.push_str("</svg>\n");
    svg
}

/// The mean of each bin.
fn load(record: &Record) -> Vec<f64> {
    record.requests.chunks(BIN).map(|bin| f64::from(bin.iter().sum::<u32>()) / bin.len() as f64).collect()
}

/// A round distance between the lines of the grid, and how many there are.
fn scale(most: f64) -> (f64, u32) {
    let magnitude = 10_f64.powf((most / 5.0).log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0].map(|factor| factor * magnitude).into_iter().find(|step| most / step <= 5.0);
    let step = step.unwrap_or(magnitude * 10.0);
    (step, (most / step).ceil() as u32)
}

fn put(svg: &mut String, element: std::fmt::Arguments<'_>) {
    let _ = writeln!(svg, "{element}");
}

const BIN: usize = 30;
const LEFT: f64 = 64.0;
const RIGHT: f64 = 876.0;
const TOP: f64 = 64.0;
const BOTTOM: f64 = 380.0;
const HEAD: &str = r#"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 900 412" font-family="system-ui, sans-serif" font-size="13">
<style>
text { fill: #24292f } .title { font-size: 16px; font-weight: 600 }
.outage { fill: #d0d7de; opacity: .45 } .grid { stroke: #d0d7de; stroke-width: .6 } .axis { stroke: #57606a; fill: none }
.line { fill: none; stroke-width: 1.8; stroke-linejoin: round } .s0 { stroke: #cf222e } .s1 { stroke: #bf8700 } .s2 { stroke: #0969da; stroke-width: 2.4 }
@media (prefers-color-scheme: dark) {
text { fill: #e6edf3 } .outage { fill: #484f58 } .grid { stroke: #30363d } .axis { stroke: #8b949e }
.s0 { stroke: #ff7b72 } .s1 { stroke: #e3b341 } .s2 { stroke: #79c0ff }
}
</style>
"#;
