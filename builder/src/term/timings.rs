//! `--timings`: the time of each stage as a table, and a page that shows stages and workers in
//! parallel.

use std::fmt::Write;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Equal spans with a shorter gap are shown as one.
const GAP: Duration = Duration::from_millis(2);

static SPANS: Mutex<Option<Recording>> = Mutex::new(None);

struct Recording {
    start: Instant,
    spans: Vec<Span>,
}

/// An activity of one thread.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Span {
    /// The row of the page: the stages, or a worker.
    row: String,
    what: &'static str,
    /// Relative to the start of the recording.
    from: Duration,
    to: Duration,
}

/// Starts a recording.
pub fn record() {
    *SPANS.lock().unwrap_or_else(PoisonError::into_inner) = Some(Recording {
        start: Instant::now(),
        spans: Vec::new(),
    });
}

/// An activity that lasts until this is dropped.
#[derive(Debug)]
pub struct SpanGuard {
    row: Option<usize>,
    what: &'static str,
    since: Instant,
}

/// Starts a stage.
pub fn stage(what: &'static str) -> SpanGuard {
    SpanGuard {
        row: None,
        what,
        since: Instant::now(),
    }
}

/// Starts an activity of the worker with this number.
pub fn worker(number: usize, what: &'static str) -> SpanGuard {
    SpanGuard {
        row: Some(number),
        what,
        since: Instant::now(),
    }
}

impl Drop for SpanGuard {
    fn drop(&mut self) {
        let mut recording = SPANS.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(Recording { start, spans }) = &mut *recording else {
            return;
        };
        let row = self.row.map_or_else(
            || "stages".to_owned(),
            |number| format!("worker {}", number + 1),
        );
        let (from, to) = (
            self.since.saturating_duration_since(*start),
            start.elapsed(),
        );
        match spans.iter_mut().rev().find(|span| span.row == row) {
            Some(last) if last.what == self.what && last.to + GAP >= from => last.to = to,
            _ => spans.push(Span {
                row,
                what: self.what,
                from,
                to,
            }),
        }
    }
}

/// Ends the recording and returns its table and page; `None` without a recording.
pub fn finish() -> Option<(String, String)> {
    let recording = SPANS
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .take()?;
    Some((table(&recording.spans), page(&recording.spans)))
}

fn end(spans: &[Span]) -> f64 {
    spans
        .iter()
        .map(|span| span.to.as_secs_f64())
        .fold(0.0, f64::max)
        .max(1e-9)
}

fn table(spans: &[Span]) -> String {
    let all = end(spans);
    let mut text = String::from("   seconds  share\n");
    for span in spans.iter().filter(|span| span.row == "stages") {
        let took = (span.to - span.from).as_secs_f64();
        let _ = writeln!(
            text,
            "{took:>10.3} {:>4.0} %  {}",
            100.0 * took / all,
            span.what
        );
    }
    let _ = writeln!(text, "{all:>10.3}         in all");
    text
}

fn page(spans: &[Span]) -> String {
    let all = end(spans);
    let mut rows: Vec<&str> = spans.iter().map(|span| span.row.as_str()).collect();
    rows.sort_unstable();
    rows.dedup();
    rows.sort_by_key(|row| *row != "stages");
    let mut body = String::new();
    for row in rows {
        let busy: f64 = spans
            .iter()
            .filter(|span| span.row == row)
            .map(|span| (span.to - span.from).as_secs_f64())
            .sum();
        let _ = writeln!(
            body,
            "<div class=name>{row}<small>{busy:.2} s, {:.0} %</small></div><div class=row>",
            100.0 * busy / all
        );
        for span in spans.iter().filter(|span| span.row == row) {
            let (from, took) = (span.from.as_secs_f64(), (span.to - span.from).as_secs_f64());
            // The colour is derived from the name, so it is the same in every page.
            let hue = span.what.bytes().fold(7u32, |hue, byte| {
                hue.wrapping_mul(31).wrapping_add(u32::from(byte))
            }) % 360;
            let _ = writeln!(
                body,
                "<i style=\"left:{:.3}%;width:{:.3}%;background:hsl({hue},60%,72%)\" title=\"{} {took:.3} s, from {from:.3} s\">{}</i>",
                100.0 * from / all,
                100.0 * took / all,
                span.what,
                span.what,
            );
        }
        body += "</div>\n";
    }
    format!(
        "<!doctype html>\n<html lang=en><meta charset=utf-8><title>adamant build: {all:.2} s</title>\n<style>
body{{font:14px system-ui,sans-serif;margin:2em}}
main{{display:grid;grid-template-columns:9em 1fr;gap:4px}}
.name small{{display:block;color:#666}}
.row{{position:relative;height:2.6em;background:#f3f3f3;overflow:hidden}}
.row i{{position:absolute;top:0;bottom:0;font-style:normal;overflow:hidden;white-space:nowrap;padding:.7em 0;box-sizing:border-box;text-indent:3px}}
pre{{margin-top:2em}}
</style>\n<h1>{all:.2} s</h1>\n<main>\n{body}</main>\n<pre>{}</pre>\n",
        table(spans)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_has_each_stage_and_the_page_each_row() {
        let span = |row: &str, what, from, to| Span {
            row: row.to_owned(),
            what,
            from: Duration::from_millis(from),
            to: Duration::from_millis(to),
        };
        let spans = [
            span("stages", "sources", 0, 500),
            span("worker 2", "compress", 600, 1900),
            span("stages", "root", 500, 2000),
        ];
        assert_eq!(
            table(&spans),
            "   seconds  share\n     0.500   25 %  sources\n     1.500   75 %  root\n     2.000         in all\n"
        );
        let page = page(&spans);
        assert!(
            page.find("stages").unwrap() < page.find("worker 2").unwrap(),
            "{page}"
        );
        assert!(
            page.contains("left:30.000%;width:65.000%")
                && page.contains("compress 1.300 s, from 0.600 s"),
            "{page}"
        );
    }
}
